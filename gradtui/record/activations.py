"""Samples of what the layers put out: mean, standard deviation, saturated and dead fraction.

Hooks are on the model during a sampled step alone. An activation function counts for the layer that ran last before
it, be it a module or a function such as `torch.relu`, which a `TorchFunctionMode` sees.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gradtui.record.dtensor import is_sharded
from gradtui.record.hooks import Hook
from gradtui.record.layers import Index, LayerTable, is_anything_compiled, is_compiled
from gradtui.record.measures import ACTIVATION_MEAN, ACTIVATION_STD, DEAD, MEASURES, SATURATED

FLAT = 0.05  # of the largest derivative: below it a unit is saturated
_EDGE = (1.0 - math.sqrt(1.0 - FLAT)) / 2.0  # sigmoid: s(1 − s) = FLAT/4

# where an output is saturated: below the first, above the second number
SATURATING: dict[Any, tuple[float, float]] = {
    **dict.fromkeys((torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, torch.special.expit,
                     functional.sigmoid), (_EDGE, 1.0 - _EDGE)),
    **dict.fromkeys((torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, functional.tanh),
                    (-math.sqrt(1.0 - FLAT), math.sqrt(1.0 - FLAT))),
    functional.softsign: (math.sqrt(FLAT) - 1.0, 1.0 - math.sqrt(FLAT)),
}  # fmt: skip
RECTIFYING = {
    torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_, functional.relu6,
    functional.threshold,
}  # fmt: skip

CHANNELS_FIRST = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm")  # kinds of layers whose units are dimension 1


class Activations:
    """The sample of one step: where the numbers go in a row, and the numbers, on the host or on a device."""

    def __init__(self, places: Index, values: list[float] | Tensor) -> None:
        self.places, self.values = places, values


class ActivationSampler:
    """Puts hooks on the models for one step, and takes them off again.

    Args:
        table: the layers.
        clock: seconds.
    """

    def __init__(self, table: LayerTable, clock: Callable[[], float]) -> None:
        self._table, self._clock = table, clock
        self._handles: list[Any] = []
        self._found: dict[tuple[int, int], Any] = {}
        self._current: int | None = None  # the layer whose forward began or ended last
        self._settled: set[int] = set()  # layers whose activation function has been seen
        self._mode: _Watching | None = None
        self.cost = 0.0  # s

    @property
    def armed(self) -> bool:
        """True while hooks are on."""
        return bool(self._handles)

    def arm(self) -> None:
        """Put the hooks on, unless something is compiled: they would break its graphs, or never be called."""
        begin = self._clock()
        models = [model for model in (ref() for ref in self._table.models.values()) if model is not None]
        if is_anything_compiled() or any(is_compiled(module) for model in models for module in model.modules()):
            return
        self._found.clear()
        self._settled.clear()
        self._current = None
        for layer, ref in self._table.modules.items():
            module = ref()
            if module is not None and not isinstance(module, torch.jit.ScriptModule):
                self._handles.append(module.register_forward_pre_hook(Hook(_Enter(self, layer))))
                self._handles.append(module.register_forward_hook(Hook(_Leave(self, layer)), always_call=True))
        for model in models:
            if not isinstance(model, torch.jit.ScriptModule):
                self._handles.append(model.register_forward_pre_hook(Hook(self._begin), prepend=True))
                self._handles.append(model.register_forward_hook(Hook(self._end), always_call=True))
        self.cost = self._clock() - begin

    def disarm(self) -> Activations | None:
        """Take the hooks off; what was seen, None if nothing was."""
        begin = self._clock()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._close()
        if not self._found:
            return None
        columns = len(MEASURES)
        places = np.array([layer * columns + column for layer, column in self._found], np.intp)
        values: Any = list(self._found.values())
        if any(isinstance(value, Tensor) for value in values):
            device = next(value.device for value in values if isinstance(value, Tensor))
            kind = torch.float32 if device.type == "mps" else torch.float64
            values = torch.stack([torch.as_tensor(value, dtype=kind, device=device) for value in values])
        self._found = {}
        self.cost += self._clock() - begin
        return Activations(places, values)

    # -- during the step --------------------------------------------------------------------------------------

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        if torch.is_grad_enabled() and self._mode is None and not torch.compiler.is_compiling():
            self._mode = _Watching(weakref.ref(self), module)
            self._mode.__enter__()  # type: ignore[no-untyped-call]

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._mode is not None and self._mode.model is module:
            self._close()

    def _close(self) -> None:
        mode, self._mode = self._mode, None
        if mode is not None:
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def enter(self, layer: int) -> None:
        """The forward pass of a layer begins."""
        self._current = layer

    def leave(self, layer: int, output: Any) -> None:
        """It ends."""
        self._current = layer
        if self._mode is None:
            return  # an evaluation, or a call from outside the model
        if isinstance(output, (tuple, list)) and output:
            output = output[0]
        if (
            isinstance(output, Tensor)
            and not is_sharded(output)
            and layer not in self._settled
            and (layer, ACTIVATION_MEAN) not in self._found
        ):
            self._take(layer, output, None)

    def activated(self, function: Any, output: Tensor) -> None:
        """An activation function was called: of the layer that ran last, or of the one it is in if none did there."""
        layer = self._current
        if layer is not None and layer not in self._settled:
            self._settled.add(layer)
            self._take(layer, output, function)

    def _take(self, layer: int, output: Tensor, function: Any) -> None:
        begin = self._clock()
        try:
            with torch.no_grad(), torch._C.DisableTorchFunction():
                self._measure(layer, output.detach(), function)
        except (RuntimeError, TypeError, NotImplementedError):
            pass  # a kind of tensor without such numbers
        self.cost += self._clock() - begin

    def _measure(self, layer: int, values: Tensor, function: Any) -> None:
        if not values.is_floating_point() or values.layout != torch.strided or values.numel() < 2:
            return
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        std, mean = torch.std_mean(values)
        self._keep(layer, ACTIVATION_MEAN, mean)
        self._keep(layer, ACTIVATION_STD, std)
        if function in SATURATING:
            low, high = SATURATING[function]
            outside = torch.count_nonzero((values < low) | (values > high))
            self._keep(layer, SATURATED, outside / values.numel())
        elif function in RECTIFYING and values.dim() > 1:
            first = self._table.layers[layer].kind.startswith(CHANNELS_FIRST)
            units = values.transpose(1, -1) if first else values
            alive = (units != 0).flatten(0, -2).any(0)
            self._keep(layer, DEAD, 1.0 - torch.count_nonzero(alive) / alive.numel())

    def _keep(self, layer: int, measure: int, value: Tensor) -> None:
        self._found[layer, measure] = value.item() if value.is_cpu else value


class _Watching(TorchFunctionMode):
    """Sees the activation functions that a model calls, as modules or as functions."""

    def __init__(self, sampler: Callable[[], ActivationSampler | None], model: nn.Module) -> None:
        super().__init__()
        self._sampler, self.model = sampler, model

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in SATURATING or func in RECTIFYING:
            sampler = self._sampler()
            if sampler is not None and type(output) is Tensor:
                sampler.activated(func, output)
        return output


class _Enter:
    def __init__(self, sampler: ActivationSampler, layer: int) -> None:
        self._sampler, self._layer = sampler, layer

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        self._sampler.enter(self._layer)


class _Leave(_Enter):
    def __call__(self, module: nn.Module, inputs: Any, output: Any = None) -> None:
        self._sampler.leave(self._layer, output)
