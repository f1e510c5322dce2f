"""Numbers on their way from a device to the host, without waiting for it.

A device without events of its own (MPS) is read with a copy that does wait; there the default sampling by budget keeps
that rare.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gradtui.runfile.blocks import DoubleArray

MOST_COPIES = 64  # copies that may be under way before rows are left out


def is_mps(device: torch.device) -> bool:
    """True for Apple's GPU, which has no float64 and no events to ask."""
    return device.type == "mps"


def widest_float(device: torch.device) -> torch.dtype:
    """The widest floating point type of a device."""
    return torch.float32 if is_mps(device) else torch.float64


class PendingCopy:
    """Numbers on their way to the host. `is_complete` never waits; `read` must only follow it, except at the end."""

    def __init__(self, stream: CopyStream, buffer: torch.Tensor, count: int, event: Any) -> None:
        self._stream, self._buffer, self._count, self._event = stream, buffer, count, event

    def is_complete(self) -> bool:
        """True once the copy is complete."""
        return self._event is None or bool(self._event.query())

    def read(self) -> DoubleArray:
        """The numbers, float64; gives the buffer back. Waits for the device if they have not arrived."""
        if self._event is not None and not self._event.query():
            self._event.synchronize()  # host synchronisation, at close only
        values: DoubleArray = self._buffer[: self._count].double().numpy().copy()
        self._stream.free[len(self._buffer)].append(self._buffer)
        self._stream.under_way -= 1
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
        """True while so much is under way that the next row should be left out."""
        return self.under_way >= MOST_COPIES

    def send(self, tensors: Sequence[torch.Tensor]) -> PendingCopy:
        """Copy the numbers of all tensors, one after another, without waiting."""
        kind = widest_float(self.device)
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
        """Sum over the pairs; ask only after a copy that was sent later is complete."""
        total = sum(begin.elapsed_time(end) for begin, end in self._pairs) / 1000.0
        self._pairs.clear()
        return float(total)


def copy_stream_for(device: torch.device) -> CopyStream:
    """The copies from a device: pinned buffers and events where it has them."""
    module: Any = torch.get_device_module(device)
    if is_mps(device) or not hasattr(module, "Event"):
        return CopyStream(device, None, lambda n: torch.empty(n, dtype=torch.float64))
    return CopyStream(
        device,
        lambda: module.Event(enable_timing=True),
        lambda n: torch.empty(n, dtype=torch.float64, pin_memory=True),
    )
