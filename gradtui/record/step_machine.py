"""What is done in each step of a training, and when: a machine of five states that the sources of steps drive."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from torch import Tensor

from gradtui.record.backward import backwards
from gradtui.record.losses import Losses
from gradtui.record.measurement import Measurement
from gradtui.record.origin import GradientGuard
from gradtui.record.own_steps import OwnSteps
from gradtui.record.row_maker import RowMaker
from gradtui.record.row_queue import Row, RowQueue, learning_rate
from gradtui.record.step_sample import JointSample
from gradtui.record.steps_in_backward import StepsInBackward
from gradtui.runfile.schema import Schedule


class State(Enum):
    """Where a recording stands between two calls from the training."""

    IDLE = "looks at each step whether it is due"
    QUIET = "counts steps until a time comes"
    MEASURING = "has taken the first half of a sample; the step is under way"
    WAITING = "has a whole row, whose loss the training may still log"
    CLOSED = "does nothing any more"


IDLE, QUIET, MEASURING, WAITING, CLOSED = State


class StepMachine:
    """Counts steps, has those measured that are due, and sends their rows.

    Args:
        measurement: takes the samples.
        queue: sends rows.
        losses: of the steps.
        rows: may have findings to tell.
        clock: seconds.
        on_error: told of what fails, and whether that was within a step; closes the machine.

    Attributes:
        state: where it stands.
        quiet_until: when it looks at a step again, by the clock.
        guard: looks at gradients that are changed before the step.
        inside: collects the steps inside one backward.
        losses: finds the loss of each step.
    """

    def __init__(
        self,
        measurement: Measurement,
        queue: RowQueue,
        losses: Losses,
        rows: RowMaker,
        clock: Callable[[], float],
        on_error: Callable[[Exception, bool], None],
    ) -> None:
        self.state = IDLE
        self.quiet_until = 0.0
        self._step = 0  # as of the last time that steps were looked at
        self._joint = OwnSteps(0)  # of many optimizers at once
        self._before: OwnSteps | None = None  # whose step was the last that was looked at
        self.guard = GradientGuard(measurement.optimizers.table)
        self.inside = StepsInBackward(self)
        self.losses = losses
        self._measurement, self._queue, self._rows = measurement, queue, rows
        self._optimizers = measurement.optimizers
        self._clock, self._on_error = clock, on_error
        self._row: Row | None = None  # while MEASURING or WAITING
        self._stepper: Any = None  # while MEASURING
        backwards.follow(self)

    @property
    def step(self) -> int:
        """Steps taken so far, by all optimizers."""
        return self._joint.steps + self._optimizers.steps if self.state is QUIET else self._step

    def begin_at(self, stepper: Any, steps: int) -> None:
        """The stepper has taken so many steps before anybody looked."""
        self._optimizers[stepper].own.steps = steps
        self._step = self._joint.steps + self._optimizers.steps

    def skipped(self, optimizer: Any) -> None:
        """A step was called for, and left out by a loss scaler; it counts."""
        self._optimizers[optimizer].own.steps += 1
        self._step += 1

    def schedules(self) -> list[Schedule]:
        """How often each optimizer was measured; may be asked from any thread."""
        joint = [self._joint.counts()] if self._joint.steps else []
        return [*joint, *self._optimizers.schedules()]

    # -- an optimizer's step ----------------------------------------------------------------------------------

    def begin(self, stepper: Any) -> bool:
        """A step begins; True if it is to be measured."""
        if self.state is WAITING:
            self.send_row()
        elif self.state is MEASURING and self._stepper is stepper:
            self.state, self._row = IDLE, None  # the step before raised something
        if self.guard.alters is None:
            self.guard.before_step()
            if self.guard.alters is False:
                backwards.unfollow(self)
        if self._queue.pending:
            self._queue.poll()
        return self.state is not CLOSED and self._measurement.is_due(self._step + 1, stepper)

    def measure(self, stepper: Any) -> None:
        """The gradients of the step that has begun are there."""
        if self.state is CLOSED:
            return
        # a step that never ended, or that takes another one inside it, leaves no row
        self.state, self._row = IDLE, None
        sample = self._measurement.read(self._step + 1, stepper)
        if sample is not None:
            own = self._optimizers[stepper].own
            self._row = Row(self._step + 1, 0.0, learning_rate(stepper), sample, own)
            self._stepper = stepper
            self.state = MEASURING

    def evaluated(self) -> None:
        """The step's closure was called for the first time, on which it had its loss."""
        if self.state is not CLOSED:
            self.losses.evaluated(self._row)

    def finish(self, stepper: Any) -> None:
        """The step has been taken."""
        has_news = False
        try:
            if self.state is CLOSED:
                return
            own = self._count(stepper)
            if self.state is MEASURING and self._stepper is stepper:
                self._complete(stepper)
                has_news = bool(self._rows.diagnosis.news)
            elif self.state is IDLE:
                self.losses.keep(self._step, stepper)
            self._measurement.end(own, self._step)
            if self.state is IDLE:
                self._rest()
        except Exception as error:
            self.fail(error, inside_a_step=True)
        if has_news:
            self._rows.diagnosis.tell()  # what it raises ends the training

    def _count(self, stepper: Any) -> OwnSteps:
        """One more step, that was looked at."""
        own, before = self._optimizers[stepper].own, self._before
        own.steps += 1
        self._step += 1
        own.see(self._step)
        if before is not None:
            before.follower = own
        self._before = own
        return own

    def counter(self, own: OwnSteps) -> Callable[[Any], None]:
        """What the source of an optimizer's steps calls after each while it is quiet, and does nothing else."""
        clock = self._clock

        def count(_: Any) -> None:
            # small nets take 300 µs a step and leave cold caches, where each object that is looked at costs 100 ns
            own.steps += 1
            if own.steps >= own.floor or clock() >= self.quiet_until:
                self.wake()

        return count

    def wake(self) -> None:
        """Look at each step again, from the next one on."""
        if self.state is not QUIET:
            return
        try:
            self._step = self.step
            self.state, self._before = IDLE, None
            self._optimizers.see_all(self._step)
            self.losses.forget()
            for source in self._optimizers.sources:
                source.wake()
        except Exception as error:
            self.fail(error)

    def log_loss(self, loss: Any) -> None:
        """The training tells the loss of the step before or of the one to come."""
        waiting = self._row if self.state is WAITING else None
        if self.losses.log(loss, self.step, waiting):
            self.send_row()

    def send_row(self) -> None:
        """Send the row that waits for its loss, if there is one."""
        row, self._row = self._row, None
        if self.state is WAITING:
            self.state = IDLE
            if row is not None:
                self._queue.send(row)

    def close(self) -> None:
        """Do nothing from now on."""
        self._step = self.step
        self.state, self._row, self._stepper = CLOSED, None, None
        self.inside.drop()
        backwards.unfollow(self)

    def fail(self, error: Exception, inside_a_step: bool = False) -> None:
        """Recording ends here; the training goes on."""
        self._on_error(error, inside_a_step)

    def _complete(self, stepper: Any) -> None:
        """The step that was measured has been taken: its row is whole but for a loss that may be logged later."""
        row, self._stepper = self._row, None
        assert row is not None and row.sample is not None
        row.sample.after()
        row.seconds = self._queue.seconds()
        self.state = WAITING
        if self.losses.complete(row, stepper):
            self.send_row()

    def _rest(self) -> None:
        """Only count steps until one is due, if nothing else is to be done."""
        if self.guard.alters is None or self._queue.pending or not self._measurement.can_rest(self._step):
            return
        self.quiet_until = self._measurement.next_at
        if not self.losses.come_after_steps:
            self.quiet_until = min(self.quiet_until, self._queue.next_loss_at)
        if self._clock() < self.quiet_until:
            self.state = QUIET
            for watched in self._optimizers.all():
                watched.source.rest(self.counter(watched.own))

    # -- a backward in which many optimizers step, or whose gradients are looked at ----------------------------

    def begin_joint(self) -> JointSample | None:
        """A step of many optimizers begins; None if it is not to be measured."""
        self.send_row()
        self.guard.alters = False  # nothing comes between a gradient and its step
        backwards.unfollow(self)
        return None if self.state is CLOSED else self._measurement.begin_joint(self._joint, self.step + 1)

    def join(self, joint: JointSample, optimizer: Any) -> None:
        """The step of one of them begins."""
        sample = self._measurement.read(self._step + 1, optimizer, joint.wants)
        if sample is not None:
            joint.samples.append(sample)

    def finish_joint(self, joint: JointSample | None) -> None:
        """All of them have been taken."""
        try:
            self._joint.steps += 1
            self._step += 1
            self._joint.see(self._step)
            if joint is not None and joint.samples:
                self._row = Row(self._step, self._queue.seconds(), None, joint, self._joint)
                self.state = WAITING
                self.losses.evaluated(self._row)
        except Exception as error:
            self.fail(error)

    def backward_begins(self, loss: Tensor | None) -> None:
        """The graph is there, which may show why a gradient will be infinite."""
        try:
            self.guard.before_backward(self.step + 1, loss)
        except Exception as error:
            self.fail(error)

    def backward_ended(self) -> None:
        """Gradients are there, which something may change before the step."""
        try:
            self.guard.after_backward(self.step + 1)
        except Exception as error:
            self.fail(error)
