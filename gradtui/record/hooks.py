"""Hooks that can be copied, pickled and switched off while a step runs."""

from __future__ import annotations

import weakref
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


class BeforeStepHook(Hook):
    """The hook before an optimizer's step; its answer may replace the step's arguments."""

    __slots__ = ()

    def __call__(self, optimizer: Any, arguments: Any, keywords: Any) -> Any:
        """Pass the call on."""
        if is_compiling():
            return None
        return self.target(optimizer, arguments, keywords)


class StepHooks:
    """The two hooks on an optimizer's step.

    PyTorch walks the very dict that `handle.remove()` changes, so that a hook which removes itself from within can
    break the step. Hence two ways to end: `remove` from outside, `silence` from within.
    """

    def __init__(self, optimizer: Any, before: Callable[..., Any], after: Callable[..., None]) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._before, self._after = BeforeStepHook(before), StepHook(after)
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def remove(self) -> None:
        """Take both hooks off; not from within one of them."""
        self._before.target = self._after.target = do_nothing
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def rest(self) -> None:
        """Leave out the hook before the step until `wake`; from within the one after it, or from outside."""
        self._handles[0].remove()

    def wake(self) -> None:
        """Put the hook before the step on again."""
        optimizer = self._optimizer()
        if optimizer is not None and self._handles:
            self._handles[0] = optimizer.register_step_pre_hook(self._before)

    def silence(self) -> None:
        """Make both do nothing from now on, from within the first; the second takes them off if it is safe."""
        self._before.target = do_nothing
        self._after.target = self._leave

    def _leave(self, *_: Any) -> None:
        self._after.target = do_nothing
        optimizer = self._optimizer()
        before, after = self._handles
        before.remove()  # nobody walks this one now
        hooks = getattr(optimizer, "_optimizer_step_post_hooks", {})
        if hooks and next(reversed(hooks)) == after.id:
            # the walk has already passed the last entry, so that taking it out is not noticed
            after.remove()
