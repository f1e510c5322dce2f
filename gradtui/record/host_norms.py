"""Reductions in host memory: sums of squares of gradients, parameters and steps.

`python benchmarks/overhead.py --reductions` compares the ways with warm caches: one thread, NumPy's dot 1.3 µs for 30
elements and 20 for 401,408, `torch.dot` 2.3 and 35, `torch._foreach_norm` 1.8 and 45, in float64 144; one `torch.cat`
of a hundred short vectors, reduced at once, 20 µs instead of 88. In a training the caches are cold: there a gradient
of 23,520 elements cost 11 µs with `vector_norm`, 12 with `torch.dot`, 15 with `_foreach_norm`, 17 with NumPy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from gradtui.record.columns import Index
from gradtui.record.slots import PATTERNS, Places, Slots
from gradtui.runfile.blocks import DoubleArray, FloatArray

FOLDED_LATER = 4096  # elements of short gradients that a row can take along as they are
MEDIUM = 32768  # elements up to which a gradient is cheaper reduced by PyTorch, whose code is warm, than by NumPy
BLOCK_ROWS = 128  # steps whose short gradients share a block of memory
FOLD_ROWS = 16  # steps folded at a time
SHORT = 4096  # elements up to which a gradient is cheaper gathered with others than by a call of its own
SCRATCH = 1 << 16  # elements of the piece of a step that is in the cache at a time
PLAIN_TYPES = (nn.Parameter, torch.Tensor)
TINY = 1e-32  # a sum of squares under this, a number, may have lost squares below float32's range
INFINITE = float("inf")
count_of = torch.Tensor.numel
vdot = np.vdot
vector_norm = torch.linalg.vector_norm


@dataclass(frozen=True)
class SlotSquares:
    """Sums of squares [slots of `places`] in float64."""

    places: Places
    squares: DoubleArray


class _Block:
    """Room for the short gradients of some steps; used again when all of them have been folded.

    `targets` are, for each step, where each stack of gradients of one shape goes.
    """

    def __init__(self, size: int, stacks: Sequence[_Stack], rows: int) -> None:
        memory = torch.empty(rows, size)
        self.rows = list(memory.numpy())
        self.targets = [[row[s.start : s.end].view(-1, *s.shape) for s in stacks] for row in memory]
        self.folded = 0


@dataclass(frozen=True)
class _Stack:
    """Short gradients that differ in their first dimension at most: one `torch.cat` takes them all."""

    shape: tuple[int, ...]
    parameters: list[torch.Tensor]
    start: int
    end: int

    @cached_property
    def size(self) -> int:
        """Elements in all."""
        return self.end - self.start


# What is left of the gradients of one step, to be folded into a row later and elsewhere; a bare tuple, as one is made
# at each step. How it is folded; the short gradients one after another, a row of the block, or without a block sums
# of squares; the sums of squares of the others; the block.
RawGradients = tuple["Layout", FloatArray | DoubleArray, list[float], _Block | None]


class Layout:
    """How what was taken of a set of parameters is folded into a row; it waits with the rows, so it holds no parameter.

    Attributes:
        places: where the norms go.
        sizes: elements of each short gradient.
        order: which of the sums of squares, short gradients first, belongs to each slot.
        fold_later: the short gradients are in a block, as they were.
        has_others: there are gradients that are not short.
        free: blocks that can be used again.
    """

    def __init__(self, places: Places, sizes: Index, order: Index, has_others: bool) -> None:
        self.places, self.order, self.has_others = places, order, has_others
        self.starts: Index = np.cumsum(sizes) - sizes
        self.size = int(sizes.sum())
        self.fold_later = self.size <= FOLDED_LATER
        self.free: deque[_Block] = deque()

    def squares(self, raws: Sequence[RawGradients]) -> DoubleArray:
        """Sums of squares [rows, slots of `places`]; gives the rows' memory back, so fold each only once."""
        found: list[DoubleArray] = []
        if self.size:
            shorts: list[Any] = [short for _, short, _, _ in raws]
            if self.fold_later:
                # a few rows at a time, which stay in the cache
                wide = np.empty((FOLD_ROWS, self.size))
                shorts = [
                    square_segments(np.stack(shorts[i : i + FOLD_ROWS]), self.starts, wide[: len(shorts) - i])
                    for i in range(0, len(shorts), FOLD_ROWS)
                ]
                found.append(np.concatenate(shorts))
            else:
                found.append(np.stack(shorts))
        for _, _, _, block in raws:
            if block is not None:
                block.folded += 1
                if block.folded == len(block.rows):
                    block.folded = 0
                    self.free.append(block)
        if self.has_others:
            found.append(np.array([long for _, _, long, _ in raws], np.float64))
        if not found:
            return np.empty((len(raws), 0))
        return np.concatenate(found, axis=1)[:, self.order]


class Gather:
    """The slots of one set of parameters, sorted by how they are best reduced."""

    def __init__(self, slots: Slots, places: Places) -> None:
        chosen = [slots.slots[i].parameter for i in places.active]
        small = [i for i, p in enumerate(chosen) if p.dim() > 0 and p.numel() <= SHORT and p.dtype == torch.float32]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i in small:
            if _is_plain(chosen[i].grad):
                by_shape.setdefault(tuple(chosen[i].shape[1:]), []).append(i)
        self._stacks: list[_Stack] = []
        short: list[int] = []
        end = 0
        for shape, members in by_shape.items():
            if len(members) == 1 and shape:
                continue  # a call of its own is as good
            start, end = end, end + sum(chosen[i].numel() for i in members)
            self._stacks.append(_Stack(shape, [chosen[i] for i in members], start, end))
            short += members
        odd = [i for i, p in enumerate(chosen) if not _is_plain(p.grad)]
        rest = sorted(set(range(len(chosen))) - set(short) - set(odd))
        medium = [i for i in rest if chosen[i].numel() <= MEDIUM]
        long = [i for i in rest if chosen[i].numel() > MEDIUM]
        self._medium = [(chosen[i], TINY * chosen[i].numel(), chosen[i].dtype) for i in medium]
        self._long = [(chosen[i], TINY * chosen[i].numel()) for i in long]
        self._odd = [chosen[i] for i in odd]
        order = np.argsort(np.array(short + medium + long + odd, np.intp))
        sizes = np.array([chosen[i].numel() for i in short], np.intp)
        self._layout = Layout(places, sizes, order, bool(medium or long or odd))
        self._wide = None if self._layout.fold_later else np.empty(end, np.float64)
        self._block = _Block(end, self._stacks, BLOCK_ROWS if self._layout.fold_later else 1)
        self._row = 0

    def take(self) -> RawGradients:
        """The gradients as they are now. Raises a few kinds of errors if they are not as they were."""
        block, row, layout = self._block, self._row, self._layout
        for stack, target in zip(self._stacks, block.targets[row], strict=True):
            grads: Any = [parameter.grad for parameter in stack.parameters]
            # PyTorch would warn of a target that has not the size, as after `parameter.data = …`
            if sum(map(count_of, grads)) != stack.size:
                raise ValueError("a gradient has another shape")
            torch.cat(grads, out=target)
        flat: FloatArray = block.rows[row]
        short: FloatArray | DoubleArray = flat
        if layout.fold_later:
            self._row += 1
            if self._row == len(block.rows):
                self._row = 0
                self._block = layout.free.popleft() if layout.free else _Block(layout.size, self._stacks, BLOCK_ROWS)
        else:
            short = square_segments(flat, layout.starts, self._wide)
        long: list[float] = []
        for parameter, floor, kind in self._medium:
            norm = vector_norm(parameter.grad)
            if norm.dtype is not kind:
                raise TypeError(f"the gradient is now {norm.dtype}")  # a norm in half precision has three digits
            square = norm.item() ** 2
            long.append(square if floor < square < INFINITE else square_sum(parameter.grad))
        for parameter, floor in self._long:
            array = parameter.grad.numpy()  # type: ignore[union-attr]
            square = vdot(array, array).item()
            # vdot does not warn of overflow, as dot does
            long.append(square if floor < square < INFINITE else square_sum(parameter.grad))
        for parameter in self._odd:
            long.append(square_sum(parameter.grad))
        return layout, short, long, block if layout.fold_later else None


def square_segments(rows: FloatArray, starts: Index, wide: DoubleArray | None = None) -> DoubleArray:
    """Sums of squares of the segments of the last axis; in float64, so that neither 1e-30 nor 1e30 leaves the range."""
    sums: DoubleArray = np.add.reduceat(np.multiply(rows, rows, out=wide, dtype=np.float64), starts, axis=-1)
    return sums


class HostNorms:
    """Measures tensors in host memory; each result is there at once.

    Gradients that are `None` are left out, sparse ones count with their coalesced values, half precision is summed in
    float32. Sums of squares that leave float32's range are taken again in float64.
    """

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self._known: dict[tuple[int, ...], Gather] = {}
        self._find_gradients()
        self._before: _HeldParameters | None = None
        self._bias_slots = _bias_slots(slots)

    def gradients(self) -> RawGradients:
        """The gradients as they are now."""
        for parameter in self._absent:
            if parameter.grad is not None:
                self._find_gradients()
                break
        try:
            return self._gather.take()
        except (TypeError, RuntimeError, AttributeError, ValueError):
            # a gradient is missing, or is of another kind than it was
            self._known.clear()
            self._find_gradients()
            return self._gather.take()

    def neurons(self, scale: torch.Tensor | None = None) -> dict[int, FloatArray]:
        """∂C/∂b of each layer that has a bias: layer -> float32 [neurons]."""
        factor = np.float32(1.0 if scale is None else 1.0 / float(scale))
        found = {}
        for layer, parameters in self._bias_slots.items():
            grads = [flat_neurons(p.grad) for p in parameters if p.grad is not None]
            if grads:
                values = grads[0] if len(grads) == 1 else torch.cat(grads)
                found[layer] = values.numpy() * factor  # a copy: the gradients change while this waits
        return found

    def hold(self) -> SlotSquares:
        """Keep a copy of the parameters before a step; their sums of squares."""
        held = self._before
        trainable = [slot.parameter for slot in self.slots.slots if slot.parameter.requires_grad]
        addresses = [parameter.data_ptr() for parameter in trainable]
        if held is None or held.addresses != addresses:
            places = self.slots.places(self.slots.trainable())
            held = self._before = _HeldParameters(trainable, addresses, places)
            self._known.clear()  # sizes may have been exchanged
            self._find_gradients()
        return SlotSquares(held.places, held.take())

    def update(self) -> DoubleArray:
        """Sums of squares of the step taken since `hold`."""
        assert self._before is not None
        return self._before.update()

    def release(self) -> None:
        """Let go of the parameters."""
        self.__dict__.clear()

    def _find_gradients(self) -> None:
        active = self.slots.with_gradient()
        if active not in self._known:
            if len(self._known) >= PATTERNS:
                self._known.clear()
            self._known[active] = Gather(self.slots, self.slots.places(active))
        self._gather: Gather = self._known[active]
        chosen = set(active)
        self._absent: list[torch.Tensor] = [
            slot.parameter for i, slot in enumerate(self.slots.slots) if i not in chosen
        ]


class _HeldParameters:
    """A copy of some parameters before a step, to see afterwards what the step really was."""

    def __init__(self, parameters: list[torch.Tensor], addresses: list[int], places: Places) -> None:
        self.places = places
        self.addresses = addresses  # a parameter may move in memory, be frozen or be set free
        self._parameters = parameters
        self._pairs: list[tuple[Any, Any] | None] = []
        self._slow: dict[int, torch.Tensor] = {}
        for parameter in parameters:
            plain = parameter.dtype in (torch.float32, torch.float64) and parameter.is_contiguous()
            if plain and type(parameter) in PLAIN_TYPES:
                view = parameter.detach().view(-1).numpy()
                self._pairs.append((view, np.empty_like(view)))
            else:
                self._pairs.append(None)
        self._scratch = {kind: np.empty(SCRATCH, kind) for kind in (np.dtype("f4"), np.dtype("f8"))}

    def take(self) -> DoubleArray:
        squares = np.empty(len(self._pairs))
        for i, pair in enumerate(self._pairs):
            if pair is None:
                self._slow[i] = self._parameters[i].detach().clone()
                squares[i] = square_sum(self._slow[i])
            else:
                view, kept = pair
                np.copyto(kept, view)
                squares[i] = _square_of(kept)
        return squares

    def update(self) -> DoubleArray:
        squares = np.empty(len(self._pairs))
        for i, pair in enumerate(self._pairs):
            if pair is None:
                now, then = self._parameters[i].detach(), self._slow.pop(i)
                kind = torch.complex128 if then.is_complex() else torch.float64
                squares[i] = square_sum(now.to(kind) - then.to(kind))
            else:
                view, kept = pair
                scratch = self._scratch[view.dtype]
                total = 0.0
                # piece by piece, so that the difference never leaves the cache
                for start in range(0, len(view), SCRATCH):
                    piece = view[start : start + SCRATCH]
                    step = scratch[: len(piece)]
                    np.subtract(piece, kept[start : start + SCRATCH], out=step)
                    total += _square_of(step)
                squares[i] = total
        return squares


def _is_plain(grad: torch.Tensor | None) -> bool:
    """True if NumPy can look at the gradient as it is."""
    return (
        grad is not None
        and type(grad) is torch.Tensor
        and grad.layout == torch.strided
        and grad.dtype in (torch.float32, torch.float64)
        and grad.device.type == "cpu"
        and not grad.requires_grad
    )


def flat_neurons(grad: torch.Tensor) -> torch.Tensor:
    """∂C/∂b, float32 [neurons]; the absolute value where it is complex."""
    grad = grad.detach().reshape(-1)
    return (grad.abs() if grad.is_complex() else grad).float()


def square_sum(tensor: torch.Tensor | None) -> float:
    """Sum of squares of any tensor, right over the whole range of its type; the careful way.

    Sparse: its coalesced values. Complex: of the absolute values. Synchronises if the tensor is on a device.
    """
    if tensor is None:
        return 0.0
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    flat = tensor.cpu().to(torch.float64 if tensor.dtype == torch.float64 else torch.float32).numpy().ravel()
    return _square_of(flat)


def _square_of(flat: Any) -> float:
    square = vdot(flat, flat).item()
    if TINY * len(flat) < square < INFINITE or flat.dtype != np.float32:
        return float(square)
    wide = flat.astype(np.float64)
    return float(vdot(wide, wide))


def _bias_slots(slots: Slots) -> dict[int, list[torch.Tensor]]:
    by_layer: dict[int, list[torch.Tensor]] = {}
    for slot in slots.slots:
        if slot.is_bias:
            by_layer.setdefault(slot.layer, []).append(slot.parameter)
    return by_layer
