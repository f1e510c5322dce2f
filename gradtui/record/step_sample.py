"""One measured step: what is taken before it, and what after it.

The training's thread takes only what will be gone after the step; folding that into rows is left to the writer's
thread, which does many at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradtui.record.columns import Placed
from gradtui.record.copy_stream import CopyStream, Stopwatch, copy_stream_for
from gradtui.record.device_norms import DeviceNorms, split_neurons
from gradtui.record.host_norms import HostNorms, RawGradients, SlotSquares
from gradtui.record.slots import Slots
from gradtui.runfile.blocks import DoubleArray, FloatArray

if TYPE_CHECKING:
    from gradtui.record.fold import Fold

Clock = Callable[[], float]
Neurons = dict[int, FloatArray]


class StepSample:
    """The measures of one step, taken in two halves around it. This one has all of it in host memory.

    Attributes:
        is_on_host: everything is in host memory: there is nothing to copy.
        placed: what functions of measures gave.
        cost, update_cost: seconds: of everything, and of what is due with the update ratio alone.
        neurons: the gradients by each bias, if they were asked for and are known.
        skipped: a loss scaler skipped the step; `overflowed` are then the layers that did, if known.
    """

    is_on_host = True
    overflowed: Sequence[int] = ()
    placed: tuple[Placed, ...]
    cost: float
    update_cost: float
    neurons: Neurons
    skipped: bool
    __slots__ = ("cost", "neurons", "placed", "skipped", "update_cost")

    def put(self, placed: Placed | None) -> None:
        """Take along what functions of measures gave."""
        if placed is not None:
            self.placed = (*self.placed, placed)

    def after(self) -> None:
        """Take what can be known only after the step."""
        raise NotImplementedError

    def tensors_to_copy(self) -> Sequence[torch.Tensor]:
        """What has to be copied from the device."""
        return ()

    def receive(self, values: DoubleArray) -> None:
        """Take the numbers of those tensors, one after another."""

    def add_to(self, fold: Fold, row: int) -> None:
        """Hand over what belongs in a row, in the writer's thread."""
        for placed in self.placed:
            fold.put(row, placed)


class HostSample(StepSample):
    """One step of a model in host memory."""

    __slots__ = ("_clock", "_norms", "held", "raw", "scale", "update")

    def __init__(
        self, norms: HostNorms, clock: Clock, optimizer: Any, begin: float, timed: bool, update: bool, neurons: bool
    ) -> None:
        self._norms, self._clock = norms if update else None, clock  # a sample waits, and must hold no parameter
        # only optimizers that a loss scaler drives have these two, and only during the step
        state = optimizer.__dict__
        scale, found_inf = state.get("grad_scale"), state.get("found_inf")
        self.scale = 1.0 if scale is None else float(scale)
        self.skipped = found_inf is not None and bool(found_inf)
        self.raw: RawGradients | None = None if self.skipped else norms.gradients()
        self.placed = ()
        self.neurons = norms.neurons(scale) if neurons and not self.skipped else {}
        self.held: SlotSquares | None = None
        self.update: DoubleArray | None = None
        self.update_cost = 0.0
        if update:
            middle = clock()
            if not self.skipped:
                self.put(norms.slots.measured_by_functions(scale))
            self.held = norms.hold()
            self.update_cost = clock() - middle
        self.cost = clock() - begin if timed else 0.0

    def after(self) -> None:
        """Take the step the optimizer really took."""
        if self.held is not None and self._norms is not None:
            begin = self._clock()
            self.update = self._norms.update()
            spent = self._clock() - begin
            self.cost += spent
            self.update_cost += spent
        self._norms = None

    def add_to(self, fold: Fold, row: int) -> None:
        """Hand over the gradients as they were taken, and sums of squares."""
        if self.raw is not None:
            fold.add_raw_gradients(row, self.raw, self.scale)
        if self.held is not None and self.update is not None:
            fold.add_update(row, self.held.places, self.held.squares, self.update)
        super().add_to(fold, row)


class DeviceSample(StepSample):
    """One step of a model on an accelerator; the numbers stay there until they are copied."""

    is_on_host = False

    def __init__(
        self, norms: DeviceNorms, clock: Clock, optimizer: Any, begin: float, timed: bool, update: bool, neurons: bool
    ) -> None:
        self._norms, self._clock = norms, clock
        self._watch = Stopwatch(norms.copies.make_event)
        self._watch.start()
        scale, self._found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
        self._gradients = norms.gradients(scale)
        self._biases = norms.neurons(scale) if neurons else None
        self._by_functions = norms.slots.measured_by_functions(scale) if update else None
        self._held = norms.hold() if update and norms.can_hold() else None
        self._update: torch.Tensor | None = None
        self._watch.stop()
        self._copied: list[tuple[str | Placed, torch.Tensor]] = []
        self._squares: dict[str | Placed, DoubleArray] = {}
        self.placed = ()
        self.neurons = {}
        self.skipped = False
        self.put(self._by_functions)
        self.cost = clock() - begin
        self.update_cost = self.cost if update else 0.0

    def after(self) -> None:
        """Queue the measuring of the step the optimizer really took."""
        if self._held is not None:
            begin = self._clock()
            self._watch.start()
            self._update = self._norms.update()
            self._watch.stop()
            self.cost += self._clock() - begin
            self.update_cost = self.cost

    def tensors_to_copy(self) -> Sequence[torch.Tensor]:
        """Sums of squares, gradients by biases, whether the step was skipped, and what functions gave."""
        self._copied = [("gradients", self._gradients[1])]
        if self._held is not None and self._update is not None:
            self._copied += [("parameters", self._held[1]), ("updates", self._update)]
        if self._biases is not None:
            self._copied.append(("neurons", self._biases[1]))
        if self._found_inf is not None:
            self._copied.append(("found_inf", self._found_inf))
        self._copied += [(p, p.values) for p in self.placed if isinstance(p.values, torch.Tensor)]
        return [tensor for _, tensor in self._copied]

    def receive(self, values: DoubleArray) -> None:
        """Take the numbers."""
        # the host only queues the work: what it costs the training is the device's time, if that is longer
        self.cost = max(self.cost, self._watch.seconds())
        if self.update_cost:
            self.update_cost = self.cost
        ends = np.cumsum([tensor.numel() for _, tensor in self._copied])
        found = dict(zip((key for key, _ in self._copied), np.split(values, ends[:-1]), strict=True))
        self.skipped = "found_inf" in found and bool(found["found_inf"].any())
        if self.skipped:
            slots = self._norms.slots.slots
            broken = np.array(self._gradients[0].active, np.intp)[~np.isfinite(found.pop("gradients"))]
            self.overflowed = sorted({slots[i].layer for i in broken})
            self.placed = tuple(placed for placed in self.placed if placed is not self._by_functions)
        elif self._biases is not None:
            self.neurons = split_neurons(self._biases[0], found["neurons"])
        self._squares, self._copied = found, []
        del self._norms  # the sample may wait on, and must hold no parameter

    def add_to(self, fold: Fold, row: int) -> None:
        """Hand over sums of squares and what functions gave, once they have been received."""
        found = self._squares
        if "gradients" in found:
            fold.add_gradients(row, self._gradients[0], found["gradients"])
        if self._held is not None and "updates" in found:
            fold.add_update(row, self._held[0], found["parameters"], found["updates"])
        for placed in self.placed:
            if placed in found or not isinstance(placed.values, torch.Tensor):
                fold.put(row, placed, found.get(placed))


class JointSample(StepSample):
    """One step that many optimizers took, each inside the backward that made its gradient; in host memory.

    Args:
        update: ‖θ‖ and the update ratio are taken.
        neurons: the gradients by each bias are.
    """

    __slots__ = ("samples", "wants")

    def __init__(self, update: bool, neurons: bool) -> None:
        self.wants = (update, neurons)
        self.samples: list[StepSample] = []
        self.cost = self.update_cost = 0.0
        self.neurons = {}
        self.placed = ()
        self.skipped = False

    def after(self) -> None:
        """Take the step of the newest."""
        newest = self.samples[-1]
        newest.after()
        self.cost += newest.cost
        self.update_cost += newest.update_cost
        self.neurons |= newest.neurons
        self.skipped |= newest.skipped

    def add_to(self, fold: Fold, row: int) -> None:
        """Hand over all of them, for one row."""
        fold.share(row)
        for sample in self.samples:
            sample.add_to(fold, row)
        super().add_to(fold, row)


class Probe:
    """Takes samples of one model.

    Args:
        slots: its parameters.
        clock: seconds.
    """

    def __init__(self, slots: Slots, clock: Clock) -> None:
        self._clock = clock
        on_device = [slot.parameter.device for slot in slots.slots if slot.parameter.device.type != "cpu"]
        self.copies: CopyStream | None = copy_stream_for(on_device[0]) if on_device else None
        self._norms: HostNorms | DeviceNorms
        self._make: Callable[..., StepSample]
        if self.copies is None:
            self._norms, self._make = HostNorms(slots), HostSample
        else:
            self._norms, self._make = DeviceNorms(slots, self.copies), DeviceSample

    @property
    def busy(self) -> bool:
        """True while so many rows are on their way from the device that the next should be left out."""
        return self.copies is not None and self.copies.full

    def before(self, optimizer: Any, begin: float, *, timed: bool, update: bool, neurons: bool) -> StepSample:
        """Take what must be known before the step; `begin` is the time, `timed` asks for what it costs."""
        return self._make(self._norms, self._clock, optimizer, begin, timed, update, neurons)

    def release(self) -> None:
        """Let go of the parameters."""
        self._norms.release()
