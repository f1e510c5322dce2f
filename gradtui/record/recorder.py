"""Records a training: hooks on a model and its optimizer, one row of the run file a measured step."""

from __future__ import annotations

import math
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from gradtui.record.device import Letter, Mail, mail_for
from gradtui.record.header import make_header, script_name
from gradtui.record.hooks import StepHooks
from gradtui.record.layers import ForwardTrace, LayerTable
from gradtui.record.lifetime import how_it_ended, let_go, look_after
from gradtui.record.measures import MEASURES
from gradtui.record.reading import Meter, Reading, fold_readings
from gradtui.record.rows import RowMaker, in_words
from gradtui.record.schedule import Sampling
from gradtui.runfile import Outcome, RunWriter
from gradtui.runfile.blocks import DoubleArray, FloatArray, as_pictures
from gradtui.runfile.writer import say_on_stderr
from gradtui.runfolder import new_run_path, runs_folder

NEURONS_EVERY = 0.25  # s between samples of the neurons
LOSS_EVERY = 0.05  # s between rows that hold a loss only
DISTURBANCE = 1.5  # what measuring costs in all, with caches that are colder afterwards, over its own time
MOST_UNFOLDED = 4000  # rows that may wait for the writer's thread to fold them, up to 20 kB each
ROW_COST = 25e-6  # s that a row costs later, in the writer's thread


@dataclass(slots=True)
class _Row:
    step: int
    seconds: float
    learning_rate: float | None
    reading: Reading | None
    epoch: float | None = None
    loss: float | torch.Tensor | None = None


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    every: int | None = None,
    budget: float = 0.01,
    name: str | None = None,
    folder: str | Path | None = None,
    path: Path | None = None,
    recipe: dict[str, Any] | None = None,
    command: list[str] | None = None,
    total_steps: int | None = None,
    total_epochs: float | None = None,
    update_every: int | None = None,
    log_file: str | None = None,
    takes_commands: Sequence[str] = (),
) -> Recorder:
    """Record the training of `model` by `optimizer` from here on.

    A run file that cannot be made is told on stderr, and the training goes on unrecorded (`Recorder.path` is None).
    In distributed training only the process of rank 0 records.

    Args:
        model: the model; its layers are the modules that own parameters directly.
        optimizer: the optimizer whose steps are measured.
        every: measure each so many steps; None measures as often as `budget` allows.
        budget: the share of the time that measuring may cost: all of it if `every` is None, else ‖θ‖ and the
            update ratio, which cost four to five times as much as the gradient norms.
        name: what the run is called; the script's name by default.
        folder: where runs live; by default `$GRADTUI_DIR` or the user data folder.
        path: the run file itself, instead of a new one in `folder`.
        recipe: everything that defines a built-in training, for the run's header.
        command: the command line that is shown; the process's own by default.
        total_steps: how many steps the training will take, if known.
        total_epochs: how many epochs it will take, if known.
        update_every: take ‖θ‖ and the update ratio each so many steps, instead of by budget.
        log_file: where the training's own output goes, if it is a file.
        takes_commands: what a viewer may ask, e.g. `["stop"]`, if the training looks at `stop_requested`.

    Raises:
        ValueError: `every`, `update_every` or `budget` is out of range.
    """
    sampling = Sampling(every, budget, update_every)
    rows = RowMaker()
    writer = None
    try:
        if _is_first_rank():
            name = name or script_name(sys.argv)
            header = make_header(
                name,
                str(sampling),
                command=command,
                recipe=recipe,
                total_steps=total_steps,
                total_epochs=total_epochs,
                takes_commands=takes_commands,
                log_file=log_file,
            )
            where = Path(path) if path is not None else new_run_path(name, runs_folder(folder))
            writer = RunWriter(where, header, MEASURES, prepare=rows.prepare, on_rows=rows.look)
    except Exception as error:
        say_on_stderr(f"no run file ({in_words(error)}); training goes on unrecorded")
    return Recorder(model, optimizer, writer, sampling, rows)


class Recorder:
    """Records one training. Made by `watch`; also a context manager, which notes how the training ended.

    Whatever fails in here is told once, on stderr and in the run, and recording stops; the training does not notice.

    Attributes:
        path: the run file; None if the training is not recorded.
        step: the optimizer's steps seen so far.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        writer: RunWriter | None,
        sampling: Sampling,
        rows: RowMaker,
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
        self._begin = clock()
        self._model = weakref.ref(model)
        self._meter: Meter | None = None
        self._mails: dict[torch.device, Mail] = {}
        self._letters: deque[tuple[Letter, Callable[[Any], None]]] = deque()
        self._epoch: float | None = None
        self._loss: float | torch.Tensor | None = None
        self._loss_comes_first: bool | None = None
        self._row: _Row | None = None
        self._measuring = False
        self._next_loss_at = self._last_neurons_at = -math.inf
        self._last_row_step = 0
        self._written = 0
        self._told: set[str] = set()
        self._deaf = writer is None
        self._closed = False
        self._hooks: StepHooks | None = None
        self._trace: ForwardTrace | None = None
        if writer is not None:
            try:
                self._trace = ForwardTrace(model)
                self._hooks = StepHooks(optimizer, self._before, self._after)
                look_after(self, optimizer)
            except Exception as error:
                self._fail(error)

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
        first step it is the latter, from then on.
        """
        if self._deaf:
            return
        try:
            loss = metrics.pop("loss", None)
            if metrics:
                epoch = metrics.pop("epoch", None)
                self._epoch = self._epoch if epoch is None else float(epoch)
            if loss is not None and not self._is_superfluous():
                self._take_loss(loss)
            if metrics:
                for name, value in metrics.items():
                    self._take_metric(name, value)
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
        """Measure the steps of another optimizer from here on, e.g. of one that pretrains a layer of the model.

        Not from within a step. Steps go on being counted; gradients that are `None` count as not measured.
        """
        if self._deaf or self._hooks is None:
            return
        try:
            if self._row is not None:
                self._emit(self._row)
            self._hooks.remove()
            self._hooks = StepHooks(optimizer, self._before, self._after)
        except Exception as error:
            self._fail(error)

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
                if self._row is not None:
                    self._emit(self._row)
                self._read_letters(all_of_them=True)
        except Exception as error:
            self._fail(error)
        self._take_off()
        let_go(self)
        if self._writer is not None:
            try:
                self._writer.close(outcome, detail)
            except Exception as error:
                self._say(f"the run was not closed ({in_words(error)})")

    def forget(self) -> None:
        """Stop recording without a word, in a forked child of the training; the parent goes on."""
        self._deaf = self._closed = True
        if self._hooks is not None:
            self._hooks.silence()

    # -- the optimizer's step ---------------------------------------------------------------------------------

    def _before(self, optimizer: Any) -> None:
        try:
            if self._row is not None:
                self._emit(self._row)
            if self._letters:
                self._read_letters()
            every = self._sampling.every
            if every is None:
                if self._clock() >= self._sampling.rows.next_at:
                    self._measure(optimizer)
            elif self.step % every == 0:
                self._measure(optimizer)
        except Exception as error:
            self._fail(error, inside_a_step=True)

    def _measure(self, optimizer: Any) -> None:
        if self._meter is None:
            self._meter = self._set_up()
        if self._meter.busy:
            self._tell("busy", "the device is far behind the host: some steps are not recorded")
            return
        step, now = self.step + 1, self._clock()
        neurons = now - self._last_neurons_at >= NEURONS_EVERY
        if neurons:
            self._last_neurons_at = now
        update = self._sampling.update_due(step, now)
        timed = self._sampling.every is None
        reading = self._meter.before(optimizer, now, timed=timed, update=update, neurons=neurons)
        self._row = _Row(step, 0.0, _learning_rate(optimizer), reading)
        self._measuring = True

    def _after(self, optimizer: Any) -> None:
        self.step += 1
        try:
            if self._measuring:
                self._measuring = False
                row = self._row
                assert row is not None and row.reading is not None
                row.reading.after()
                row.seconds = self._clock() - self._begin
                if self._loss_comes_first:
                    row.loss, self._loss = self._loss, None
                    self._emit(row)
            elif self._loss is not None:
                loss, self._loss = self._loss, None
                self._keep_loss(loss, optimizer)
        except Exception as error:
            self._fail(error, inside_a_step=True)

    def _set_up(self) -> Meter:
        model, trace, writer = self._model(), self._trace, self._writer
        if model is None or trace is None or writer is None:
            raise RuntimeError("the model was freed before the first step")
        table = LayerTable(model, trace)
        trace.remove()
        self._trace = None
        self._rows.know(table)
        writer.set_layers(table.layers)
        return Meter(table, self._clock)

    # -- losses and metrics -----------------------------------------------------------------------------------

    def _is_superfluous(self) -> bool:
        """True for the loss of an unmeasured step soon after another row: the usual case under a budget."""
        return self._row is None and self._loss_comes_first is False and self._clock() < self._next_loss_at

    def _take_loss(self, value: Any) -> None:
        if self._loss_comes_first is None:
            self._loss_comes_first = self.step == 0
        if self._loss_comes_first:
            self._loss = self._number("loss", value)
        elif self._row is not None:
            self._row.loss = self._number("loss", value)
            self._emit(self._row)
        else:
            self._keep_loss(value, None)

    def _keep_loss(self, value: Any, optimizer: Any) -> None:
        """A loss of a step that was not measured is worth a row too, if the last one is a while ago."""
        now = self._clock()
        if now >= self._next_loss_at and self.step > self._last_row_step:
            rate = None if optimizer is None else _learning_rate(optimizer)
            self._emit(_Row(self.step, now - self._begin, rate, None, loss=self._number("loss", value)))

    def _take_metric(self, name: str, value: Any) -> None:
        writer, step, epoch = self._writer, self.step, self._epoch
        number = self._number(name, value)
        if writer is None or number is None:
            return
        if isinstance(number, torch.Tensor):
            letter = self._mail(number.device).send([number])
            self._letters.append((letter, lambda values: writer.scalar(step, epoch, name, float(values[0]))))
        else:
            writer.scalar(step, epoch, name, number)

    def _number(self, name: str, value: Any) -> float | torch.Tensor | None:
        """A float; or the tensor itself if it is on a device, where asking would wait."""
        try:
            if isinstance(value, torch.Tensor):
                if value.is_cpu:
                    return float(value.item())
                if value.numel() != 1:
                    raise ValueError(f"it has {value.numel()} elements")
                return value.detach()
            return float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            self._tell(f"metric {name}", f"{name!r} is not recorded: it is no number ({error})")
            return None

    # -- rows on their way to the file ------------------------------------------------------------------------

    def _emit(self, row: _Row) -> None:
        """Send a row to the writer, through the device's mail if some of its numbers are on a device."""
        self._row = None
        row.epoch = self._epoch
        self._next_loss_at, self._last_row_step = self._begin + row.seconds + LOSS_EVERY, row.step
        reading, loss = row.reading, row.loss
        if (reading is None or reading.at_hand) and not isinstance(loss, torch.Tensor):
            self._write(row, loss)
            return
        begin = self._clock()
        parts = reading.parts() if reading is not None else ()
        if isinstance(loss, torch.Tensor):
            parts = [*parts, loss.reshape(1)]
        letter = self._mail(parts[0].device).send(parts)
        self._letters.append((letter, lambda values: self._deliver(row, values)))
        if reading is not None:
            # what it costs on the device is known when it arrives: until then no other is due
            reading.cost += self._clock() - begin
            self._sampling.rows.next_at = math.inf
            if reading.update_cost:
                self._sampling.updates.next_at = math.inf

    def _deliver(self, row: _Row, values: DoubleArray) -> None:
        loss = row.loss
        if isinstance(loss, torch.Tensor):
            loss, values = float(values[-1]), values[:-1]
        if row.reading is not None:
            row.reading.arrived(values)
        self._write(row, loss)

    def _write(self, row: _Row, loss: float | None) -> None:
        writer, reading = self._writer, row.reading
        assert writer is not None
        measures: Any = reading
        self._written += 1
        if self._written - self._rows.prepared > MOST_UNFOLDED:
            # the disk is far behind: a folded row takes less memory while it waits
            measures = fold_readings([reading], self._rows.blank)[0]
        writer.step(row.step, row.epoch, row.seconds, loss, row.learning_rate, measures)
        if reading is None:
            return
        if reading.neurons:
            writer.neurons(row.step, reading.neurons)
        if reading.skipped:
            self._tell("skipped", "the loss scaler skipped a step: the scaled gradients overflowed")
        if self._sampling.every is None:
            self._sampling.rows.spent(reading.cost * DISTURBANCE + ROW_COST, self._clock())
        elif reading.update_cost:
            self._sampling.updates.spent(reading.update_cost * DISTURBANCE, self._clock())

    def _mail(self, device: torch.device) -> Mail:
        own = None if self._meter is None else self._meter.mail
        if own is not None and own.device == device:
            return own
        if device not in self._mails:
            self._mails[device] = mail_for(device)
        return self._mails[device]

    def _read_letters(self, all_of_them: bool = False) -> None:
        while self._letters and (all_of_them or self._letters[0][0].arrived()):
            letter, deliver = self._letters.popleft()
            deliver(letter.read())

    # -- trouble ----------------------------------------------------------------------------------------------

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told and self._writer is not None:
            self._told.add(kind)
            self._writer.event("note", text, self.step)

    def _fail(self, error: Exception, inside_a_step: bool = False) -> None:
        """Tell it once and stop recording; the training goes on."""
        self._deaf = True
        self._row = None
        self._measuring = False
        text = f"recording stopped at step {self.step}: {in_words(error)}"
        self._say(f"{text}; training goes on unrecorded")
        if self._writer is not None:
            self._writer.event("recorder", text, self.step)
        self._take_off(inside_a_step)

    def _take_off(self, inside_a_step: bool = False) -> None:
        if self._hooks is not None:
            if inside_a_step:
                self._hooks.silence()
            else:
                self._hooks.remove()
        if self._trace is not None:
            self._trace.remove()
        if self._meter is not None:
            self._meter.release()
        self._row = self._trace = self._meter = self._loss = None
        self._letters.clear()


def _is_first_rank() -> bool:
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank() != 0)


def _learning_rate(optimizer: Any) -> float | None:
    rate = optimizer.param_groups[0].get("lr")
    if type(rate) is float:
        return rate
    if isinstance(rate, torch.Tensor):
        return float(rate.item()) if rate.device.type == "cpu" else None  # asking a device would wait
    return None if rate is None else float(rate)
