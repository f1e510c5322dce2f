"""Steps that an optimizer takes, seen by hooks on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradtui.record.backward import backwards
from gradtui.record.patches import StepHooks
from gradtui.record.step_source import StepSink
from gradtui.record.steps_in_backward import StepsInBackward


class OptimizerSteps:
    """Tells of the steps of one optimizer.

    Args:
        optimizer: takes the steps.
        sink: is told.
        inside: is told instead of steps that are taken inside a backward.
    """

    can_rest = True

    def __init__(self, optimizer: Any, sink: StepSink, inside: StepsInBackward) -> None:
        self._sink, self._inside = sink, inside
        self._hooks = StepHooks(optimizer, self._before, self._after)

    def rest(self, count: Callable[..., None]) -> None:
        """Call `count` after each step."""
        self._hooks.rest(count)

    def wake(self) -> None:
        """Tell of each step again."""
        self._hooks.wake(self._after)

    def finish(self) -> None:
        """Nothing is left to tell: the hook after the step has told."""

    def remove(self, *, inside_a_step: bool = False) -> None:
        """Take the hooks off."""
        if inside_a_step:
            self._hooks.silence()
        else:
            self._hooks.remove()

    def _before(self, optimizer: Any, arguments: Any = (), keywords: Any = None) -> Any:
        """A step begins; may give back the step's arguments with a closure of ours around theirs."""
        try:
            if backwards.active:
                self._inside.before(optimizer)
                return None
            is_due = self._sink.begin(optimizer)
            if len(arguments) > 1 or keywords:
                return self._wrap_closure(optimizer, arguments, keywords or {}, is_due)
            if is_due:
                self._sink.measure(optimizer)
        except Exception as error:
            self._sink.fail(error, inside_a_step=True)
        return None

    def _after(self, optimizer: Any) -> None:
        if backwards.active:
            try:
                self._inside.after()
            except Exception as error:
                self._sink.fail(error, inside_a_step=True)
        else:
            self._sink.finish(optimizer)

    def _wrap_closure(self, optimizer: Any, arguments: Any, keywords: Any, is_due: bool) -> Any:
        """Measure after the first evaluation of the closure: it made the gradients, and its loss is the step's."""
        closure = keywords.get("closure", arguments[1] if len(arguments) > 1 else None)
        if not callable(closure):
            if is_due:
                self._sink.measure(optimizer)
            return None
        first = [True]

        def evaluate(*positional: Any, **named: Any) -> Any:
            result = closure(*positional, **named)
            if first:
                first.clear()
                try:
                    if is_due:
                        self._sink.measure(optimizer)
                    self._sink.evaluated()
                except Exception as error:
                    self._sink.fail(error, inside_a_step=True)
            return result

        if "closure" in keywords:
            return arguments, {**keywords, "closure": evaluate}
        return (arguments[0], evaluate, *arguments[2:]), keywords
