"""Records a training: hooks on its optimizers, one row of the run file a measured step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from gradtui.errors import one_line, say_on_stderr
from gradtui.record.activations import ActivationSampler
from gradtui.record.backward import backwards
from gradtui.record.budget import Sampling
from gradtui.record.columns import Columns
from gradtui.record.exit_hooks import how_it_ended, register, unregister
from gradtui.record.hooks import StepHooks
from gradtui.record.layers import LayerSource, is_anything_compiled
from gradtui.record.losses import Losses
from gradtui.record.manual_steps import ByHand
from gradtui.record.notices import skipped_step
from gradtui.record.optimizers import Optimizers, Watched
from gradtui.record.origin import GradientGuard, broken_layers, find_origin
from gradtui.record.row_maker import RowMaker
from gradtui.record.row_queue import DISTURBANCE, MOST_SKIPS_TOLD, ROW_COST, Outbox, Row, learning_rate
from gradtui.record.scaler import scalers
from gradtui.record.sharded import ShardedNorms, ShardedProbe, trains_shards
from gradtui.record.step_sample import JointSample, Probe, StepSample
from gradtui.runfile import Outcome, RunWriter
from gradtui.runfile.blocks import FloatArray, as_pictures

MOST_AHEAD = 1000  # steps to the next measured one of sharded parameters, so that the pace is looked at again
UNSEEN_STEPS = 2  # calls of backward without a step, where something is compiled, until the step is taken to be


class Recorder:
    """Records one training. Made by `watch`; also a context manager, which notes how the training ended.

    Whatever fails in here is told once, on stderr and in the run, and recording stops; the training does not notice.

    Attributes:
        path: the run file; None if the training is not recorded.
        step: the optimizers' steps seen so far.
    """

    def __init__(
        self,
        writer: RunWriter | None,
        sampling: Sampling,
        rows: RowMaker,
        columns: Columns | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        say: Callable[[str], None] = say_on_stderr,
    ) -> None:
        self.path: Path | None = writer.path if writer is not None else None
        self.step = 0
        self._writer = writer
        self._sampling = sampling
        self._rows = rows
        self._clock, self._say = clock, say
        self._optimizers = Optimizers(clock, columns)
        self._table = self._optimizers.table
        self._sampler = ActivationSampler(self._table, clock)
        self._guard = GradientGuard(self._table)
        self._by_hand: ByHand | None = None
        self._calls_before = backwards.calls
        self._row: Row | None = None
        self._measuring = False
        self._joint: JointSample | None = None  # of the steps inside one backward
        self._in_backward = False
        self._arm_next = False
        self._is_quiet = False  # until a time comes, a step has nothing to do but be counted
        self._quiet_until = 0.0
        self._skips = 0
        self._broke = False
        self._deaf = writer is None
        self._closed = False
        if writer is not None:  # without a run file nothing is measured or sent
            self._out = Outbox(writer, rows, sampling, clock)
            self._losses = Losses(self._out, self._optimizers)
            try:
                register(self)
                backwards.listen(self)
                backwards.follow(self)
                scalers.listen(self)
            except Exception as error:
                self._fail(error)

    def observe(self, optimizer: Any, *sources: LayerSource, hooks: bool = True) -> None:
        """Measure the steps of an optimizer from here on; `sources` tell the layers that are new with it.

        Without `hooks` the caller tells of each step by `before_step` and `after_step`. Not from within a step.
        """
        whole = ShardedNorms(optimizer, self._plan_sharded) if hooks and trains_shards(optimizer) else None
        if self._deaf:
            for source in sources:
                source.remove()
            return
        try:
            if self._is_quiet:
                self._wake()
            taps = StepHooks(optimizer, self.before_step, self.after_step) if hooks else None
            self._optimizers.add(optimizer, sources, taps, whole)
        except Exception as error:
            self._fail(error)

    def knows(self, parameter: torch.Tensor) -> bool:
        """True if the parameter is in a layer of the run."""
        return parameter in self._table

    def observes(self, optimizer: Any) -> bool:
        """True if the steps of this optimizer are measured."""
        return optimizer in self._optimizers

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(*how_it_ended(error))

    @property
    def stop_requested(self) -> bool:
        """True once a viewer has asked the training to stop."""
        return self._writer is not None and "stop" in self._writer.commands

    def log(self, **metrics: Any) -> None:
        """Record `loss`, `epoch` (which holds until the next one) and any other scalar metric.

        Values are numbers or tensors of one element; one that is on a device is fetched without waiting. Whether the
        loss belongs to the step before or to the one to come is told by the first call that has one: before the
        first step it is the latter, from then on. Without any, the loss is what `backward` is called on.
        """
        if self._deaf:
            return
        try:
            out, losses = self._out, self._losses
            loss = metrics.pop("loss", None)
            if metrics:
                epoch = metrics.pop("epoch", None)
                out.epoch = out.epoch if epoch is None else float(epoch)
            # the usual case: nothing is measured, and the last row with a loss has just been sent
            is_wanted = not (self._is_quiet and losses.are_logged and self._clock() < out.next_loss_at)
            if loss is not None and is_wanted and losses.log(loss, self.step, self._row):
                self._send_row()
            if metrics:
                for name, value in metrics.items():
                    number = out.number(name, value, self.step)
                    if number is not None:
                        out.scalar(self.step, name, number)
                if out.pending:
                    self._quiet_until = 0.0  # what is on a device has to be asked for
        except Exception as error:
            self._fail(error)

    def through_time(self, grad_norms: Mapping[str, FloatArray]) -> None:
        """Record the gradient through time of the step to come: recurrent state -> ‖∂C/∂state_t‖ [time steps]."""
        if not self._deaf and self._writer is not None:
            self._writer.through_time(self.step + 1, grad_norms)

    def pictures(self, name: str, layer: str, values: FloatArray) -> None:
        """Record small pictures [count, rows, columns] of one kind, e.g. the filters of a layer, at this step.

        Values of both signs are shown around 0, others from the least to the largest; what is not finite counts as 0.
        """
        if self._deaf or self._writer is None:
            return
        try:
            self._writer.pictures(as_pictures(self.step, name, layer, values))
        except Exception as error:
            self._fail(error)

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Measure the steps of another optimizer instead, e.g. of one that pretrains a layer of the model.

        Not from within a step. Steps go on being counted; gradients that are `None` count as not measured.
        """
        if self._deaf:
            return
        try:
            self._send_row()
            self._optimizers.clear()
        except Exception as error:
            self._fail(error)
        self.observe(optimizer)

    def event(self, kind: str, text: str) -> None:
        """Note in the run that something happened, in words."""
        if not self._deaf and self._writer is not None:
            self._writer.event(kind, text, self.step)

    def close(self, outcome: Outcome = "finished", detail: str = "") -> None:
        """Write what is left and how the training ended, and take the hooks off. Closing twice does nothing.

        Waits for the device if rows are still on their way, and at most five seconds for the disk.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if not self._deaf:
                if self._by_hand is not None:
                    self._by_hand.backward_begins()  # the last step has been taken
                self._send_row()
                self._out.send_last(self.step)
                self._out.poll(all_of_them=True)
        except Exception as error:
            self._fail(error)
        self._take_off()
        unregister(self)
        if self._writer is not None:
            try:
                self._writer.close(outcome, detail)
            except Exception as error:
                self._say(f"the run was not closed ({one_line(error)})")
        if self._rows.watchdog is not None:
            self._rows.watchdog.look()
            self._rows.watchdog.tell()

    def forget(self) -> None:
        """Stop recording without a word, in a forked child of the training; the parent goes on."""
        self._deaf = self._closed = True
        for hooks in self._optimizers.hooks:
            hooks.silence()

    # -- the optimizer's step ---------------------------------------------------------------------------------

    def before_step(self, optimizer: Any, arguments: Any = (), keywords: Any = None) -> Any:
        """A step begins; may give back the step's arguments with a closure of our own around theirs."""
        try:
            if backwards.active:
                self._join(optimizer)
                return None
            if self._row is not None:
                self._send_row()
            if self._guard.alters is None:
                self._ask_guard()
            if self._out.pending:
                self._out.poll()
            due = self._is_due(optimizer)
            if len(arguments) > 1 or keywords:
                return self._wrap_closure(optimizer, arguments, keywords, due)
            if due:
                self._measure(optimizer)
        except Exception as error:
            self._fail(error, inside_a_step=True)
        return None

    def _is_due(self, optimizer: Any) -> bool:
        """True if the step that begins is to be measured; may ask for the next one instead, with its activations."""
        if self._optimizers.has_shards:
            whole = self._optimizers[optimizer].whole
            if whole is not None:
                return whole.measuring
        every = self._sampling.every
        if every is not None:
            return self.step % every == 0
        if self._sampler.armed:
            return True
        now = self._clock()
        if now < self._sampling.rows.next_at:
            return False
        self._arm_next = now >= self._sampling.activations.next_at and bool(self._table.layers)
        return not self._arm_next

    def after_step(self, optimizer: Any) -> None:
        """The step has been taken."""
        # small nets take 300 µs a step and leave cold caches, where each object that is looked at costs 100 ns
        if self._is_quiet:
            self.step += 1
            if self._clock() >= self._quiet_until:
                self._wake()
            return
        news = False
        try:
            if backwards.active:
                if self._joint is not None:
                    self._joint.after()
                return
            self.step += 1
            if self._measuring:
                self._measuring = False
                row = self._row
                assert row is not None and row.sample is not None
                row.sample.after()
                row.seconds = self._out.seconds()
                if self._losses.complete(row, optimizer):
                    self._send_row()
                news = self._rows.watchdog is not None and bool(self._rows.watchdog.news)
            else:
                self._losses.keep(self.step, optimizer)
            every = self._sampling.every
            if self._arm_next or (every is not None and self.step % every == 0):
                self._arm()
            if every is None and self._row is None and not self._sampler.armed and self._guard.alters is not None:
                self._be_quiet()
        except Exception as error:
            self._fail(error, inside_a_step=True)
        if news and self._rows.watchdog is not None:
            self._rows.watchdog.tell()

    def _be_quiet(self) -> None:
        """Let steps pass until one is to be measured, if nothing waits for the next one."""
        out, optimizers = self._out, self._optimizers
        if out.pending or optimizers.has_shards or optimizers.has_new_layers or self._by_hand is not None:
            return
        self._quiet_until = self._sampling.rows.next_at
        if not self._losses.come_after_steps:
            self._quiet_until = min(self._quiet_until, out.next_loss_at)
        if self._clock() < self._quiet_until:
            self._is_quiet = True
            for hooks in optimizers.hooks:
                hooks.rest()

    def _wake(self) -> None:
        """Look at each step again, from the next one on."""
        try:
            self._is_quiet = False
            self._losses.forget()
            for hooks in self._optimizers.hooks:
                hooks.wake()
        except Exception as error:
            self._fail(error)

    def _measure(self, optimizer: Any) -> None:
        sample = self._read(optimizer)
        if sample is not None:
            self._row = Row(self.step + 1, 0.0, learning_rate(optimizer), sample)
            self._measuring = True

    def _wrap_closure(self, optimizer: Any, arguments: Any, keywords: Any, due: bool) -> Any:
        """Look after the first evaluation of the step's closure: it made the gradients, and its loss is the step's."""
        closure = (keywords or {}).get("closure", arguments[1] if len(arguments) > 1 else None)
        if not callable(closure):
            if due:
                self._measure(optimizer)
            return None
        first = [True]

        def evaluate(*positional: Any, **named: Any) -> Any:
            result = closure(*positional, **named)
            if first and not self._deaf:
                first.clear()
                try:
                    if due:
                        self._measure(optimizer)
                    self._losses.evaluated(self._row)
                except Exception as error:
                    self._fail(error, inside_a_step=True)
            return result

        if "closure" in (keywords or {}):
            return arguments, {**keywords, "closure": evaluate}
        return (arguments[0], evaluate, *arguments[2:]), keywords or {}

    def _read(self, optimizer: Any, wants: tuple[bool, bool] | None = None) -> StepSample | None:
        """Take what must be known before the step; None if the device is too far behind.

        `wants` says whether the update is wanted too, and the neurons; by default that is asked of the sampling.
        """
        watched = self._optimizers[optimizer]
        if watched.probe is None or self._optimizers.has_new_layers:
            watched.probe = self._set_up(watched)
        if watched.probe.busy:
            self._tell("busy", "the device is far behind the host: some steps are not recorded")
            return None
        now = self._clock()
        update, neurons = wants or self._sampling.wants(self.step + 1, now)
        timed = self._sampling.every is None
        sample = watched.probe.before(optimizer, now, timed=timed, update=update, neurons=neurons)
        if self._sampler.armed:
            sample.put(self._sampler.disarm())
            self._sampling.activations.spent(self._sampler.cost * DISTURBANCE, self._clock())
        return sample

    def _plan_sharded(self, whole: ShardedNorms) -> int:
        """How many steps on sharded parameters are to be measured again; 0 if never."""
        if self._deaf or self._closed:
            return 0
        if self._sampling.every is not None:
            return self._sampling.every
        if self._clock() >= self._sampling.activations.next_at and self._table.layers:
            self._arm_next = True
            return 1
        pause = (whole.cost * DISTURBANCE + ROW_COST) / self._sampling.rows.share
        return min(MOST_AHEAD, math.ceil(pause / whole.step_time))

    def _set_up(self, watched: Watched) -> Probe | ShardedProbe:
        """The probe of one optimizer, once its layers are known; they are written to the run."""
        writer, out = self._writer, self._out
        if writer is None:
            raise RuntimeError("there is no run file")
        self._optimizers.learn_layers()
        self._rows.know(self._table)
        writer.set_layers(self._table.layers)
        probe, is_whole = self._optimizers.make_probe(watched, inside_backward=backwards.active)
        if not is_whole:
            self._tell("shards", "parameters that are sharded over some of the processes only are not measured")
        out.expect(sum(slot.parameter.numel() for slot in self._table.slots))
        if probe.copies is not None:
            out.share(probe.copies)
        return probe

    def _arm(self) -> None:
        """Sample the activations of the next step, which will be measured, if the budget allows."""
        self._arm_next = False
        if self._clock() >= self._sampling.activations.next_at and not self._sampler.armed:
            self._sampler.arm()
            if not self._sampler.armed:
                self._sampling.activations.next_at = math.inf  # there is nothing that could be sampled

    def backward_begins(self, loss: torch.Tensor | None) -> None:
        """A step that nobody tells of has been taken by now."""
        try:
            if self._by_hand is not None:
                self._by_hand.backward_begins()
            elif self.step == 0 and backwards.calls - self._calls_before >= UNSEEN_STEPS and is_anything_compiled():
                backwards.drop()
                self.go_by_backward(self._optimizers.groups(), steps=backwards.calls - self._calls_before)
        except Exception as error:
            self._fail(error)

    def backward_ended(self) -> None:
        """Gradients are there, which something may change before the step."""
        try:
            if self._by_hand is not None:
                self._by_hand.backward_ended()
            elif not self._in_backward and not self._deaf:
                self._guard.after_backward(self.step + 1)
        except Exception as error:
            self._fail(error)

    def go_by_backward(self, groups: list[dict[str, Any]], *sources: LayerSource, steps: int) -> None:
        """Measure at each end of `backward`: there is no optimizer, or its step is compiled, hooks and all.

        `groups` are what is trained, as an optimizer has it; `steps` have been taken so far.
        """
        self._optimizers.clear(keep_hooks=True)  # they are part of a compiled step, which would be compiled anew
        self._by_hand = ByHand(self, groups)
        self.observe(self._by_hand, *sources, hooks=False)
        self.step = steps

    def _ask_guard(self) -> None:
        self._guard.before_step()
        if self._guard.alters is False and self._by_hand is None:
            backwards.unfollow(self)

    # -- steps inside a backward ------------------------------------------------------------------------------

    def _join(self, optimizer: Any) -> None:
        """An optimizer steps as soon as its gradient is made: all steps of one backward are one row."""
        if not self._in_backward:
            self._in_backward = True
            backwards.at_end(self._backward_ended)
            self._send_row()
            every = self._sampling.every
            due = self._clock() >= self._sampling.rows.next_at if every is None else self.step % every == 0
            self._joint = JointSample(*self._sampling.wants(self.step + 1, self._clock())) if due else None
        if self._joint is not None:
            sample = self._read(optimizer, self._joint.wants)
            if sample is not None:
                self._joint.samples.append(sample)

    def _backward_ended(self) -> None:
        """It is over, and so is the row of the steps inside it."""
        if not self._in_backward:
            return
        self._in_backward = False
        self.step += 1
        joint, self._joint = self._joint, None
        try:
            if joint is not None and joint.samples:
                self._row = Row(self.step, self._out.seconds(), None, joint)
                self._losses.evaluated(self._row)
        except Exception as error:
            self._fail(error)

    def _send_row(self) -> None:
        row, self._row = self._row, None
        if row is not None:
            self._out.send(row)

    # -- trouble ----------------------------------------------------------------------------------------------

    def loss_broke(self, loss: torch.Tensor) -> None:
        """The loss is NaN or infinite: say once where that began, in which step and layer."""
        if self._broke or self._deaf or self._writer is None:
            return
        self._broke = True
        try:
            origin = find_origin(loss, self._table, self._guard, self.step)
            self._writer.origin(origin)
            if self._rows.watchdog is not None:
                self._rows.watchdog.origins.append(origin)
        except Exception as error:
            self._tell("origin", f"the loss is NaN or infinite; where that began is not known ({one_line(error)})")

    def step_skipped(self, optimizer: Any) -> None:
        """A loss scaler left a step out because scaled gradients overflowed; they are still there."""
        self.step += 1
        backwards.take()
        self.step_had_no_effect(optimizer)

    def step_had_no_effect(self, optimizer: Any) -> None:
        """The step has been called for, but the optimizer itself saw that the gradients overflowed."""
        if self._deaf:
            return
        try:
            self._skips += 1
            if self._skips <= MOST_SKIPS_TOLD:
                mine = self._optimizers[optimizer].parameters()
                layers = broken_layers(self._table, lambda p: p.grad if id(p) in mine else None)
                self.event("skipped", skipped_step([self._table.layers[layer].name for layer in layers]))
        except Exception as error:
            self._fail(error)

    def _tell(self, kind: str, text: str) -> None:
        self._out.tell(kind, text, self.step)

    def _fail(self, error: Exception, inside_a_step: bool = False) -> None:
        """Tell it once and stop recording; the training goes on."""
        if self._deaf:
            return
        self._deaf = True
        self._row = None
        self._measuring = False
        text = f"recording stopped at step {self.step}: {one_line(error)}"
        self._say(f"{text}; training goes on unrecorded")
        if self._writer is not None:
            self._writer.event("recorder", text, self.step)
        self._take_off(inside_a_step)

    def _take_off(self, inside_a_step: bool = False) -> None:
        backwards.ignore(self)
        backwards.unfollow(self)
        scalers.ignore(self)
        self._sampler.disarm()
        self._optimizers.release(inside_a_step=inside_a_step)
        self._by_hand = None
        self._row = self._joint = None
        self._in_backward = False
        if self._writer is not None:
            self._out.pending.clear()
