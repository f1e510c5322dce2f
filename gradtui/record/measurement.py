"""What is measured: the layers of what is trained, the probes on them, sampled activations, and which step is due."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gradtui.errors import say_once
from gradtui.format import listed
from gradtui.record.activations import ActivationSampler
from gradtui.record.backward import backwards
from gradtui.record.branches import Branches
from gradtui.record.budget import Sampling
from gradtui.record.columns import Columns
from gradtui.record.optimizer_log import OptimizerLog
from gradtui.record.optimizers import Optimizers, Watched
from gradtui.record.own_steps import OwnSteps
from gradtui.record.row_maker import RowMaker
from gradtui.record.row_queue import DISTURBANCE, ROW_COST, RowQueue
from gradtui.record.sharded import ShardedNorms, ShardedProbe
from gradtui.record.step_sample import Clock, JointSample, Probe, StepSample
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
        cpu: seconds that this thread has worked.

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
        clock: Clock,
        cpu: Clock,
    ) -> None:
        # what a sample costs is told in the time that our own thread worked: what others took of the machine
        # meanwhile, often a thousand times as much, is not ours. Work on a device is timed there.
        self.optimizers = Optimizers(cpu, columns)
        self.sampler = ActivationSampler(self.optimizers.table, cpu)
        self.optimizer_log = OptimizerLog(writer, queue, self.optimizers.table, clock)
        self._writer, self._sampling, self._rows, self._queue = writer, sampling, rows, queue
        self._clock, self._cpu = clock, cpu
        self.when_known: Callable[[], None] = lambda: None
        self._samples_next: OwnSteps | None = None  # in whose next step activations are to be sampled
        self._arms_anyway = False  # or in whatever step is next
        self._branches = Branches(self.optimizers.table, cpu, self._on_branches)

    def is_due(self, step: int, optimizer: Any) -> bool:
        """True if step number `step`, which begins, is due; may ask for a later one instead, with its activations."""
        watched, sampling = self.optimizers[optimizer], self._sampling
        own = watched.own
        if watched.whole is not None:
            return watched.whole.measuring
        if sampling.every is not None:
            is_due = sampling.due(own, 0.0)
            if self.sampler.armed and not is_due:
                self.sampler.disarm()  # somebody else was expected
            return is_due
        if self.sampler.armed:
            return True
        at_floor, now = own.steps >= own.floor, self._clock()
        if not at_floor and not (sampling.due(own, now) and self.optimizers.goes_first(own, "row_at", step)):
            return False
        if self._samples_next not in (None, own) or not self._wants_activations(own, step, now):
            return True
        # if it was expected at another time, whose step is next is not known
        self._arms_anyway = self._samples_next is own
        self._samples_next = own
        return at_floor or self._arms_anyway

    def end(self, own: OwnSteps, step: int) -> None:
        """Step number `step` has been taken: sample the activations of the next one, if that was asked for."""
        sampling, after = self._sampling, self._after(own)
        wanted = self._samples_next
        if wanted is not None and not wanted.is_there(step):
            wanted = self._samples_next = None
        if sampling.every is not None:
            arms = sampling.due(after, 0.0) and self._wants_activations(after, step, self._clock())
        else:
            arms = wanted is not None and (wanted is after or self._arms_anyway)
        if arms and not self.sampler.armed:
            self._samples_next = None
            debt = self.sampler.debt()
            if debt:
                sampling.activations.spent(debt * DISTURBANCE, self._clock())
            self.sampler.arm()
            if not self.sampler.armed:
                sampling.activations.next_at = math.inf  # there is nothing that could be sampled
            self._tell_what_is_left_out(step)

    def _after(self, own: OwnSteps) -> OwnSteps:
        """Who is expected to step after this one."""
        return own if own.follower is None else own.follower

    @property
    def next_at(self) -> float:
        """When a step is due, by the clock."""
        return self._sampling.rows.next_at

    def can_rest(self, step: int) -> bool:
        """True if nothing is to be done before the next step that is due; so many have been taken."""
        optimizers = self.optimizers
        return not (
            self._sampling.every is not None
            or self.sampler.armed
            or self._samples_next is not None
            or optimizers.has_new_layers
            or optimizers.has_shards
            or not all(source.can_rest for source in optimizers.sources)
            or any(own.steps >= own.floor and own.is_there(step) for own in optimizers.owns)
        )

    def read(self, step: int, optimizer: Any, wants: tuple[bool, bool] | None = None) -> StepSample | None:
        """Take what must be known before step number `step`; None if the device is too far behind.

        `wants` says whether the update is wanted too, and the neurons; by default that is asked of the sampling.
        """
        watched = self.optimizers[optimizer]
        own = watched.own
        if watched.has_changed():
            self.optimizers.follow_changes(watched)
        if watched.probe is None or self.optimizers.has_new_layers:
            watched.probe = self._set_up(watched, step)
        if watched.probe.busy:
            self._queue.tell("busy", "the device is far behind the host: some steps are not recorded", step)
            return None
        begin = self._cpu()
        self.optimizer_log.look(optimizer, step)
        update, neurons = wants or self._wants(own, step)
        timed = self._sampling.every is None
        sample = watched.probe.before(optimizer, begin, timed=timed, update=update, neurons=neurons)
        own.has_row()
        if self.sampler.armed:
            own.has_outputs(step)
            sample.put(self.sampler.disarm())
            self._sampling.activations.spent(self.sampler.cost * DISTURBANCE, self._clock())
            self._tell_what_is_left_out(step)
        return sample

    def begin_joint(self, own: OwnSteps, step: int) -> JointSample | None:
        """Many optimizers are about to take step number `step`, inside one backward; None if it is not due.

        `own` are the steps that many took at once.
        """
        at_floor = self._sampling.every is None and own.steps >= own.floor
        if not at_floor and not self._sampling.due(own, self._clock()):
            return None
        own.has_row()
        return JointSample(*self._wants(own, step))

    def plan_sharded(self, whole: ShardedNorms) -> int:
        """In how many steps on sharded parameters are to be measured again."""
        own = next(watched.own for watched in self.optimizers.all() if watched.whole is whole)
        if self._sampling.every is not None:
            return self._sampling.every
        if self._wants_activations(own, own.seen_at, self._clock()):
            self._samples_next = own
            return 1
        pause = (whole.cost * DISTURBANCE + ROW_COST) / self._sampling.rows.share
        to_floor = max(1, own.floor - own.steps)
        return min(MOST_AHEAD, math.ceil(pause / whole.step_time), to_floor)

    def _wants(self, own: OwnSteps, step: int) -> tuple[bool, bool]:
        return self._sampling.wants(own, self._clock(), lambda at: self.optimizers.goes_first(own, at, step))

    def release(self, inside_a_step: bool) -> None:
        """Let go of everything."""
        self.sampler.disarm()
        self._branches.remove()
        self.optimizers.release(inside_a_step=inside_a_step)

    def _tell_what_is_left_out(self, step: int) -> None:
        if self.sampler.note:
            self._queue.tell(self.sampler.note, self.sampler.note, step)

    def learn_layers(self) -> None:
        """Put the layers that have come in the table and in the run."""
        if self.optimizers.has_new_layers:
            self.optimizers.learn_layers()
            self._tell_layers()
            self._branches.begin()
            self.when_known()

    def _on_branches(self, cost: float, is_new: bool) -> None:
        self._sampling.rows.spent(cost, self._clock())
        if is_new:
            self._tell_layers()

    def _tell_layers(self) -> None:
        self._rows.know(self.optimizers.table)
        self._writer.set_layers(self.optimizers.table.layers)

    def _wants_activations(self, own: OwnSteps, step: int, now: float) -> bool:
        """True if the outputs are to be sampled in the next step of an optimizer that is measured."""
        next_at = self._sampling.activations.next_at
        if not self.optimizers.table.layers or next_at == math.inf:
            return False
        at_floor = own.steps >= own.outputs_floor
        return at_floor or (now >= next_at and self.optimizers.goes_first(own, "outputs_at", step))

    def _set_up(self, watched: Watched, step: int) -> Probe | ShardedProbe:
        """The probe of one optimizer, once its layers are known; they are written to the run."""
        self.learn_layers()
        # of all, as the others may not be measured for long
        is_new = [self.optimizers.note_layers(one) for one in self.optimizers.all()]
        if any(is_new):
            self._tell_layers()
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
