"""Reductions on an accelerator: norms stay there, one asynchronous copy a row brings them to the host.

Nothing here makes the host wait for a CUDA (or other event-keeping) device. Devices without events of their own
(MPS) are read with a copy that does wait; there the default sampling by budget keeps that rare.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gradtui.record.copy_stream import CopyStream, widest_float
from gradtui.record.host_norms import flat_neurons, square_sum
from gradtui.record.slots import Places, Slots
from gradtui.runfile.blocks import DoubleArray, FloatArray

COPY_SHARE = 0.25  # of the device's free memory that the copy of the parameters may take


class DeviceNorms:
    """Measures tensors on a device; each result is a tensor there, of sums of squares in float64 [slots].

    Norms are accumulated in float64, so that 1e-30 and 1e30 keep their value (float32 on MPS, which has no float64).
    """

    def __init__(self, slots: Slots, copies: CopyStream) -> None:
        self.slots = slots
        self.copies = copies
        self._held: list[torch.Tensor] = []
        self._holding: list[torch.Tensor] = []
        self._fits: bool | None = None

    def gradients(self, scale: torch.Tensor | None = None) -> tuple[Places, torch.Tensor]:
        """Sums of squares of the gradients as they are now, divided by `scale` squared."""
        grads = [(i, slot.parameter.grad) for i, slot in enumerate(self.slots.slots)]
        present = [(i, grad) for i, grad in grads if grad is not None]
        active = tuple(i for i, _ in present)
        squares = self._squares([grad for _, grad in present])
        if scale is not None:
            squares = squares / scale.to(squares.device, squares.dtype) ** 2
        return self.slots.places(active), squares

    def neurons(self, scale: torch.Tensor | None = None) -> tuple[list[tuple[int, int]], torch.Tensor]:
        """∂C/∂b of each layer that has a bias: ([(layer, neurons)], all of them one after another)."""
        sizes, grads = [], []
        for slot in self.slots.slots:
            grad = slot.parameter.grad
            if slot.is_bias and grad is not None:
                sizes.append((slot.layer, grad.numel()))
                grads.append(flat_neurons(grad).to(self.copies.device, non_blocking=True))
        values = torch.cat(grads) if grads else torch.empty(0, device=self.copies.device)
        return sizes, values if scale is None else values / scale.to(values.device)

    def can_hold(self) -> bool:
        """True if a copy of the parameters takes at most a quarter of the free memory (asked once)."""
        if self._fits is None:
            needed = sum(s.parameter.numel() * s.parameter.element_size() for s in self.slots.slots)
            module: Any = torch.get_device_module(self.copies.device)
            ask = getattr(module, "mem_get_info", None)
            self._fits = ask is None or needed < COPY_SHARE * ask(self.copies.device)[0]
        return self._fits

    def hold(self) -> tuple[Places, torch.Tensor]:
        """Keep a copy of the parameters before a step; their sums of squares."""
        active = self.slots.trainable()
        self._holding = [self.slots.slots[i].parameter for i in active]
        with torch.no_grad():
            self._held = [parameter.detach().clone() for parameter in self._holding]
            return self.slots.places(active), self._squares(self._held)

    def update(self) -> torch.Tensor:
        """Sums of squares of the step taken since `hold`; lets go of the copy."""
        with torch.no_grad():
            torch._foreach_sub_(self._held, [parameter.detach() for parameter in self._holding])
            squares = self._squares(self._held)
        self._held, self._holding = [], []
        return squares

    def release(self) -> None:
        """Let go of the parameters."""
        self._held, self._holding = [], []
        self.slots.release()

    def _squares(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Sums of squares, in the order given; one fused call for each device and type."""
        device = self.copies.device
        kind = widest_float(device)
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


def split_neurons(sizes: Sequence[tuple[int, int]], values: DoubleArray) -> dict[int, FloatArray]:
    """What `DeviceNorms.neurons` sent, by layer; several biases of a layer one after another."""
    found: dict[int, FloatArray] = {}
    start = 0
    for layer, count in sizes:
        more = values[start : start + count].astype("f4")
        found[layer] = np.concatenate([found[layer], more]) if layer in found else more
        start += count
    return found
