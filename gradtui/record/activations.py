"""Samples of what the layers put out, for the measures that are taken of it.

Hooks are on the model during a sampled step alone. An activation function counts for the layer that ran last before
it, be it a module or a function such as `torch.relu`, which a `TorchFunctionMode` sees.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gradtui.measures import RECTIFYING, SATURATING
from gradtui.record.columns import Placed
from gradtui.record.dtensor import is_sharded
from gradtui.record.layers import LayerTable, is_anything_compiled, is_compiled
from gradtui.record.patches import ForwardHooks, pop_mode, push_mode

# as `torch.nn.functional` has them; one number of the output comes of each number of the input
NAMES = (
    *SATURATING, *RECTIFYING, "celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu",
    "logsigmoid", "mish", "prelu", "rrelu", "selu", "silu", "softplus", "softshrink", "tanhshrink",
)  # fmt: skip
ACTIVATION_FUNCTIONS: dict[Any, str] = {
    getattr(home, spelling): name
    for name in NAMES
    for home in (torch, Tensor, functional)
    for spelling in (name, f"{name}_")
    if hasattr(home, spelling)
} | {torch.special.expit: "sigmoid"}


class ActivationSampler:
    """Puts hooks on the models for one step, and takes them off again.

    Args:
        table: the layers.
        clock: seconds.
    """

    def __init__(self, table: LayerTable, clock: Callable[[], float]) -> None:
        self._table, self._clock = table, clock
        self._hooks = ForwardHooks()
        self._found: dict[tuple[int, int], float | Tensor] = {}  # (layer, column) -> number
        self._seen: set[int] = set()  # layers whose output has been measured
        self._current: int | None = None  # the layer whose forward began or ended last
        self._settled: set[int] = set()  # layers whose activation function has been seen
        self._mode: _Watching | None = None
        self.cost = 0.0  # s

    @property
    def armed(self) -> bool:
        """True while hooks are on."""
        return bool(self._hooks)

    def arm(self) -> None:
        """Put the hooks on, unless something is compiled: they would break its graphs, or never be called."""
        begin = self._clock()
        models = [model for model in (ref() for ref in self._table.models.values()) if model is not None]
        if is_anything_compiled() or any(is_compiled(module) for model in models for module in model.modules()):
            return
        self._found.clear()
        self._seen.clear()
        self._settled.clear()
        self._current = None
        for layer, ref in self._table.modules.items():
            module = ref()
            if module is not None and not isinstance(module, torch.jit.ScriptModule):
                self._hooks.before(module, _Enter(self, layer))
                self._hooks.after(module, _Leave(self, layer), always=True)
        for model in models:
            if not isinstance(model, torch.jit.ScriptModule):
                self._hooks.before(model, self._begin, first=True)
                self._hooks.after(model, self._end, always=True)
        self.cost = self._clock() - begin

    def disarm(self) -> Placed | None:
        """Take the hooks off; what was seen, None if nothing was."""
        begin = self._clock()
        self._hooks.remove()
        self._close()
        if not self._found:
            return None
        placed = Placed(self._found, len(self._table.columns))
        self._found = {}
        self.cost += self._clock() - begin
        return placed

    # -- during the step --------------------------------------------------------------------------------------

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        if torch.is_grad_enabled() and self._mode is None and not torch.compiler.is_compiling():
            self._mode = _Watching(weakref.ref(self), module)
            push_mode(self._mode)

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._mode is not None and self._mode.model is module:
            self._close()

    def _close(self) -> None:
        mode, self._mode = self._mode, None
        if mode is not None:
            pop_mode(mode)

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
            and layer not in self._seen
        ):
            self._measure(layer, output, None)

    def activated(self, function: str, output: Tensor) -> None:
        """An activation function was called: of the layer that ran last, or of the one it is in if none did there."""
        layer = self._current
        if layer is not None and layer not in self._settled:
            self._settled.add(layer)
            self._measure(layer, output, function)

    def _measure(self, layer: int, output: Tensor, function: str | None) -> None:
        begin = self._clock()
        with torch.no_grad(), torch._C.DisableTorchFunction():
            values = _dense_numbers(output)
            if values is not None:
                if layer in self._seen:  # before its activation function was known
                    self._found = {place: number for place, number in self._found.items() if place[0] != layer}
                self._seen.add(layer)
                for measured_by in self._table.columns.of_outputs:
                    number = measured_by(values.device, values, function, self._table.layers[layer])
                    if number is not None:
                        self._found[layer, measured_by.column] = number
        self.cost += self._clock() - begin


def _dense_numbers(output: Tensor) -> Tensor | None:
    """The numbers, in float32 at least; None for a kind of tensor that has none, or that has no standard deviation."""
    try:
        values = output.detach()
        is_dense = values.is_floating_point() and values.layout == torch.strided and not values.is_nested
        if not is_dense or values.is_meta or values.numel() < 2 or is_functorch_wrapped_tensor(values):
            return None
        return values.float() if values.element_size() < 4 else values
    except (RuntimeError, TypeError):
        return None


class _Watching(TorchFunctionMode):
    """Sees the activation functions that a model calls, as modules or as functions."""

    def __init__(self, sampler: Callable[[], ActivationSampler | None], model: nn.Module) -> None:
        super().__init__()
        self._sampler, self.model = sampler, model

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = ACTIVATION_FUNCTIONS.get(func)
        if name is not None:
            sampler = self._sampler()
            if sampler is not None and type(output) is Tensor:
                sampler.activated(name, output)
        return output


class _Enter:
    def __init__(self, sampler: ActivationSampler, layer: int) -> None:
        self._sampler, self._layer = sampler, layer

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        self._sampler.enter(self._layer)


class _Leave(_Enter):
    def __call__(self, module: nn.Module, inputs: Any, output: Any = None) -> None:
        self._sampler.leave(self._layer, output)
