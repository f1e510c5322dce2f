"""Names of a package that are imported when they are first used. Standard library only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str,
    homes: Mapping[str, str],
    *,
    also: tuple[str, ...] = (),
    guard: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: its name.
        homes: the names, separated by blanks, of each module that has some.
        also: what `__dir__` lists besides.
        guard: makes the context in which a name is imported.
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with guard():
            value = getattr(import_module(home_of[name]), name)
        return sys.modules[package].__dict__.setdefault(name, value)

    return get, lambda: sorted([*home_of, *also]), sorted(home_of)
