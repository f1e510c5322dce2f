"""One recording: the run file, the steps that go into it, and what happens if something fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from gradtui.errors import one_line, say_on_stderr
from gradtui.record.backward import backwards
from gradtui.record.backward_steps import BackwardSteps, CompiledStepDetector
from gradtui.record.budget import Sampling, own_time
from gradtui.record.columns import Columns
from gradtui.record.compiled_graphs import compiled_graphs
from gradtui.record.exit_hooks import register, unregister
from gradtui.record.layers import LayerSource
from gradtui.record.losses import Losses
from gradtui.record.measurement import Measurement
from gradtui.record.optimizer_steps import OptimizerSteps
from gradtui.record.replicas import Replicas, replicas_differ, trains_replicas
from gradtui.record.row_maker import RowMaker
from gradtui.record.row_queue import RowQueue
from gradtui.record.sharded import ShardedNorms, trains_shards
from gradtui.record.step_machine import QUIET, StepMachine
from gradtui.record.step_source import StepSink, StepSource
from gradtui.record.trouble import Trouble
from gradtui.runfile import Outcome, RunWriter
from gradtui.runfile.blocks import FloatArray, as_pictures


class Recording:
    """Records one training into a run file, behind a `Recorder`; with None for a writer it records nothing.

    Whatever fails in here is told once, on stderr and in the run, and recording stops; the training does not notice.

    Attributes:
        path: the run file; None if the training is not recorded.
    """

    def __init__(
        self,
        writer: RunWriter | None,
        sampling: Sampling,
        rows: RowMaker | None = None,
        columns: Columns | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = own_time,
        say: Callable[[str], None] = say_on_stderr,
    ) -> None:
        self.path: Path | None = writer.path if writer is not None else None
        self._writer, self._rows = writer, rows
        self._clock, self._say = clock, say
        self._at_close: list[Callable[[], object]] = []
        self._disabled = writer is None
        self._closed = False
        if writer is not None and rows is not None:  # without a run file nothing is measured or sent
            self._queue = RowQueue(writer, rows, sampling, clock, cpu)
            self._measurement = Measurement(writer, sampling, rows, self._queue, columns, clock, cpu)
            losses = Losses(self._queue, self._measurement.optimizers)
            self._machine = StepMachine(self._measurement, self._queue, losses, rows, clock, self._fail)
            self._listeners: list[Trouble | CompiledStepDetector] = []
            writer.schedules = self._machine.schedules
            try:
                compiled_graphs.begin()
                self._at_close.append(compiled_graphs.end)
                register(self)
                self._listeners.append(Trouble(writer, rows, self._measurement, self._machine))
                self._listeners.append(CompiledStepDetector(lambda: self.step > 0, self._go_by_backward))
            except Exception as error:
                self._fail(error)

    @property
    def step(self) -> int:
        """Steps seen so far."""
        return self._machine.step if self._writer is not None else 0

    @property
    def stop_requested(self) -> bool:
        """True once a viewer has asked the training to stop."""
        return self._writer is not None and "stop" in self._writer.commands

    @property
    def broken_layer(self) -> str | None:
        """The layer after which the loss became NaN or infinite; None if it has not, or not in a layer."""
        origins = [one.origin for one in self._listeners if isinstance(one, Trouble)] if self._writer else []
        if not origins or origins[0] is None or origins[0].layer is None:
            return None
        return self._measurement.optimizers.table.layers[origins[0].layer].name

    # -- what is recorded -------------------------------------------------------------------------------------

    def observe(self, optimizer: Any, *layers: LayerSource) -> None:
        """Measure the steps of an optimizer from here on; `layers` tell the layers that are new with it.

        Not from within a step.
        """
        whole = ShardedNorms(optimizer, self._plan_sharded) if trains_shards(optimizer) else None
        if trains_replicas(optimizer):
            self._at_close.append(Replicas(optimizer, self._replicas_differ).remove)
        if self._disabled:
            for source in layers:
                source.remove()
            return
        try:
            self._add(optimizer, OptimizerSteps(optimizer, self._machine, self._machine.inside), layers, whole)
        except Exception as error:
            self._fail(error)

    @property
    def sink(self) -> StepSink:
        """Who is to be told of steps; only with a run file."""
        return self._machine

    def observe_stepper(self, stepper: Any, *layers: LayerSource, steps: int) -> None:
        """Measure the steps of a source that stands in for the optimizer, in place of all others so far.

        `steps` have been taken so far.
        """
        if self._disabled:
            return
        try:
            # the hooks stay: without them a compiled step would be compiled again
            self._measurement.optimizers.clear(keep_hooks=True)
            self._add(stepper, stepper, layers, None)
            self._machine.begin_at(stepper, steps)
        except Exception as error:
            self._fail(error)

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Measure the steps of another optimizer instead, e.g. of one that pretrains a layer of the model.

        Not from within a step. Steps go on being counted; gradients that are `None` count as not measured.
        """
        if self._disabled:
            return
        try:
            self._machine.send_row()
            self._measurement.optimizers.clear()
        except Exception as error:
            self._fail(error)
        self.observe(optimizer)

    def knows(self, parameter: torch.Tensor) -> bool:
        """True if the parameter is in a layer of the run."""
        return not self._disabled and parameter in self._measurement.optimizers.table

    @property
    def former_layers(self) -> int:
        """How many layers there are, if nobody trains any of them any more; 0 if somebody does."""
        table = None if self._disabled else self._measurement.optimizers.table
        return 0 if table is None or table.slots else len(table.layers)

    def observes(self, optimizer: Any) -> bool:
        """True if the steps of this optimizer are measured."""
        return not self._disabled and optimizer in self._measurement.optimizers

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Record metrics by name, as `Recorder.log` does."""
        if self._disabled:
            return
        try:
            loss, machine = metrics.get("loss"), self._machine
            if loss is None or len(metrics) > 1:
                self._log_others(metrics)
            # the usual case: steps are only counted, and the last row with a loss has just been sent
            is_quiet = machine.state is QUIET and machine.losses.are_logged
            if loss is not None and not (is_quiet and self._clock() < self._queue.next_loss_at):
                machine.log_loss(loss)
        except Exception as error:
            self._fail(error)

    def through_time(self, grad_norms: Mapping[str, FloatArray]) -> None:
        """Record the gradient through time of the step to come: recurrent state -> ‖∂C/∂state_t‖ [time steps]."""
        if not self._disabled and self._writer is not None:
            self._writer.through_time(self.step + 1, grad_norms)

    def pictures(self, name: str, layer: str, values: FloatArray) -> None:
        """Record small pictures [count, rows, columns] of one kind, e.g. the filters of a layer, at this step.

        Values of both signs are shown around 0, others from the least to the largest; what is not finite counts as 0.
        """
        if self._disabled or self._writer is None:
            return
        try:
            self._writer.pictures(as_pictures(self.step, name, layer, values))
        except Exception as error:
            self._fail(error)

    def event(self, kind: str, text: str) -> None:
        """Note in the run that something happened, in words."""
        if not self._disabled and self._writer is not None:
            self._writer.event(kind, text, self.step)

    def fail(self, error: Exception) -> None:
        """Tell once that something could not be recorded, and record nothing more; the training goes on."""
        self._fail(error)

    # -- its end ----------------------------------------------------------------------------------------------

    def at_close(self, undo: Callable[[], object]) -> None:
        """Call it when the recording is closed."""
        self._at_close.append(undo)

    def close(self, outcome: Outcome = "finished", detail: str = "") -> None:
        """Write what is left and how the training ended, and take everything off. Closing twice does nothing.

        Waits for the device if rows are still on their way, and at most five seconds for the disk.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if not self._disabled:
                for source in self._measurement.optimizers.sources:
                    source.finish()
                self._machine.send_row()
                self._queue.send_last(self.step)
                self._queue.poll(all_of_them=True)
                self._measurement.optimizer_log.finish()
        except Exception as error:
            self._fail(error)
        self._take_off()
        unregister(self)
        while self._at_close:
            self._at_close.pop()()
        if self._writer is not None:
            try:
                self._writer.close(outcome, detail)
            except Exception as error:
                self._say(f"the run was not closed ({one_line(error)})")
        self._disabled = True
        if self._rows is not None:
            self._rows.diagnosis.tell()

    def disable(self) -> None:
        """Record nothing any more, without a word, in a forked child of the training; the parent goes on."""
        self._disabled = self._closed = True
        if self._writer is not None:
            self._machine.close()
            for listener in self._listeners:
                listener.remove()
            for source in self._measurement.optimizers.sources:
                source.remove(inside_a_step=True)

    # -- inside -----------------------------------------------------------------------------------------------

    def _add(
        self, stepper: Any, source: StepSource, layers: tuple[LayerSource, ...], whole: ShardedNorms | None
    ) -> None:
        self._machine.wake()
        number = self._measurement.optimizer_log.add(stepper)
        self._measurement.optimizers.add(stepper, number, layers, source, whole)

    def _go_by_backward(self, steps: int) -> None:
        """The optimizer's step is compiled, so that its hooks tell nothing."""
        backwards.drop()
        self.observe_stepper(BackwardSteps(self._measurement.optimizers.groups(), self._machine), steps=steps)

    def _plan_sharded(self, whole: ShardedNorms) -> int:
        """How many steps on sharded parameters are to be measured again; 0 if never."""
        return 0 if self._disabled or self._closed else self._measurement.plan_sharded(whole)

    def _log_others(self, metrics: Mapping[str, Any]) -> None:
        """Record the epoch, which rows that are sent from here on have, and each metric that is no loss."""
        queue, step = self._queue, self.step
        epoch = metrics.get("epoch")
        queue.epoch = queue.epoch if epoch is None else float(epoch)
        for name, value in metrics.items():
            number = None if name in ("loss", "epoch") else queue.number(name, value, step)
            if number is not None:
                queue.scalar(step, name, number)
        if queue.pending:
            self._machine.quiet_until = 0.0  # what is on a device has to be asked for

    def _replicas_differ(self, equal_at: int, step: int, ranks: list[int], parameter: torch.Tensor) -> None:
        """Parameters that were equal in all processes are not any more: this is the training's trouble."""
        if self._writer is None or self._disabled:
            return
        text = replicas_differ(equal_at, step, ranks, self._measurement.optimizers.table.layer_of(parameter))
        self._say(text)
        self._writer.event("replicas", text, self.step)

    def _fail(self, error: Exception, inside_a_step: bool = False) -> None:
        """Tell it once and stop recording; the training goes on."""
        if self._disabled:
            return
        self._disabled = True
        text = f"recording stopped at step {self.step}: {one_line(error)}"
        self._say(f"{text}; training goes on unrecorded")
        if self._writer is not None:
            self._writer.event("recorder", text, self.step)
        self._take_off(inside_a_step)

    def _take_off(self, inside_a_step: bool = False) -> None:
        """Take off all hooks; what is within a step now comes off after it, or when the recording is closed."""
        if self._writer is None:
            return
        self._machine.close()
        for listener in self._listeners:
            listener.remove()
        self._measurement.release(inside_a_step)
        self._queue.pending.clear()
