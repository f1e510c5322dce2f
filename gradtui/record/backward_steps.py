"""Steps that nothing shows but the calls of `backward`: no optimizer takes them, or one whose step is compiled.

The gradients are measured when a call has ended; the step that they made has been taken when the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from gradtui.record.backward import backwards
from gradtui.record.layers import is_anything_compiled
from gradtui.record.step_source import StepSink

UNSEEN_STEPS = 2  # calls of backward without a visible step, after which an optimizer's step counts as compiled


class BackwardSteps:
    """Tells of a step for each call of `backward`; stands in for the optimizer.

    Args:
        groups: what is trained, as an optimizer has it.
        sink: is told.
    """

    can_rest = False

    def __init__(self, groups: list[dict[str, Any]], sink: StepSink) -> None:
        self.param_groups = groups
        self._sink = sink
        self._is_open = False
        backwards.follow(self)

    def backward_begins(self, loss: Tensor | None) -> None:
        """The step after the last backward has been taken by now."""
        self.finish()

    def backward_ended(self) -> None:
        """The gradients are there, and will be gone soon."""
        try:
            self._is_open = True
            if self._sink.begin(self):
                self._sink.measure(self)
        except Exception as error:
            self._sink.fail(error)

    def finish(self) -> None:
        """Tell that the open step has been taken."""
        if self._is_open:
            self._is_open = False
            self._sink.finish(self)

    def rest(self, count: Callable[..., None]) -> None:
        """Never asked for: each call has to be looked at."""

    def wake(self) -> None:
        """Nothing to do."""

    def remove(self, *, inside_a_step: bool = False) -> None:
        """Follow the calls no longer."""
        backwards.unfollow(self)


class CompiledStepDetector:
    """Notices an optimizer whose step is compiled, hooks and all: calls of `backward`, and no step.

    Args:
        has_stepped: True once a step has been seen.
        found: called once with the number of steps so far, when a call of `backward` begins.
    """

    def __init__(self, has_stepped: Callable[[], bool], found: Callable[[int], None]) -> None:
        self._has_stepped, self._found = has_stepped, found
        self._calls_before = backwards.calls
        backwards.follow(self)

    def backward_begins(self, loss: Tensor | None) -> None:
        """Look whether steps are missing."""
        calls = backwards.calls - self._calls_before
        if self._has_stepped():
            self.remove()
        elif calls >= UNSEEN_STEPS and is_anything_compiled():
            self.remove()
            self._found(calls)

    def backward_ended(self) -> None:
        """Nothing to do."""

    def remove(self) -> None:
        """Look no longer."""
        backwards.unfollow(self)
