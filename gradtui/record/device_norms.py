"""Reductions on an accelerator: norms stay there, one asynchronous copy a row brings them to the host.

Nothing here makes the host wait for a CUDA (or other event-keeping) device. Devices without events of their own
(MPS) are read with a copy that does wait; there the default sampling by budget keeps that rare.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gradtui.record.host_norms import flat_neurons, square_sum
from gradtui.record.layers import Places, Slots
from gradtui.runfile.blocks import DoubleArray, FloatArray

MOST_COPIES = 64  # copies that may be under way before rows are left out
COPY_SHARE = 0.25  # of the device's free memory that the copy of the parameters may take


class PendingCopy:
    """Numbers on their way to the host. `is_complete` never waits; `read` must only follow it, except at the end."""

    def __init__(self, copies: CopyStream, buffer: torch.Tensor, count: int, event: Any) -> None:
        self._copies, self._buffer, self._count, self._event = copies, buffer, count, event

    def is_complete(self) -> bool:
        """True once the copy is complete."""
        return self._event is None or bool(self._event.query())

    def read(self) -> DoubleArray:
        """The numbers, float64; gives the buffer back. Waits for the device if they have not arrived."""
        if self._event is not None and not self._event.query():
            self._event.synchronize()  # host synchronisation, at close only
        values: DoubleArray = self._buffer[: self._count].double().numpy().copy()
        self._copies.free[len(self._buffer)].append(self._buffer)
        self._copies.under_way -= 1
        return values


class CopyStream:
    """Sends numbers from one device to the host through a small ring of pinned buffers.

    Args:
        device: where the numbers are.
        make_event: an event with `record`, `query` and `synchronize`; None copies synchronously.
        make_buffer: a host buffer of so many numbers.
    """

    def __init__(
        self,
        device: torch.device,
        make_event: Callable[[], Any] | None,
        make_buffer: Callable[[int], torch.Tensor],
    ) -> None:
        self.device = device
        self.free: dict[int, list[torch.Tensor]] = defaultdict(list)
        self.under_way = 0
        self.make_event, self._make_buffer = make_event, make_buffer

    @property
    def full(self) -> bool:
        """True while so much is under way that the next row had better be left out."""
        return self.under_way >= MOST_COPIES

    def send(self, tensors: Sequence[torch.Tensor]) -> PendingCopy:
        """Copy the numbers of all tensors, one after another, without waiting."""
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        flat = torch.cat([tensor.detach().reshape(-1).to(self.device, kind, non_blocking=True) for tensor in tensors])
        size = max(64, 1 << (len(flat) - 1).bit_length())
        buffer = self.free[size].pop() if self.free[size] else self._make_buffer(size)
        self.under_way += 1
        if self.make_event is None:
            buffer[: len(flat)].copy_(flat)  # host synchronisation: this device has no events to ask
            return PendingCopy(self, buffer, len(flat), None)
        buffer[: len(flat)].copy_(flat, non_blocking=True)
        event = self.make_event()
        event.record()
        return PendingCopy(self, buffer, len(flat), event)


class Stopwatch:
    """The device's own time between pairs of events, known once they have passed; 0 where there are none."""

    def __init__(self, make_event: Callable[[], Any] | None) -> None:
        self._make_event = make_event
        self._pairs: list[tuple[Any, Any]] = []
        self._begin: Any = None

    def start(self) -> None:
        """Note the beginning of some work in the device's queue."""
        if self._make_event is not None:
            self._begin = self._make_event()
            self._begin.record()

    def stop(self) -> None:
        """Note its end."""
        if self._make_event is not None and self._begin is not None:
            end = self._make_event()
            end.record()
            self._pairs.append((self._begin, end))
            self._begin = None

    def seconds(self) -> float:
        """Sum over the pairs; ask only after a letter that was sent later has arrived."""
        total = sum(begin.elapsed_time(end) for begin, end in self._pairs) / 1000.0
        self._pairs.clear()
        return float(total)


class DeviceNorms:
    """Measures tensors on a device; each result is a tensor there, of sums of squares in float64 [slots].

    Norms are accumulated in float64, so that 1e-30 and 1e30 keep their value (float32 on MPS, which has no float64).
    """

    def __init__(self, table: Slots, copies: CopyStream) -> None:
        self.table = table
        self.copies = copies
        self._places: dict[tuple[int, ...], Places] = {}
        self._held: list[torch.Tensor] = []
        self._holding: list[torch.Tensor] = []
        self._fits: bool | None = None

    def gradients(self, scale: torch.Tensor | None = None) -> tuple[Places, torch.Tensor]:
        """Sums of squares of the gradients as they are now, divided by `scale` squared."""
        grads = [(i, slot.parameter.grad) for i, slot in enumerate(self.table.slots)]
        present = [(i, grad) for i, grad in grads if grad is not None]
        active = tuple(i for i, _ in present)
        if active not in self._places:
            self._places[active] = self.table.places(lambda p: p.grad is not None)
        squares = self._squares([grad for _, grad in present])
        if scale is not None:
            squares = squares / scale.to(squares.device, squares.dtype) ** 2
        return self._places[active], squares

    def neurons(self, scale: torch.Tensor | None = None) -> tuple[list[tuple[int, int]], torch.Tensor]:
        """∂C/∂b of each layer that has a bias: ([(layer, neurons)], all of them one after another)."""
        sizes, grads = [], []
        for slot in self.table.slots:
            grad = slot.parameter.grad
            if slot.is_bias and grad is not None:
                sizes.append((slot.layer, grad.numel()))
                grads.append(flat_neurons(grad).to(self.copies.device, non_blocking=True))
        values = torch.cat(grads) if grads else torch.empty(0, device=self.copies.device)
        return sizes, values if scale is None else values / scale.to(values.device)

    def can_hold(self) -> bool:
        """True if a copy of the parameters takes at most a quarter of the free memory (asked once)."""
        if self._fits is None:
            needed = sum(s.parameter.numel() * s.parameter.element_size() for s in self.table.slots)
            module: Any = torch.get_device_module(self.copies.device)
            ask = getattr(module, "mem_get_info", None)
            self._fits = ask is None or needed < COPY_SHARE * ask(self.copies.device)[0]
        return self._fits

    def hold(self) -> tuple[Places, torch.Tensor]:
        """Keep a copy of the parameters before a step; their sums of squares."""
        active = [slot.parameter for slot in self.table.slots if slot.parameter.requires_grad]
        self._holding = active
        with torch.no_grad():
            self._held = [parameter.detach().clone() for parameter in active]
            return self.table.places(lambda p: p.requires_grad), self._squares(self._held)

    def moved(self) -> torch.Tensor:
        """Sums of squares of the step taken since `hold`; lets go of the copy."""
        with torch.no_grad():
            torch._foreach_sub_(self._held, [parameter.detach() for parameter in self._holding])
            squares = self._squares(self._held)
        self._held, self._holding = [], []
        return squares

    def release(self) -> None:
        """Let go of the parameters."""
        self._held, self._holding = [], []
        self._places.clear()
        self.table.slots.clear()

    def _squares(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Sums of squares, in the order given; one fused call for each device and type."""
        device = self.copies.device
        kind = torch.float32 if device.type == "mps" else torch.float64
        groups: dict[tuple[torch.device, torch.dtype], list[tuple[int, torch.Tensor]]] = defaultdict(list)
        found: list[torch.Tensor] = [torch.empty(0)] * len(tensors)
        for i, tensor in enumerate(tensors):
            plain = tensor.detach()
            if plain.layout == torch.sparse_coo:
                plain = plain.coalesce().values()  # the number of entries is asked of the device: this waits
            if plain.layout != torch.strided or plain.is_complex():
                found[i] = torch.tensor(square_sum(plain) ** 0.5, dtype=kind, device=device)  # waits
            else:
                groups[plain.device, plain.dtype].append((i, plain))
        for members in groups.values():
            norms = torch._foreach_norm([tensor for _, tensor in members], 2, dtype=kind)
            for (i, _), norm in zip(members, norms, strict=True):
                found[i] = norm.to(device, non_blocking=True)
        if not found:
            return torch.empty(0, dtype=kind, device=device)
        return torch.stack(found) ** 2


def copy_stream_for(device: torch.device) -> CopyStream:
    """The copies of a device: pinned buffers and events where it has them."""
    module: Any = torch.get_device_module(device)
    if device.type == "mps" or not hasattr(module, "Event"):
        return CopyStream(device, None, lambda n: torch.empty(n, dtype=torch.float64))
    return CopyStream(
        device,
        lambda: module.Event(enable_timing=True),
        lambda n: torch.empty(n, dtype=torch.float64, pin_memory=True),
    )


def split_neurons(sizes: Sequence[tuple[int, int]], values: DoubleArray) -> dict[int, FloatArray]:
    """What `DeviceNorms.neurons` sent, by layer; several biases of a layer one after another."""
    found: dict[int, FloatArray] = {}
    start = 0
    for layer, count in sizes:
        values_of = values[start : start + count].astype("f4")
        found[layer] = values_of if layer not in found else _joined(found[layer], values_of)
        start += count
    return found


def _joined(first: FloatArray, second: FloatArray) -> FloatArray:
    import numpy as np

    return np.concatenate([first, second])
