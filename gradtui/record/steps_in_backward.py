"""Optimizers that step as soon as their gradient is made: all steps of one backward are one step of the training."""

from __future__ import annotations

from typing import Any, Protocol

from gradtui.record.backward import backwards
from gradtui.record.step_sample import JointSample


class JointSink(Protocol):
    """Is told of the one step that they make."""

    def begin_joint(self) -> JointSample | None:
        """The first of them begins; where the steps are to be put, None if they are not measured."""

    def join(self, joint: JointSample, optimizer: Any) -> None:
        """One more begins, and is part of it."""

    def finish_joint(self, joint: JointSample | None) -> None:
        """The backward has ended, and so has the step."""


class StepsInBackward:
    """Collects the steps of one backward.

    Args:
        sink: is told.

    Attributes:
        is_open: a backward is under way in which an optimizer has stepped.
    """

    def __init__(self, sink: JointSink) -> None:
        self.is_open = False
        self._sink = sink
        self._joint: JointSample | None = None

    def before(self, optimizer: Any) -> None:
        """An optimizer is about to step."""
        if not self.is_open:
            self.is_open = True
            backwards.at_end(self._end)
            self._joint = self._sink.begin_joint()
        if self._joint is not None:
            self._sink.join(self._joint, optimizer)

    def after(self) -> None:
        """It has."""
        if self._joint is not None and self._joint.samples:
            self._joint.after()

    def drop(self) -> None:
        """Recording ends: there is nothing to tell of at the end of the backward."""
        self.is_open, self._joint = False, None

    def _end(self) -> None:
        if self.is_open:
            joint = self._joint
            self.drop()
            self._sink.finish_joint(joint)
