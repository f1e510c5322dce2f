"""The parameters that are measured together, and where what is measured of them goes in a row of the run file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradtui.measures import Norm
from gradtui.record.columns import Columns, Index, Placed
from gradtui.record.dtensor import is_sharded
from gradtui.runfile import NOT_MEASURED
from gradtui.runfile.blocks import DoubleArray, FloatArray

PATTERNS = 16  # sets of parameters, as those that have a gradient, whose places are remembered


@dataclass(frozen=True)
class Slot:
    """One parameter that is measured: the layer it belongs to, what it is called there, and whether it is a bias."""

    parameter: Tensor
    layer: int
    name: str
    is_bias: bool


@dataclass(frozen=True)
class Norms:
    """Norms of one kind: which of the sums of squares that `Places.sums` gives they are the roots of, and their places.

    Both are [norms].
    """

    sums: Index
    places: Index


@dataclass(frozen=True, eq=False)
class Places:
    """Which slots a sample covers, and where the norms over them go in a row [layers × measures].

    Slots are ordered by layer, biases first, so that each group of `kind_starts` is the biases or the others of one
    layer, and each group of `layer_starts` the one or two kinds of a layer.
    """

    active: tuple[int, ...]
    kind_starts: Index
    layer_starts: Index
    gradients: Norms
    parameters: Norms
    updates: Norms
    relative_updates: Norms

    def sums(self, squares: DoubleArray) -> DoubleArray:
        """Sums over the biases and the others of each layer, then over whole layers: [rows, slots] -> [rows, sums]."""
        kinds = np.add.reduceat(squares, self.kind_starts, axis=-1)
        return np.concatenate([kinds, np.add.reduceat(kinds, self.layer_starts, axis=-1)], axis=-1)


class Slots:
    """Parameters that are measured together, ordered by layer, biases first.

    Args:
        slots: the parameters.
        width: numbers in a row: layers × measures.
        columns: what is measured.
        layers: those that measures of whole layers are taken of here: layer -> its parameters by name.
    """

    def __init__(
        self,
        columns: Columns,
        slots: Iterable[Slot] = (),
        width: int = 0,
        layers: Mapping[int, Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.slots = sorted(slots, key=lambda slot: (slot.layer, not slot.is_bias))
        self.width = width
        self.columns = columns
        self._layers = dict(layers or {}) if columns.of_parameters else {}
        self._known: dict[tuple[int, ...], Places] = {}

    def trainable(self) -> tuple[int, ...]:
        """The slots whose parameters need a gradient."""
        return tuple(i for i, slot in enumerate(self.slots) if slot.parameter.requires_grad)

    def with_gradient(self) -> tuple[int, ...]:
        """The slots whose parameters have a gradient now."""
        return tuple(i for i, slot in enumerate(self.slots) if slot.parameter.grad is not None)

    def places(self, active: tuple[int, ...]) -> Places:
        """The places of some slots; the same object whenever they are the same."""
        if active not in self._known:
            if len(self._known) >= PATTERNS:
                self._known.clear()
            self._known[active] = self._places(active)
        return self._known[active]

    def measured_by_functions(self, scale: Tensor | None = None) -> Placed | None:
        """What the functions of parameters give of each layer, as it is now; None if that is nothing.

        `scale` is what the gradients are multiplied by.
        """
        found = {}
        with torch.no_grad(), torch._C.DisableTorchFunction():
            for layer, parameters in self._layers.items():
                values = {name: parameter.detach() for name, parameter in parameters.items()}
                gradients = {name: _gradient(parameter, scale) for name, parameter in parameters.items()}
                device = next(iter(values.values())).device
                for function in self.columns.of_parameters:
                    number = function(device, values, gradients)
                    if number is not None:
                        found[layer, function.column] = number
        return Placed(found, len(self.columns)) if found else None

    def empty_grid(self) -> FloatArray:
        """A row in which nothing is measured, float32 [layers × measures]."""
        return np.full(self.width, NOT_MEASURED, np.float32)

    def release(self) -> None:
        """Let go of all parameters."""
        self.slots.clear()
        self._layers.clear()
        self._known.clear()

    def _places(self, active: tuple[int, ...]) -> Places:
        kinds = [(self.slots[i].layer, self.slots[i].is_bias) for i in active]
        kind_starts = [i for i in range(len(kinds)) if i == 0 or kinds[i] != kinds[i - 1]]
        groups = [kinds[i] for i in kind_starts]
        layer_starts = [i for i in range(len(groups)) if i == 0 or groups[i][0] != groups[i - 1][0]]
        layers = [groups[i][0] for i in layer_starts]

        def norms(of: str, relative_to: str | None) -> Norms:
            found: list[tuple[int, int]] = []  # number of the sum, place in the row
            for column, norm in self.columns.norms:
                if (norm.of, norm.relative_to) == (of, relative_to):
                    of_kinds = [(i, layer) for i, (layer, bias) in enumerate(groups) if _is_over(norm, bias)]
                    of_layers = [(len(groups) + i, layer) for i, layer in enumerate(layers)]
                    chosen = of_layers if norm.over == "all" else of_kinds
                    found += [(number, layer * len(self.columns) + column) for number, layer in chosen]
            return Norms(np.array([number for number, _ in found], np.intp), np.array([p for _, p in found], np.intp))

        return Places(
            active,
            np.array(kind_starts, np.intp),
            np.array(layer_starts, np.intp),
            norms("gradients", None),
            norms("parameters", None),
            norms("updates", None),
            norms("updates", "parameters"),
        )


def whole_layers(slots: Iterable[Slot], chosen: Callable[[Tensor], bool]) -> dict[int, dict[str, Tensor]]:
    """The layers whose first parameter is chosen, with all their parameters; none that is sharded over processes."""
    layers: dict[int, dict[str, Tensor]] = {}
    for slot in slots:
        layers.setdefault(slot.layer, {})[slot.name] = slot.parameter
    return {
        layer: parameters
        for layer, parameters in layers.items()
        if chosen(next(iter(parameters.values()))) and not any(map(is_sharded, parameters.values()))
    }


def _is_over(norm: Norm, is_bias: bool) -> bool:
    return norm.over == ("biases" if is_bias else "others")


def _gradient(parameter: Tensor, scale: Tensor | None) -> Tensor | None:
    grad = parameter.grad
    if grad is None or scale is None:
        return None if grad is None else grad.detach()
    return grad.detach() / torch.as_tensor(scale).to(grad.device)
