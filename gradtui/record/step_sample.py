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
from gradtui.record.device_norms import CopyStream, DeviceNorms, Stopwatch, copy_stream_for, split_neurons
from gradtui.record.host_norms import Gather, HostNorms, RawGradients, Sample
from gradtui.record.layers import JointSums, Slots, fill_gradients, fill_updates
from gradtui.record.sharded import ShardedSample
from gradtui.runfile.blocks import DoubleArray, FloatArray

Clock = Callable[[], float]
Neurons = dict[int, FloatArray]


class StepSample(Protocol):
    """The measures of one step, taken in two halves around it.

    `is_on_host` is True if everything is in host memory and there is nothing to send.
    `cost` and `update_cost` are seconds: of everything, and of ‖θ‖ and the update ratio alone.
    `neurons` are the gradients by each bias, if they were asked for and are known.
    `skipped` is True if a loss scaler skipped the step; `overflowed` are then the layers that did, if known.
    `activations` are what the layers put out, if they were sampled.
    """

    is_on_host: bool
    activations: Activations | None
    cost: float
    update_cost: float
    neurons: Neurons
    skipped: bool
    overflowed: Sequence[int]

    def after(self) -> None:
        """Take what can be known only after the step."""

    def tensors_to_copy(self) -> Sequence[torch.Tensor]:
        """What has to be copied from the device; nothing if all is in host memory."""

    def receive(self, values: DoubleArray) -> None:
        """Take the numbers of those tensors, one after another."""


class HostSample:
    """One step of a model in host memory."""

    is_on_host = True
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
        collector: HostNorms,
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

    def tensors_to_copy(self) -> Sequence[torch.Tensor]:
        """Nothing to send."""
        return ()

    def receive(self, values: DoubleArray) -> None:
        """Nothing to take."""


class DeviceSample:
    """One step of a model on an accelerator; the numbers stay there until they are sent."""

    is_on_host = False

    def __init__(
        self,
        collector: DeviceNorms,
        clock: Clock,
        optimizer: Any,
        begin: float,
        timed: bool,
        update: bool,
        neurons: bool,
    ) -> None:
        self._collector, self._clock = collector, clock
        self._watch = Stopwatch(collector.copies.make_event)
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

    def tensors_to_copy(self) -> Sequence[torch.Tensor]:
        """Sums of squares of gradients, parameters, steps; then the neurons; then whether the step was skipped."""
        tensors = [self._gradients[1]]
        if self._held is not None and self._moved is not None:
            tensors += [self._held[1], self._moved]
        if self._biases is not None:
            tensors.append(self._biases[1])
        if self._found_inf is not None:
            tensors.append(self._found_inf)
        if self.activations is not None and isinstance(self.activations.values, torch.Tensor):
            tensors.append(self.activations.values)
        return tensors

    def receive(self, values: DoubleArray) -> None:
        """Fold the numbers into a row."""
        # the host only queues the work: what it costs the training is the device's time, if that is longer
        self.cost = max(self.cost, self._watch.seconds())
        if self.update_cost:
            self.update_cost = self.cost
        grid = self._collector.table.empty_grid()
        pieces = iter(np.split(values, np.cumsum([tensor.numel() for tensor in self.tensors_to_copy()])[:-1]))
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


class JointSample:
    """One step that many optimizers took, each inside the backward that made its gradient; in host memory.

    Args:
        update: ‖θ‖ and the update ratio are taken.
        neurons: the gradients by each bias are.
    """

    is_on_host = True
    overflowed: Sequence[int] = ()

    def __init__(self, update: bool, neurons: bool) -> None:
        self.wants = (update, neurons)
        self.samples: list[StepSample] = []
        self.activations: Activations | None = None
        self.cost = self.update_cost = 0.0
        self.neurons: Neurons = {}
        self.skipped = False

    def after(self) -> None:
        """Take the step of the newest."""
        newest = self.samples[-1]
        newest.after()
        self.cost += newest.cost
        self.update_cost += newest.update_cost
        self.neurons |= newest.neurons
        self.skipped |= newest.skipped

    def tensors_to_copy(self) -> Sequence[torch.Tensor]:
        """Nothing to send."""
        return ()

    def receive(self, values: DoubleArray) -> None:
        """Nothing to take."""


class Probe:
    """Makes samples of one model.

    Args:
        table: its parameters.
        clock: seconds.
    """

    def __init__(self, table: Slots, clock: Clock) -> None:
        self._clock = clock
        on_device = [slot.parameter.device for slot in table.slots if slot.parameter.device.type != "cpu"]
        self.copies: CopyStream | None = copy_stream_for(on_device[0]) if on_device else None
        self._collector: HostNorms | DeviceNorms
        self._make: Callable[..., StepSample]
        if self.copies is None:
            self._collector, self._make = HostNorms(table), HostSample
        else:
            self._collector, self._make = DeviceNorms(table, self.copies), DeviceSample

    @property
    def busy(self) -> bool:
        """True while so many rows are on their way from the device that the next had better be left out."""
        return self.copies is not None and self.copies.full

    def before(self, optimizer: Any, begin: float, *, timed: bool, update: bool, neurons: bool) -> StepSample:
        """Take what must be known before the step; `begin` is the time, `timed` asks for what it costs."""
        return self._make(self._collector, self._clock, optimizer, begin, timed, update, neurons)

    def release(self) -> None:
        """Let go of the parameters."""
        self._collector.release()


FOLDED = (HostSample, DeviceSample, JointSample, ShardedSample)


def fold_samples(samples: Sequence[Any], blank: FloatArray) -> list[bytes | None]:
    """The BLOB of each sample (what is none stays as it is); those of the same make are folded together.

    `blank` is a row [layers × measures] in which nothing is measured.
    """
    grids = np.tile(blank, (len(samples), 1))
    by_gather: dict[tuple[Gather, bool], list[tuple[int, HostSample]]] = {}
    joint = [i for i, sample in enumerate(samples) if isinstance(sample, JointSample)]
    rank = {i: place for place, i in enumerate(joint)}
    sums = JointSums(len(joint), grids.shape[1])
    with np.errstate(all="ignore"):  # NaN and infinity are values here
        for i, sample in _each(samples):
            if isinstance(sample, HostSample):
                if sample.raw is not None:
                    by_gather.setdefault((sample.raw[0], i in rank), []).append((i, sample))
                if sample.held is not None and sample.moved is not None:
                    update = sample.held.places, sample.held.squares, sample.moved
                    if i in rank:
                        sums.add_update(rank[i], *update)
                    else:
                        fill_updates(grids[i], *update)
                if sample.activations is not None:
                    grids[i, sample.activations.places] = sample.activations.values
            elif isinstance(sample, DeviceSample) and sample.grid is not None:
                grids[i, : len(sample.grid)] = sample.grid
            elif isinstance(sample, ShardedSample):
                sample.fill(grids[i])
        for (gather, is_joint), members in by_gather.items():
            squares = gather.squares([sample.raw for _, sample in members if sample.raw is not None])
            scales = np.array([sample.scale for _, sample in members])
            squares /= np.square(scales)[:, None]
            places = [i for i, _ in members]
            if is_joint:
                sums.add_gradients([rank[i] for i in places], gather.places, squares)
            else:
                rows = grids[places]
                fill_gradients(rows, gather.places, squares)
                grids[places] = rows
        sums.fill(grids, joint)
    return [row.tobytes() if isinstance(sample, FOLDED) else sample for sample, row in zip(samples, grids, strict=True)]


def _each(samples: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """The samples with the row of each; a joint one is all of its own."""
    for i, sample in enumerate(samples):
        if isinstance(sample, JointSample):
            for one in sample.samples:
                yield i, one
        else:
            yield i, sample
