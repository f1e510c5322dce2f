"""Samples of what the layers put out, for the measures that are taken of it.

Hooks are on the model during a sampled step alone. An activation function counts for the layer that ran last before
it, be it a module or a function such as `torch.relu`, which a `TorchFunctionMode` sees.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gradtui.errors import one_line
from gradtui.format import listed
from gradtui.measures import RECTIFYING, SATURATING
from gradtui.record.columns import Placed
from gradtui.record.compiled_graphs import compiled_graphs
from gradtui.record.copy_stream import is_mps
from gradtui.record.dtensor import is_sharded
from gradtui.record.graph_copy import GraphCopy
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


UNSEEN_FUNCTIONS = (
    "of eager layers beside compiled ones, outputs are sampled before activation functions that are no modules"
)
MOST_IN_VAIN = 5  # samples in a row beside compiled code that never showed some layers, after which that is said
ACTIVATION_MODULES: dict[type, str] = {
    kind: name
    for name in NAMES
    for kind in vars(nn).values()
    if isinstance(kind, type) and kind.__name__.lower() == name.replace("_", "")
}


class ActivationSampler:
    """Puts hooks on the models for one step, and takes them off again; what is compiled is run beside the training.

    Args:
        table: the layers.
        clock: seconds.

    Attributes:
        cost: of the last sample, in seconds.
        note: why something is not sampled, in words; "" if all is.
    """

    def __init__(self, table: LayerTable, clock: Callable[[], float]) -> None:
        self._table, self._clock = table, clock
        self._hooks = ForwardHooks()
        self._found: dict[tuple[int, int], float | Tensor] = {}  # (layer, column) -> number
        self._seen: set[int] = set()  # layers whose output has been measured
        self._current: int | None = None  # the layer whose forward began or ended last
        self._settled: set[int] = set()  # layers whose activation function has been seen
        self._mode: _Watching | None = None
        self._is_mixed = False  # hooks are on eager layers beside compiled ones
        self._compiled: dict[int, int] = {}  # id of a module -> layer, while graphs are watched
        self._device_time: Any = None  # events around a graph that was run on a device
        self._hooked: set[int] = set()  # layers with hooks
        self._ever_seen: set[int] = set()
        self._in_vain = 0  # samples in a row before which some of those were never called
        self.cost = 0.0
        self.note = ""

    @property
    def armed(self) -> bool:
        """True while a sample is to be taken."""
        return bool(self._hooks) or bool(self._compiled)

    def debt(self) -> float:
        """Seconds that a device spent on the last sample beyond its `cost`, once they are known; asked once."""
        events, self._device_time = self._device_time, None
        if events is None:
            return 0.0
        if not events[1].query():
            self._device_time = events
            return 0.0
        return max(0.0, float(events[0].elapsed_time(events[1])) / 1000.0 - self.cost)

    def arm(self) -> None:
        """Get ready for a sample of the step to come.

        Hooks and a mode would change what is compiled, or never be called. Of compiled graphs a copy is run; eager
        layers beside them have hooks, but no mode, which a graph inside an eager model would be compiled again for.
        """
        begin = self._clock()
        models = [model for model in (ref() for ref in self._table.models.values()) if model is not None]
        modules = {id(module) for model in models for module in model.modules()}
        graphs = compiled_graphs
        is_compiled_here = any(is_compiled(module) for model in models for module in model.modules())
        in_graphs = modules & graphs.modules
        self._start_over()
        if is_compiled_here or is_anything_compiled():
            if graphs.missed or (is_compiled_here and not in_graphs):
                self.note = "activations are not sampled of what was compiled before the recording began"
            if in_graphs:
                self._compiled = {key: n for n, key in self._ids() if key in in_graphs}
                graphs.observer = self
            if graphs.missed or (is_compiled_here and not in_graphs):
                return
        is_apart = not (in_graphs or (graphs.inside_modules and is_anything_compiled()))
        self._put_hooks_on(models, with_mode=is_apart)
        self.cost = self._clock() - begin

    def _start_over(self) -> None:
        self._found.clear()
        self._seen.clear()
        self._settled.clear()
        self._current, self._is_mixed = None, False

    def _ids(self) -> list[tuple[int, int]]:
        """Each layer and the id of its module."""
        modules = [(layer, ref()) for layer, ref in self._table.modules.items()]
        return [(layer, id(module)) for layer, module in modules if module is not None]

    def _put_hooks_on(self, models: Sequence[nn.Module], *, with_mode: bool) -> None:
        for layer, ref in self._table.modules.items():
            module = ref()
            if module is None or isinstance(module, torch.jit.ScriptModule) or id(module) in self._compiled:
                continue
            self._hooked.add(layer)
            self._hooks.before(module, _Enter(self, layer))
            self._hooks.after(module, _Leave(self, layer), always=True)
        self._is_mixed = not with_mode
        if not with_mode:
            if self._hooks:
                self.note = self.note or UNSEEN_FUNCTIONS
            self._watch_eager_activations(models)
            return
        for model in models:
            if not isinstance(model, torch.jit.ScriptModule):
                self._hooks.before(model, self._begin, first=True)
                self._hooks.after(model, self._end, always=True)

    def _watch_eager_activations(self, models: Sequence[nn.Module]) -> None:
        for model in models:
            for module in model.modules():
                name = ACTIVATION_MODULES.get(type(module))
                if name is not None and id(module) not in compiled_graphs.modules:
                    self._hooks.after(module, _Activated(self, name))

    def disarm(self) -> Placed | None:
        """Take the hooks off; what was seen, None if nothing was."""
        begin = self._clock()
        self._ever_seen |= self._seen
        unseen = self._hooked - self._ever_seen if is_anything_compiled() else set()
        self._in_vain = self._in_vain + 1 if unseen else 0
        if self._in_vain == MOST_IN_VAIN:
            names = listed([self._table.layers[layer].name for layer in sorted(unseen)])
            self.note = f"no activations were seen of {names}: torch.compile leaves out hooks of eager code inside it"
        self._hooks.remove()
        self._hooked.clear()
        self._compiled = {}
        if compiled_graphs.observer is self:
            compiled_graphs.observer = None
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
        if self._mode is None and not (self._is_mixed and torch.is_grad_enabled()):
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

    # -- of compiled graphs, in the training's thread -----------------------------------------------------------

    def wants(self, graph: GraphCopy) -> bool:
        """True if the outputs of a layer in it have not been seen in this step."""
        return not graph.refusal and any(
            key in graph.modules and layer not in self._seen for key, layer in self._compiled.items()
        )

    def observe(self, graph: GraphCopy, arguments: tuple[Any, ...]) -> None:
        """Run a graph beside the training."""
        begin, cost = self._clock(), self.cost
        try:
            if graph.can_run(arguments):
                events = _events(arguments)
                graph.run(arguments, self)
                if events is not None:
                    events[1].record()
                    self._device_time = events
        except Exception as error:
            graph.refusal = one_line(error)
        if graph.refusal:
            self.note = f"activations are not sampled of a compiled graph ({graph.refusal})"
        self.cost = cost + self._clock() - begin

    def enter_module(self, module: int) -> None:
        """As a hook would tell."""
        layer = self._compiled.get(module)
        if layer is not None:
            self.enter(layer)

    def leave_module(self, module: int, output: Tensor | None) -> None:
        """As a hook would tell."""
        layer = self._compiled.get(module)
        if layer is not None:
            self._current = layer
            if output is not None and layer not in self._settled and layer not in self._seen:
                self._measure(layer, output, None)

    def called(self, function: Any, output: Tensor) -> None:
        """As the mode would tell."""
        try:
            name = ACTIVATION_FUNCTIONS.get(function)
        except TypeError:
            return  # not hashable
        if name is not None:
            self.activated(name, output)

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


class _Activated:
    def __init__(self, sampler: ActivationSampler, function: str) -> None:
        self._sampler, self._function = sampler, function

    def __call__(self, module: nn.Module, inputs: Any, output: Any = None) -> None:
        if isinstance(output, Tensor) and torch.is_grad_enabled():
            self._sampler.activated(self._function, output)


def _events(arguments: Sequence[Any]) -> tuple[Any, Any] | None:
    """Two events of the device of the arguments, if it has any, the first of them recorded."""
    device = next((one.device for one in arguments if isinstance(one, Tensor) and one.device.type != "cpu"), None)
    if device is None or is_mps(device) or not hasattr(torch.get_device_module(device), "Event"):
        return None
    make: Any = torch.get_device_module(device).Event
    events = make(enable_timing=True), make(enable_timing=True)
    events[0].record()
    return events
