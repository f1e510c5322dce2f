"""Who says that a step begins and has been taken, and who is told.

A source is one way in which trainings take steps: `OptimizerSteps` (hooks on an optimizer), `StepsInBackward`
(optimizers that step inside one backward), `BackwardSteps` (steps between two calls of `backward`, which nothing else
shows) and `GradSteps` (between two calls of `torch.autograd.grad` or of a function that `torch.func` made).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class StepSource(Protocol):
    """Tells a `StepSink` of the steps of one stepper: an optimizer, or what stands in for one.

    `can_rest` is True if nothing has to be done in a step that is not measured but to count it.
    """

    can_rest: bool

    def rest(self, count: Callable[..., None]) -> None:
        """Call `count` after each step, and nothing else, until `wake`."""

    def wake(self) -> None:
        """Tell of each step again, from the next one on."""

    def finish(self) -> None:
        """The recording ends: tell of a step that must have been taken by now."""

    def remove(self, *, inside_a_step: bool = False) -> None:
        """Take off what was put on; what cannot be taken off within a step does nothing from now on."""


class StepSink(Protocol):
    """Is told of steps; whatever fails in it goes to `fail`."""

    def begin(self, stepper: Any) -> bool:
        """A step begins; True if it is to be measured."""

    def measure(self, stepper: Any) -> None:
        """The gradients of that step are there."""

    def finish(self, stepper: Any) -> None:
        """The step has been taken."""

    def evaluated(self) -> None:
        """The step's closure was called for the first time, so that its loss is known."""

    def fail(self, error: Exception, inside_a_step: bool = False) -> None:
        """Recording ends here; the training goes on."""
