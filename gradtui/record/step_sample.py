"""One measured step: what is taken before it, what after it, and the row that comes of it.

The training's thread takes only what will be gone after the step; folding that into rows is left to the writer's
thread, which does many at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from gradtui.record.activations import Activations
from gradtui.record.collect import Gather, HostCollector, RawGradients, Sample
from gradtui.record.device import DeviceCollector, Mail, Stopwatch, mail_for, split_neurons
from gradtui.record.layers import JointSums, Slots, fill_gradients, fill_updates
from gradtui.record.sharded import WholeReading
from gradtui.runfile.blocks import DoubleArray, FloatArray

Clock = Callable[[], float]
Neurons = dict[int, FloatArray]


class Reading(Protocol):
    """The measures of one step, taken in two halves around it.

    `at_hand` is True if everything is in host memory and there is nothing to send.
    `cost` and `update_cost` are seconds: of everything, and of ‖θ‖ and the update ratio alone.
    `neurons` are the gradients by each bias, if they were asked for and are known.
    `skipped` is True if a loss scaler skipped the step; `overflowed` are then the layers that did, if known.
    `activations` are what the layers put out, if they were sampled.
    """

    at_hand: bool
    activations: Activations | None
    cost: float
    update_cost: float
    neurons: Neurons
    skipped: bool
    overflowed: Sequence[int]

    def after(self) -> None:
        """Take what can be known only after the step."""

    def parts(self) -> Sequence[torch.Tensor]:
        """What has to be sent from the device; nothing if all is in host memory."""

    def arrived(self, values: DoubleArray) -> None:
        """Take the parts, one after another, when they have arrived."""


class HostReading:
    """One step of a model in host memory."""

    at_hand = True
    overflowed: Sequence[int] = ()
    __slots__ = (
        "_clock",
        "_collector",
        "activations",
        "cost",
        "held",
        "moved",
        "neurons",
        "raw",
        "scale",
        "skipped",
        "update_cost",
    )

    def __init__(
        self,
        collector: HostCollector,
        clock: Clock,
        optimizer: Any,
        begin: float,
        timed: bool,
        update: bool,
        neurons: bool,
    ) -> None:
        self._collector, self._clock = collector, clock
        # only optimizers that a loss scaler drives have these two, and only during the step
        state = optimizer.__dict__
        scale, found_inf = state.get("grad_scale"), state.get("found_inf")
        self.scale = 1.0 if scale is None else float(scale)
        self.skipped = found_inf is not None and bool(found_inf)
        self.raw: RawGradients | None = None if self.skipped else collector.gradients()
        self.activations: Activations | None = None
        self.neurons = collector.neurons(scale) if neurons and not self.skipped else {}
        self.held: Sample | None = None
        self.moved: DoubleArray | None = None
        self.update_cost = 0.0
        if update:
            middle = clock()
            self.held = collector.hold()
            self.update_cost = clock() - middle
        self.cost = clock() - begin if timed else 0.0

    def after(self) -> None:
        """Take the step the optimizer really took."""
        if self.held is not None:
            begin = self._clock()
            self.moved = self._collector.moved()
            spent = self._clock() - begin
            self.cost += spent
            self.update_cost += spent

    def parts(self) -> Sequence[torch.Tensor]:
        """Nothing to send."""
        return ()

    def arrived(self, values: DoubleArray) -> None:
        """Nothing to take."""


class DeviceReading:
    """One step of a model on an accelerator; the numbers stay there until they are sent."""

    at_hand = False

    def __init__(
        self,
        collector: DeviceCollector,
        clock: Clock,
        optimizer: Any,
        begin: float,
        timed: bool,
        update: bool,
        neurons: bool,
    ) -> None:
        self._collector, self._clock = collector, clock
        self._watch = Stopwatch(collector.mail.make_event)
        self._watch.start()
        scale, self._found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
        self._gradients = collector.gradients(scale)
        self._biases = collector.neurons(scale) if neurons else None
        self._held = collector.hold() if update and collector.can_hold() else None
        self._moved: torch.Tensor | None = None
        self._watch.stop()
        self.neurons: Neurons = {}
        self.skipped = False
        self.overflowed: Sequence[int] = ()
        self.activations: Activations | None = None
        self.grid: FloatArray | None = None
        self.cost = clock() - begin
        self.update_cost = self.cost if update else 0.0

    def after(self) -> None:
        """Queue the measuring of the step the optimizer really took."""
        if self._held is not None:
            begin = self._clock()
            self._watch.start()
            self._moved = self._collector.moved()
            self._watch.stop()
            self.cost += self._clock() - begin
            self.update_cost = self.cost

    def parts(self) -> Sequence[torch.Tensor]:
        """Sums of squares of gradients, parameters, steps; then the neurons; then whether the step was skipped."""
        parts = [self._gradients[1]]
        if self._held is not None and self._moved is not None:
            parts += [self._held[1], self._moved]
        if self._biases is not None:
            parts.append(self._biases[1])
        if self._found_inf is not None:
            parts.append(self._found_inf)
        if self.activations is not None and isinstance(self.activations.values, torch.Tensor):
            parts.append(self.activations.values)
        return parts

    def arrived(self, values: DoubleArray) -> None:
        """Fold the numbers into a row."""
        # the host only queues the work: what it costs the training is the device's time, if that is longer
        self.cost = max(self.cost, self._watch.seconds())
        if self.update_cost:
            self.update_cost = self.cost
        grid = self._collector.table.empty_grid()
        pieces = iter(np.split(values, np.cumsum([part.numel() for part in self.parts()])[:-1]))
        squares = next(pieces)
        with np.errstate(all="ignore"):  # NaN and infinity are values here
            if self._held is not None and self._moved is not None:
                fill_updates(grid, self._held[0], next(pieces), next(pieces))
            neurons = split_neurons(self._biases[0], next(pieces)) if self._biases is not None else {}
            self.skipped = self._found_inf is not None and bool(next(pieces).any())
            if self.activations is not None:
                outputs = self.activations.values
                grid[self.activations.places] = next(pieces) if isinstance(outputs, torch.Tensor) else outputs
            if self.skipped:
                slots = self._collector.table.slots
                broken = np.array(self._gradients[0].active)[~np.isfinite(squares)]
                self.overflowed = sorted({slots[i].layer for i in broken})
            else:
                fill_gradients(grid, self._gradients[0], squares)
                self.neurons = neurons
        self.grid = grid


class JointReading:
    """One step that many optimizers took, each inside the backward that made its gradient; in host memory.

    Args:
        update: ‖θ‖ and the update ratio are taken.
        neurons: the gradients by each bias are.
    """

    at_hand = True
    overflowed: Sequence[int] = ()

    def __init__(self, update: bool, neurons: bool) -> None:
        self.wants = (update, neurons)
        self.readings: list[Reading] = []
        self.activations: Activations | None = None
        self.cost = self.update_cost = 0.0
        self.neurons: Neurons = {}
        self.skipped = False

    def after(self) -> None:
        """Take the step of the newest."""
        newest = self.readings[-1]
        newest.after()
        self.cost += newest.cost
        self.update_cost += newest.update_cost
        self.neurons |= newest.neurons
        self.skipped |= newest.skipped

    def parts(self) -> Sequence[torch.Tensor]:
        """Nothing to send."""
        return ()

    def arrived(self, values: DoubleArray) -> None:
        """Nothing to take."""


class Meter:
    """Makes readings of one model.

    Args:
        table: its parameters.
        clock: seconds.
    """

    def __init__(self, table: Slots, clock: Clock) -> None:
        self._clock = clock
        on_device = [slot.parameter.device for slot in table.slots if slot.parameter.device.type != "cpu"]
        self.mail: Mail | None = mail_for(on_device[0]) if on_device else None
        self._collector: HostCollector | DeviceCollector
        self._make: Callable[..., Reading]
        if self.mail is None:
            self._collector, self._make = HostCollector(table), HostReading
        else:
            self._collector, self._make = DeviceCollector(table, self.mail), DeviceReading

    @property
    def busy(self) -> bool:
        """True while so many rows are on their way from the device that the next had better be left out."""
        return self.mail is not None and self.mail.full

    def before(self, optimizer: Any, begin: float, *, timed: bool, update: bool, neurons: bool) -> Reading:
        """Take what must be known before the step; `begin` is the time, `timed` asks for what it costs."""
        return self._make(self._collector, self._clock, optimizer, begin, timed, update, neurons)

    def release(self) -> None:
        """Let go of the parameters."""
        self._collector.release()


FOLDED = (HostReading, DeviceReading, JointReading, WholeReading)


def fold_readings(readings: Sequence[Any], blank: FloatArray) -> list[bytes | None]:
    """The BLOB of each reading (what is none stays as it is); those of the same make are folded together.

    `blank` is a row [layers × measures] in which nothing is measured.
    """
    grids = np.tile(blank, (len(readings), 1))
    by_gather: dict[tuple[Gather, bool], list[tuple[int, HostReading]]] = {}
    joint = [i for i, reading in enumerate(readings) if isinstance(reading, JointReading)]
    rank = {i: place for place, i in enumerate(joint)}
    sums = JointSums(len(joint), grids.shape[1])
    with np.errstate(all="ignore"):  # NaN and infinity are values here
        for i, reading in _each(readings):
            if isinstance(reading, HostReading):
                if reading.raw is not None:
                    by_gather.setdefault((reading.raw[0], i in rank), []).append((i, reading))
                if reading.held is not None and reading.moved is not None:
                    sample = reading.held.places, reading.held.squares, reading.moved
                    if i in rank:
                        sums.add_update(rank[i], *sample)
                    else:
                        fill_updates(grids[i], *sample)
                if reading.activations is not None:
                    grids[i, reading.activations.places] = reading.activations.values
            elif isinstance(reading, DeviceReading) and reading.grid is not None:
                grids[i, : len(reading.grid)] = reading.grid
            elif isinstance(reading, WholeReading):
                reading.fill(grids[i])
        for (gather, is_joint), members in by_gather.items():
            squares = gather.squares([reading.raw for _, reading in members if reading.raw is not None])
            scales = np.array([reading.scale for _, reading in members])
            squares /= np.square(scales)[:, None]
            places = [i for i, _ in members]
            if is_joint:
                sums.add_gradients([rank[i] for i in places], gather.places, squares)
            else:
                rows = grids[places]
                fill_gradients(rows, gather.places, squares)
                grids[places] = rows
        sums.fill(grids, joint)
    return [
        row.tobytes() if isinstance(reading, FOLDED) else reading for reading, row in zip(readings, grids, strict=True)
    ]


def _each(readings: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """The readings with the row of each; a joint one is all of its own."""
    for i, reading in enumerate(readings):
        if isinstance(reading, JointReading):
            for one in reading.readings:
                yield i, one
        else:
            yield i, reading
