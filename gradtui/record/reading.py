"""One measured step: what is taken before it, what after it, and the row that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from gradtui.record.collect import HostCollector
from gradtui.record.device import DeviceCollector, Stopwatch, mail_for, split_neurons
from gradtui.record.layers import LayerTable, fill_gradients, fill_updates
from gradtui.runfile.schema import DoubleArray, FloatArray

Clock = Callable[[], float]


class Reading(Protocol):
    """The measures of one step, taken in two halves around it.

    `cost` and `update_cost` are seconds: of everything, and of ‖θ‖ and the update ratio alone.
    """

    cost: float
    update_cost: float

    def after(self) -> None:
        """Take what can be known only after the step."""

    def parts(self) -> Sequence[torch.Tensor]:
        """What has to be sent from the device; nothing if all is in host memory."""

    def finish(self, values: DoubleArray | None) -> tuple[bytes, dict[int, FloatArray], bool]:
        """The row's BLOB, the neurons, and whether the loss scaler skipped the step; `values` are the parts, arrived."""


class Meter(Protocol):
    """Makes readings."""

    @property
    def busy(self) -> bool:
        """True while the next row had better be left out."""

    def before(self, optimizer: Any, *, update: bool, neurons: bool) -> Reading:
        """Take what must be known before the step."""

    def release(self) -> None:
        """Let go of the parameters."""


class HostMeter:
    """Measures a model in host memory."""

    busy = False

    def __init__(self, table: LayerTable, clock: Clock) -> None:
        self.table, self.clock = table, clock
        self.collector = HostCollector(table)
        self.blank = table.empty_grid()

    def before(self, optimizer: Any, *, update: bool, neurons: bool) -> HostReading:
        """Take what must be known before the step."""
        return HostReading(self, optimizer, update, neurons)

    def release(self) -> None:
        """Let go of the parameters."""
        self.collector.release()


class HostReading:
    """One step of a model in host memory."""

    def __init__(self, meter: HostMeter, optimizer: Any, update: bool, neurons: bool) -> None:
        begin = meter.clock()
        self._meter = meter
        self._grid = meter.blank.copy()
        self._neurons: dict[int, FloatArray] = {}
        self._held = None
        self.update_cost = 0.0
        # only optimizers that a loss scaler drives have the two, and only during the step
        scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
        self._skipped = found_inf is not None and bool(found_inf.item())
        collector = meter.collector
        if not self._skipped:
            sample = collector.gradients(scale)
            fill_gradients(self._grid, sample.places, sample.squares)
            if neurons:
                # a copy: the gradients change while this waits for its loss
                self._neurons = {layer: values.copy() for layer, values in collector.neurons(scale).items()}
        if update:
            middle = meter.clock()
            self._held = collector.hold()
            end = meter.clock()
            self.update_cost = end - middle
        else:
            end = meter.clock()
        self.cost = end - begin

    def after(self) -> None:
        """Take the step the optimizer really took."""
        if self._held is not None:
            begin = self._meter.clock()
            fill_updates(self._grid, self._held.places, self._held.squares, self._meter.collector.moved())
            spent = self._meter.clock() - begin
            self.cost += spent
            self.update_cost += spent

    def parts(self) -> Sequence[torch.Tensor]:
        """Nothing to send."""
        return ()

    def finish(self, values: DoubleArray | None) -> tuple[bytes, dict[int, FloatArray], bool]:
        """The row's BLOB, the neurons, and whether the step was skipped."""
        return self._grid.tobytes(), self._neurons, self._skipped


class DeviceMeter:
    """Measures a model of which at least a part is on an accelerator; nothing waits for it."""

    def __init__(self, table: LayerTable, device: torch.device, clock: Clock) -> None:
        self.table, self.clock = table, clock
        self.mail = mail_for(device)
        self.collector = DeviceCollector(table, self.mail)

    @property
    def busy(self) -> bool:
        """True while too many rows are on their way."""
        return self.mail.full

    def before(self, optimizer: Any, *, update: bool, neurons: bool) -> DeviceReading:
        """Take what must be known before the step."""
        return DeviceReading(self, optimizer, update and self.collector.can_hold(), neurons)

    def release(self) -> None:
        """Let go of the parameters."""
        self.collector.release()


class DeviceReading:
    """One step of a model on an accelerator; the numbers stay there until they are sent."""

    def __init__(self, meter: DeviceMeter, optimizer: Any, update: bool, neurons: bool) -> None:
        begin = meter.clock()
        self._meter = meter
        self._watch = Stopwatch(meter.mail.make_event)
        self._watch.start()
        scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
        self._found_inf = found_inf
        collector = meter.collector
        self._gradients = collector.gradients(scale)
        self._neurons = collector.neurons(scale) if neurons else None
        self._held = collector.hold() if update else None
        self._moved: torch.Tensor | None = None
        self._watch.stop()
        self.cost = meter.clock() - begin
        self.update_cost = self.cost if update else 0.0

    def after(self) -> None:
        """Queue the measuring of the step the optimizer really took."""
        if self._held is not None:
            begin = self._meter.clock()
            self._watch.start()
            self._moved = self._meter.collector.moved()
            self._watch.stop()
            self.cost += self._meter.clock() - begin
            self.update_cost = self.cost

    def parts(self) -> Sequence[torch.Tensor]:
        """Sums of squares of gradients, parameters and steps; then the neurons; then whether the step was skipped."""
        parts = [self._gradients[1]]
        if self._held is not None and self._moved is not None:
            parts += [self._held[1], self._moved]
        if self._neurons is not None:
            parts.append(self._neurons[1])
        if self._found_inf is not None:
            parts.append(self._found_inf)
        return parts

    def finish(self, values: DoubleArray | None) -> tuple[bytes, dict[int, FloatArray], bool]:
        """The row's BLOB, the neurons, and whether the step was skipped; called once the parts have arrived."""
        assert values is not None
        # the host only queues the work: what it costs the training is the device's time, if that is longer
        self.cost = max(self.cost, self._watch.seconds())
        if self.update_cost:
            self.update_cost = self.cost
        grid = self._meter.table.empty_grid()
        pieces = iter(np.split(values, np.cumsum([part.numel() for part in self.parts()])[:-1]))
        squares = next(pieces)
        if self._held is not None and self._moved is not None:
            fill_updates(grid, self._held[0], next(pieces), next(pieces))
        neurons = split_neurons(self._neurons[0], next(pieces)) if self._neurons is not None else {}
        skipped = self._found_inf is not None and bool(next(pieces).any())
        if not skipped:
            fill_gradients(grid, self._gradients[0], squares)
        return grid.tobytes(), {} if skipped else neurons, skipped


def meter_for(table: LayerTable, clock: Clock) -> HostMeter | DeviceMeter:
    """The meter for a model where its parameters are now."""
    for slot in table.slots:
        if slot.parameter.device.type != "cpu":
            return DeviceMeter(table, slot.parameter.device, clock)
    return HostMeter(table, clock)
