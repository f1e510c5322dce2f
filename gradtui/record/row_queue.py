"""Queues rows and metrics for the writer; values on a device arrive by asynchronous copy."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gradtui.record.budget import Sampling
from gradtui.record.copy_stream import CopyStream, PendingCopy, copy_stream_for
from gradtui.record.fold import fold_samples
from gradtui.record.host_norms import FOLDED_LATER
from gradtui.record.own_steps import OwnSteps
from gradtui.record.row_maker import RowMaker
from gradtui.record.step_sample import Clock, StepSample
from gradtui.runfile import RunWriter
from gradtui.runfile.blocks import DoubleArray

LOSS_EVERY = 0.05  # s between rows that hold a loss only
DISTURBANCE = 2.2  # what measuring costs in all, with caches that are colder afterwards, over its own time
UNFOLDED_OVERHEAD = 1500  # bytes of a row that waits to be folded, beside the short gradients it takes along
UNFOLDED_BYTES = 12 << 20  # of rows that wait for the writer's thread to fold them
MOST_SKIPS_TOLD = 20  # events about steps that a loss scaler skipped
ROW_COST = 25e-6  # s that a row costs later, in the writer's thread


@dataclass(slots=True)
class Row:
    """One recorded step."""

    step: int
    seconds: float
    learning_rate: float | None
    sample: StepSample | None
    own: OwnSteps | None = None  # the steps of the optimizer that took it
    epoch: float | None = None
    loss: float | torch.Tensor | None = None


class RowQueue:
    """Sends rows and metrics to the writer; what is on a device is fetched without waiting.

    Args:
        writer: writes the run file.
        rows: folds samples in the writer's thread.
        sampling: is told what measuring cost.
        clock: seconds.
        cpu: seconds that this thread has worked.

    Attributes:
        pending: numbers on their way from a device, and what is to be done with them.
        epoch: of all that is sent until there is another one.
        last_step: of the rows sent so far.
        next_loss_at: when a loss is worth a row of its own, by the clock.
    """

    def __init__(self, writer: RunWriter, rows: RowMaker, sampling: Sampling, clock: Clock, cpu: Clock) -> None:
        self.pending: deque[tuple[PendingCopy, Callable[[Any], None]]] = deque()
        self.epoch: float | None = None
        self.last_step = 0
        self.next_loss_at = -math.inf
        self._begin = clock()
        self._writer, self._rows, self._sampling, self._clock, self._cpu = writer, rows, sampling, clock, cpu
        self._streams: dict[torch.device, CopyStream] = {}
        self._written = self._most_unfolded = 0
        self._told: set[str] = set()
        self._skips = 0

    def seconds(self) -> float:
        """Since the recording began."""
        return self._clock() - self._begin

    def send(self, row: Row) -> None:
        """Send a row to the writer, once what is on a device has been copied."""
        row.epoch = self.epoch
        self.next_loss_at, self.last_step = self._begin + row.seconds + LOSS_EVERY, row.step
        sample, loss = row.sample, row.loss
        if (sample is None or sample.is_on_host) and not isinstance(loss, torch.Tensor):
            self._write(row, loss)
            return
        tensors = list(sample.tensors_to_copy()) if sample is not None else []
        if isinstance(loss, torch.Tensor):
            tensors.append(loss.reshape(1))
        stream = self._stream(tensors[0].device)
        # a device that is waited for costs the time of the wait, in which our thread does not work
        clock = self._clock if stream.make_event is None else self._cpu
        begin = clock()
        copy = stream.send(tensors)
        self.pending.append((copy, lambda values: self._deliver(row, values)))
        if sample is not None and not sample.is_on_host:
            # what it costs on the device is known when it arrives: until then no other is due
            sample.cost += clock() - begin
            self._sampling.rows.next_at = math.inf
            if sample.update_cost:
                self._sampling.updates.next_at = math.inf

    def wants_loss(self, step: int) -> bool:
        """True if the last row is so long ago that the loss of a step is worth a row of its own."""
        return self._clock() >= self.next_loss_at and step > self.last_step

    def send_loss(self, step: int, value: Any, optimizer: Any = None) -> None:
        """Send a row with a loss only, of a step that was not measured, if it is wanted."""
        if self.wants_loss(step):
            rate = None if optimizer is None else learning_rate(optimizer)
            self.send(Row(step, self.seconds(), rate, None, loss=self.number("loss", value, step)))

    def send_last(self, step: int) -> None:
        """Send a row that says how many steps there were, if none says so yet."""
        if step > self.last_step:
            self.send(Row(step, self.seconds(), None, None))

    def number(self, name: str, value: Any, step: int) -> float | torch.Tensor | None:
        """A float; or the tensor itself if it is on a device, where asking would wait. Anything else is told."""
        try:
            if isinstance(value, torch.Tensor):
                if value.is_cpu:
                    return float(value.item())
                if value.numel() != 1:
                    raise ValueError(f"it has {value.numel()} elements")
                return value.detach()
            return float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            self.tell(f"metric {name}", f"{name!r} is not recorded: it is not a number ({error})", step)
            return None

    def scalar(self, step: int, name: str, value: float | torch.Tensor) -> None:
        """Send one value of a metric."""
        writer, epoch = self._writer, self.epoch
        if isinstance(value, torch.Tensor):
            copy = self._stream(value.device).send([value])
            self.pending.append((copy, lambda values: writer.scalar(step, epoch, name, float(values[0]))))
        else:
            writer.scalar(step, epoch, name, value)

    def fetch(self, tensors: Sequence[torch.Tensor], deliver: Callable[[Any], None]) -> None:
        """Copy numbers from their device, and hand them over once they are here."""
        self.pending.append((self._stream(tensors[0].device).send(tensors), deliver))

    def tell(self, kind: str, text: str, step: int) -> None:
        """Note something in the run, once for each kind."""
        if kind not in self._told:
            self._told.add(kind)
            self._writer.event("note", text, step)

    def poll(self, all_of_them: bool = False) -> None:
        """Pass on what has arrived; all of them waits for the rest."""
        while self.pending and (all_of_them or self.pending[0][0].is_complete()):
            copy, deliver = self.pending.popleft()
            deliver(copy.read())

    def expect(self, parameters: int) -> None:
        """Learn how many parameters a row takes along, to bound what waits in memory."""
        self._most_unfolded = UNFOLDED_BYTES // (4 * min(parameters, FOLDED_LATER) + UNFOLDED_OVERHEAD)

    def share(self, copies: CopyStream) -> None:
        """Use the copy stream of a probe for everything from its device."""
        self._streams[copies.device] = copies

    def _stream(self, device: torch.device) -> CopyStream:
        if device not in self._streams:
            self._streams[device] = copy_stream_for(device)
        return self._streams[device]

    def _deliver(self, row: Row, values: DoubleArray) -> None:
        loss = row.loss
        if isinstance(loss, torch.Tensor):
            loss, values = float(values[-1]), values[:-1]
        if row.sample is not None and not row.sample.is_on_host:
            row.sample.receive(values)
        self._write(row, loss)

    def _write(self, row: Row, loss: float | None) -> None:
        sample = row.sample
        measures: Any = sample
        self._written += 1
        if self._written - self._rows.prepared > self._most_unfolded:
            # the disk is far behind: a folded row takes less memory while it waits
            measures = fold_samples([sample], self._rows.blank)[0]
        number = None if row.own is None or not row.own.number else row.own.number
        self._writer.step(row.step, row.epoch, row.seconds, loss, row.learning_rate, measures, number)
        if sample is None:
            return
        if row.own is not None:
            row.own.wrote(row.step)
        if sample.neurons:
            self._writer.neurons(row.step, sample.neurons)
        if sample.skipped and not sample.is_on_host and self._skips < MOST_SKIPS_TOLD:
            self._skips += 1
            names = self._rows.names
            self._writer.event("skipped", skipped_step([names[layer] for layer in sample.overflowed]), row.step)
        if self._sampling.every is None:
            self._sampling.rows.spent(sample.cost * DISTURBANCE + ROW_COST, self._clock())
        elif sample.update_cost:
            self._sampling.updates.spent(sample.update_cost * DISTURBANCE, self._clock())


def skipped_step(layers: Sequence[str]) -> str:
    """What the run says of a step that a loss scaler skipped."""
    return f"the loss scaler skipped the step: the gradient overflowed in {', '.join(layers) or 'unknown layers'}"


def learning_rate(optimizer: Any) -> float | None:
    """Of an optimizer's first group; None if it has none, or has it on a device, where asking would wait."""
    rate = optimizer.param_groups[0].get("lr")
    if type(rate) is float:
        return rate
    if isinstance(rate, torch.Tensor):
        return float(rate.item()) if rate.device.type == "cpu" else None
    return None if rate is None else float(rate)
