"""Which loss belongs to which step: one that is logged, before or after the step, or what `backward` is called on."""

from __future__ import annotations

from typing import Any

import torch

from gradtui.record.backward import backwards
from gradtui.record.optimizers import Optimizers
from gradtui.record.row_queue import Row, RowQueue


class Losses:
    """Gives each row its loss, and those of steps that were not measured a row now and then.

    Whether a loss that is logged belongs to the step before or to the one to come is told by the first: before the
    first step it is the latter, from then on.

    Args:
        queue: where rows go.
        optimizers: the loss of a model that is not the first one is a metric.

    Attributes:
        are_logged: the training logs its loss.
    """

    def __init__(self, queue: RowQueue, optimizers: Optimizers) -> None:
        self.are_logged = False
        self._come_first = False
        self._waiting: float | torch.Tensor | None = None  # for the step that it is of
        self._queue, self._optimizers = queue, optimizers

    @property
    def come_after_steps(self) -> bool:
        """True if they are logged after the step that they are of, so that nothing has to be done in the step."""
        return self.are_logged and not self._come_first

    def log(self, value: Any, step: int, row: Row | None) -> bool:
        """Take a loss that is logged after so many steps; True if it completes `row`, of the step just measured."""
        if not self.are_logged:
            self.are_logged, self._come_first = True, step == 0
        if self._come_first:
            self._waiting = self._queue.number("loss", value, step)
        elif row is not None:
            row.loss = self._queue.number("loss", value, step)
            return True
        else:
            self._queue.send_loss(step, value)
        return False

    def evaluated(self, row: Row | None) -> None:
        """A step's closure was called for the first time, on which it had its loss."""
        if self.are_logged:
            return
        loss = backwards.take()
        if row is not None:
            row.loss = loss
        else:
            self._waiting = loss

    def complete(self, row: Row, optimizer: Any) -> bool:
        """Give the row of a step that was just taken its loss, if it is known; True if it was logged."""
        if self.are_logged:
            if self._come_first:
                row.loss, self._waiting = self._waiting, None
            return self._come_first
        found = backwards.take()
        if row.loss is None:
            row.loss = found
        model = self._optimizers.model_of(optimizer)
        if model is not None and row.loss is not None:
            loss, row.loss = row.loss, None
            self._queue.scalar(row.step, f"loss {model}", loss)
        return False

    def keep(self, step: int, optimizer: Any) -> None:
        """Send the loss of a step that was not measured, if it is known and was not sent."""
        if self._waiting is not None:
            loss, self._waiting = self._waiting, None
            self._queue.send_loss(step, loss, optimizer)
            backwards.take()  # what a closure was called for after the first time
        elif not self.are_logged:
            found = backwards.take()
            # asked in this order: which model an optimizer has takes a look at all of its parameters
            if found is not None and self._queue.wants_loss(step) and self._optimizers.model_of(optimizer) is None:
                self._queue.send_loss(step, found, optimizer)

    def forget(self) -> None:
        """Drop what there is: it is of steps that have passed."""
        self._waiting = None
        backwards.drop()
