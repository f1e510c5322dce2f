"""Hooks that can be copied, pickled and switched off while a step runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch.compiler import is_compiling


def do_nothing(*_: Any) -> None:
    """What a copied hook is: a copy of a watched model or optimizer is not watched."""


class Hook:
    """Calls `target`; copies and pickles as a function that does nothing, and compiles to nothing."""

    __slots__ = ("target",)

    def __init__(self, target: Callable[..., Any]) -> None:
        self.target = target

    def __call__(self, *arguments: Any) -> Any:
        """Pass the call on."""
        return None if is_compiling() else self.target(*arguments)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return do_nothing

    def __reduce__(self) -> tuple[Any, ...]:
        # from the standard library, so that a model which was saved while it was watched loads without gradtui:
        # nullcontext's `__exit__` takes any arguments and does nothing
        return getattr, (nullcontext(), "__exit__")


class StepHook(Hook):
    """The hook after an optimizer's step, which passes on the optimizer only."""

    __slots__ = ()

    def __call__(self, optimizer: Any, arguments: Any, keywords: Any) -> None:
        """Pass the call on."""
        if not is_compiling():
            self.target(optimizer)


def is_ours(hook: Any) -> bool:
    """True for a hook of a recording before a step, unless it has been silenced."""
    return isinstance(hook, BeforeStepHook) and hook.target is not do_nothing


class BeforeStepHook(Hook):
    """The hook before an optimizer's step; its answer may replace the step's arguments."""

    __slots__ = ()

    def __call__(self, optimizer: Any, arguments: Any, keywords: Any) -> Any:
        """Pass the call on."""
        if is_compiling():
            return None
        return self.target(optimizer, arguments, keywords)
