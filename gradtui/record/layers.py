"""Which layers a model has, in which order they run, and where their numbers go in a row of the run file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gradtui.record.hooks import Hook
from gradtui.record.measures import BIAS_GRAD_NORM, GRAD_NORM, MEASURES, PARAM_NORM, UPDATE_RATIO, WEIGHT_GRAD_NORM
from gradtui.runfile import NOT_MEASURED, Layer
from gradtui.runfile.blocks import DoubleArray, FloatArray

Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Slot:
    """One parameter that is measured: the layer it belongs to, and whether it is a bias."""

    parameter: nn.Parameter
    layer: int
    is_bias: bool


@dataclass(frozen=True)
class Places:
    """Which slots a sample covers, and where their sums of squares go in the grid [layers × measures].

    Slots are ordered by layer, biases first, so that each group of `kind_starts` is the biases or the weights of
    one layer, and each group of `layer_starts` the one or two kinds of a layer.
    """

    active: tuple[int, ...]
    layer: Index
    kind_starts: Index
    kind_targets: Index
    layer_starts: Index


class ForwardTrace:
    """Notes the order and the shapes of the first forward pass, with hooks that come off again."""

    def __init__(self, model: nn.Module) -> None:
        self.order: list[nn.Module] = []
        self.shapes: dict[int, tuple[tuple[int, ...] | None, tuple[int, ...] | None]] = {}
        self._seen: set[int] = set()
        self._handles: list[Any] = []
        if any(_is_compiled(module) for module in model.modules()):
            return  # forward hooks break compiled graphs, and do not fire once there is one
        for module in model.modules():
            if next(module.parameters(recurse=False), None) is not None:
                self._handles.append(module.register_forward_pre_hook(Hook(self._enter)))
                self._handles.append(module.register_forward_hook(Hook(self._leave)))

    def remove(self) -> None:
        """Take the hooks off and let go of the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.order.clear()

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        if id(module) not in self._seen:
            self._seen.add(id(module))
            self.order.append(module)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if id(module) not in self.shapes:
            self.shapes[id(module)] = (_shape_without_batch(inputs), _shape_without_batch(output))


class LayerTable:
    """The layers of a model in order of execution, and the slots of their parameters.

    A layer is a module that owns parameters directly; its biases are those of them that are named "bias" or begin so.
    A parameter that several layers share is counted at the first of them.
    """

    def __init__(self, model: nn.Module, trace: ForwardTrace) -> None:
        self.layers: list[Layer] = []
        self.slots: list[Slot] = []
        counted: set[int] = set()
        for name, module in _in_order(model, trace.order):
            own = {
                key: parameter
                for key, parameter in module.named_parameters(recurse=False)
                if id(parameter) not in counted and not isinstance(parameter, nn.UninitializedParameter)
            }
            if not own:
                continue
            counted.update(id(parameter) for parameter in own.values())
            biases = [p for key, p in own.items() if key.startswith("bias")]
            weights = [p for key, p in own.items() if not key.startswith("bias")]
            index = len(self.layers)
            self.slots += [Slot(p, index, True) for p in biases if p.numel()]
            self.slots += [Slot(p, index, False) for p in weights if p.numel()]
            self.layers.append(
                Layer(
                    _clean(name) or type(module).__name__,
                    type(module).__name__,
                    {key: tuple(parameter.shape) for key, parameter in own.items()},
                    sum(parameter.numel() for parameter in own.values()),
                    *trace.shapes.get(id(module), (None, None)),
                )
            )

    def places(self, covered: Callable[[nn.Parameter], bool]) -> Places:
        """The places of those slots whose parameter is covered."""
        active = tuple(i for i, slot in enumerate(self.slots) if covered(slot.parameter))
        chosen = [self.slots[i] for i in active]
        kinds = [(slot.layer, slot.is_bias) for slot in chosen]
        kind_starts = [i for i in range(len(kinds)) if i == 0 or kinds[i] != kinds[i - 1]]
        groups = [kinds[i] for i in kind_starts]
        layer_starts = [i for i in range(len(groups)) if i == 0 or groups[i][0] != groups[i - 1][0]]
        columns = len(MEASURES)
        return Places(
            active,
            np.array([groups[i][0] for i in layer_starts], np.intp) * columns,
            np.array(kind_starts, np.intp),
            np.array(
                [layer * columns + (BIAS_GRAD_NORM if bias else WEIGHT_GRAD_NORM) for layer, bias in groups], np.intp
            ),
            np.array(layer_starts, np.intp),
        )

    def empty_grid(self) -> FloatArray:
        """A row in which nothing is measured, float32 [layers × measures]."""
        return np.full(len(self.layers) * len(MEASURES), NOT_MEASURED, np.float32)


def fill_gradients(grid: FloatArray, places: Places, squares: DoubleArray) -> None:
    """Put the gradient norms in the grid [rows, layers × measures], from sums of squares [rows, slots]."""
    if squares.shape[-1]:
        kinds = np.add.reduceat(squares, places.kind_starts, axis=-1)
        grid[..., places.kind_targets] = np.sqrt(kinds)
        grid[..., places.layer + GRAD_NORM] = np.sqrt(np.add.reduceat(kinds, places.layer_starts, axis=-1))


def fill_updates(grid: FloatArray, places: Places, parameters: DoubleArray, updates: DoubleArray) -> None:
    """Put parameter norms and update ratios in one row [layers × measures], from sums of squares [slots].

    A ratio to parameters that are all zero has no meaning and counts as not measured.
    """
    if len(parameters):
        of_layers = np.add.reduceat(np.add.reduceat(parameters, places.kind_starts), places.layer_starts)
        steps = np.add.reduceat(np.add.reduceat(updates, places.kind_starts), places.layer_starts)
        grid[places.layer + PARAM_NORM] = np.sqrt(of_layers)
        some = of_layers != 0
        grid[places.layer[some] + UPDATE_RATIO] = np.sqrt(steps[some] / of_layers[some])


def _in_order(model: nn.Module, executed: Sequence[nn.Module]) -> list[tuple[str, nn.Module]]:
    """Modules in order of execution; one that was not seen to run follows the one defined before it."""
    rank = {id(module): position for position, module in enumerate(executed)}
    last = -1
    keyed = []
    for place, (name, module) in enumerate(model.named_modules()):
        last = rank.get(id(module), last)
        keyed.append(((last, place), name, module))
    return [(name, module) for _, name, module in sorted(keyed, key=lambda entry: entry[0])]


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def _clean(name: str) -> str:
    """The name as the user wrote it, without what `torch.compile` and data parallelism put in front."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod").removeprefix("module.")


def _shape_without_batch(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    return tuple(value.shape[1:]) if isinstance(value, torch.Tensor) and value.dim() else None
