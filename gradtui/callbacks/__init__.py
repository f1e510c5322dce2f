"""Callbacks that record a framework's training: one module a framework, loaded when it is first named.

`gradtui.callbacks.NAME` is the module of this package for the framework NAME, which the extra `gradtui[NAME]` installs,
or what a package of yours registers under that name: as an entry point of the group `gradtui.callbacks`, or by
`CALLBACKS.register`. All take `RecordOptions`, or its fields as keywords, as `gradtui.watch` does. Importing this
module imports neither torch nor a framework.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from gradtui.registry import LazyRegistry

__all__ = ["CALLBACKS"]

SHARED = ("base", "fit_recording")  # the modules that are no framework's
CALLBACKS: LazyRegistry[Any] = LazyRegistry(
    "callback",
    "gradtui.callbacks",
    {
        module.name: partial(import_module, f"{__name__}.{module.name}")
        for module in iter_modules(__path__)
        if module.name not in SHARED
    },
)


def __getattr__(name: str) -> Any:
    """Load a framework's module when it is first used."""
    if name.startswith("_") or name not in CALLBACKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are {', '.join(CALLBACKS)}")
    return CALLBACKS[name]


def __dir__() -> list[str]:
    return sorted([*__all__, *CALLBACKS])
