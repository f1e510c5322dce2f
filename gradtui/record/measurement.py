"""What is measured: the layers of what is trained, the probes on them, sampled activations, and which step is due."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gradtui.errors import say_once
from gradtui.format import listed
from gradtui.record.activations import ActivationSampler
from gradtui.record.backward import backwards
from gradtui.record.budget import Sampling
from gradtui.record.columns import Columns
from gradtui.record.optimizer_log import OptimizerLog
from gradtui.record.optimizers import Optimizers, Watched
from gradtui.record.row_maker import RowMaker
from gradtui.record.row_queue import DISTURBANCE, ROW_COST, RowQueue
from gradtui.record.sharded import ShardedNorms, ShardedProbe
from gradtui.record.step_sample import JointSample, Probe, StepSample
from gradtui.runfile import RunWriter

MOST_AHEAD = 1000  # steps to the next measured one of sharded parameters, so that the pace is looked at again


class Measurement:
    """Takes the samples of the steps that are due.

    Args:
        writer: is told the layers.
        sampling: says which steps are due.
        rows: makes rows of samples.
        queue: sends rows.
        columns: the measures; by default those that are registered.
        clock: seconds.

    Attributes:
        optimizers: whose steps are measured.
        sampler: of activations.
        when_known: called once layers have become known.
        optimizer_log: notes what the optimizers are, and their rates.
    """

    def __init__(
        self,
        writer: RunWriter,
        sampling: Sampling,
        rows: RowMaker,
        queue: RowQueue,
        columns: Columns | None,
        clock: Callable[[], float],
    ) -> None:
        self.optimizers = Optimizers(clock, columns)
        self.sampler = ActivationSampler(self.optimizers.table, clock)
        self.optimizer_log = OptimizerLog(writer, queue, self.optimizers.table, clock)
        self._writer, self._sampling, self._rows, self._queue = writer, sampling, rows, queue
        self._clock = clock
        self.when_known: Callable[[], None] = lambda: None
        self._samples_next = False  # activations are to be sampled in the next step

    def is_due(self, step: int, optimizer: Any) -> bool:
        """True if step number `step`, which begins, is due; may ask for the next one instead, with its activations."""
        if self.optimizers.has_shards:
            whole = self.optimizers[optimizer].whole
            if whole is not None:
                return whole.measuring
        if self._sampling.every is not None:
            return self._sampling.due(step, 0.0)
        if self.sampler.armed:
            return True
        now = self._clock()
        if not self._sampling.due(step, now):
            return False
        self._samples_next = self._wants_activations(now)
        return not self._samples_next

    def end(self, step: int) -> None:
        """Step number `step` has been taken: sample the activations of the next one, if that was asked for."""
        sampling = self._sampling
        if self._samples_next or (sampling.every is not None and sampling.due(step + 1, 0.0)):
            self._samples_next = False
            debt = self.sampler.debt()
            if debt:
                sampling.activations.spent(debt * DISTURBANCE, self._clock())
            if self._clock() >= sampling.activations.next_at and not self.sampler.armed:
                self.sampler.arm()
                if not self.sampler.armed:
                    sampling.activations.next_at = math.inf  # there is nothing that could be sampled
                self._tell_what_is_left_out(step)

    @property
    def next_at(self) -> float:
        """When a step is due, by the clock."""
        return self._sampling.rows.next_at

    @property
    def can_rest(self) -> bool:
        """True if nothing is to be done before the next step that is due."""
        optimizers = self.optimizers
        return not (
            self._sampling.every is not None
            or self.sampler.armed
            or optimizers.has_new_layers
            or optimizers.has_shards
            or not all(source.can_rest for source in optimizers.sources)
        )

    def read(self, step: int, optimizer: Any, wants: tuple[bool, bool] | None = None) -> StepSample | None:
        """Take what must be known before step number `step`; None if the device is too far behind.

        `wants` says whether the update is wanted too, and the neurons; by default that is asked of the sampling.
        """
        watched = self.optimizers[optimizer]
        if watched.has_changed():
            self.optimizers.follow_changes(watched)
        if watched.probe is None or self.optimizers.has_new_layers:
            watched.probe = self._set_up(watched, step)
        if watched.probe.busy:
            self._queue.tell("busy", "the device is far behind the host: some steps are not recorded", step)
            return None
        now = self._clock()
        self.optimizer_log.look(optimizer, step)
        update, neurons = wants or self._sampling.wants(step, now)
        timed = self._sampling.every is None
        sample = watched.probe.before(optimizer, now, timed=timed, update=update, neurons=neurons)
        if self.sampler.armed:
            sample.put(self.sampler.disarm())
            self._sampling.activations.spent(self.sampler.cost * DISTURBANCE, self._clock())
            self._tell_what_is_left_out(step)
        return sample

    def begin_joint(self, step: int) -> JointSample | None:
        """Many optimizers are about to take step number `step`, inside one backward; None if it is not due."""
        now = self._clock()
        return JointSample(*self._sampling.wants(step, now)) if self._sampling.due(step, now) else None

    def plan_sharded(self, whole: ShardedNorms) -> int:
        """How many steps on sharded parameters are to be measured again."""
        if self._sampling.every is not None:
            return self._sampling.every
        if self._wants_activations(self._clock()):
            self._samples_next = True
            return 1
        pause = (whole.cost * DISTURBANCE + ROW_COST) / self._sampling.rows.share
        return min(MOST_AHEAD, math.ceil(pause / whole.step_time))

    def release(self, inside_a_step: bool) -> None:
        """Let go of everything."""
        self.sampler.disarm()
        self.optimizers.release(inside_a_step=inside_a_step)

    def _tell_what_is_left_out(self, step: int) -> None:
        if self.sampler.note:
            self._queue.tell("compiled", self.sampler.note, step)

    def learn_layers(self) -> None:
        """Put the layers that have come in the table and in the run."""
        if self.optimizers.has_new_layers:
            self.optimizers.learn_layers()
            self._rows.know(self.optimizers.table)
            self._writer.set_layers(self.optimizers.table.layers)
            self.when_known()

    def _wants_activations(self, now: float) -> bool:
        return now >= self._sampling.activations.next_at and bool(self.optimizers.table.layers)

    def _set_up(self, watched: Watched, step: int) -> Probe | ShardedProbe:
        """The probe of one optimizer, once its layers are known; they are written to the run."""
        self.learn_layers()
        table, queue = self.optimizers.table, self._queue
        if table.left_out:
            text = f"{listed(table.left_out)}: on the meta device, so not measured"
            queue.tell("meta", text, step)
            say_once(text)
            table.left_out.clear()
        probe, is_whole = self.optimizers.make_probe(watched, inside_backward=backwards.active)
        if not is_whole:
            text = "parameters that are sharded over some of the processes only are not measured"
            queue.tell("shards", text, step)
        queue.expect(sum(slot.parameter.numel() for slot in table.slots))
        if probe.copies is not None:
            queue.share(probe.copies)
        return probe
