"""Which layers a model has, and in which order they run."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from gradtui.layer_size import size_of
from gradtui.record.columns import Columns
from gradtui.record.patches import ForwardHooks
from gradtui.record.slots import Slot, Slots, whole_layers
from gradtui.runfile import Layer


@dataclass(frozen=True)
class LayerSpec:
    """A layer as it is found: a module that owns parameters, or a tensor that is trained without one.

    `root` is what the user calls the model it belongs to; several models make it a part of the layer's name.
    """

    root: str
    name: str
    kind: str
    parameters: Mapping[str, torch.Tensor]
    module: nn.Module | None = None
    model: nn.Module | None = None  # the outermost module that it is in
    input_shape: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None


class LayerSource(Protocol):
    """Knows the layers by the first step; may have hooks on the model until then."""

    def specs(self) -> list[LayerSpec]:
        """The layers in order of execution."""

    def remove(self) -> None:
        """Take the hooks off and let go of the model."""


class ForwardTrace:
    """Notes the order and the shapes of the first forward pass of a model, with hooks that come off again."""

    def __init__(self, model: nn.Module, root: str = "") -> None:
        self._model, self._root = weakref.ref(model), root
        self.order: list[nn.Module] = []
        self.shapes: dict[int, tuple[tuple[int, ...] | None, tuple[int, ...] | None]] = {}
        self._seen: set[int] = set()
        self._hooks = ForwardHooks()
        if any(is_compiled(module) for module in model.modules()):
            return  # forward hooks break compiled graphs, and do not fire once there is one
        for module in model.modules():
            if own_parameters(module):
                self._hooks.before(module, self._enter)
                self._hooks.after(module, self._leave)

    def specs(self) -> list[LayerSpec]:
        """The layers in order of execution; raises RuntimeError if the model is no more."""
        model = self._model()
        if model is None:
            raise RuntimeError("the model was freed before the first step")
        specs = specs_of(model, self._root, {id(module): float(rank) for rank, module in enumerate(self.order)})
        unknown = (None, None)
        return [
            replace(spec, input_shape=shapes[0], output_shape=shapes[1])
            for spec in specs
            for shapes in [self.shapes.get(id(spec.module), unknown)]
        ]

    def remove(self) -> None:
        """Take the hooks off and let go of the model.

        Hooks that have been compiled stay, and do nothing: without them the model would be compiled once more.
        """
        if is_anything_compiled():
            self._hooks.silence()
        else:
            self._hooks.remove()
        self.order.clear()

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        if id(module) not in self._seen:
            self._seen.add(id(module))
            self.order.append(module)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if id(module) not in self.shapes:
            self.shapes[id(module)] = (_shape_without_batch(inputs), _shape_without_batch(output))


class LayerTable(Slots):
    """The layers of all models in training, and the slots of their parameters; it grows when a model joins.

    A layer is a module that owns parameters directly, or a tensor trained without a module; what parametrisations
    make a module's weights of counts as the module's own. Its biases are the parameters whose names begin or end with
    "bias", and tensors of one dimension without a module. A parameter that several layers share is counted at the first
    of them.
    """

    def __init__(self, columns: Columns | None = None) -> None:
        super().__init__(columns or Columns())
        self.layers: list[Layer] = []
        self.modules: dict[int, weakref.ref[nn.Module]] = {}  # by layer
        self.models: dict[int, weakref.ref[nn.Module]] = {}  # by id
        self._keys: list[tuple[str, str, tuple[Any, ...]]] = []  # root, name and shapes of each layer
        self._by_key: dict[tuple[str, str, tuple[Any, ...]], list[int]] = {}
        self._counted: set[int] = set()
        self.left_out: list[str] = []  # parameters that have no values

    def __contains__(self, parameter: torch.Tensor) -> bool:
        return id(parameter) in self._counted

    def add(self, specs: Sequence[LayerSpec]) -> None:
        """Add layers; one that was built again takes the place of the one before it that nobody trains any more."""
        taken = {slot.layer for slot in self.slots}
        for spec in specs:
            own = {
                key: parameter
                for key, parameter in spec.parameters.items()
                if id(parameter) not in self._counted and not isinstance(parameter, nn.UninitializedParameter)
            }
            without_values = [key for key, parameter in own.items() if parameter.is_meta]
            self.left_out += [".".join(word for word in (spec.name, key) if word) for key in without_values]
            for key in without_values:
                del own[key]
            if not own:
                continue
            self._counted.update(id(parameter) for parameter in own.values())
            layer = self._place(spec, own, taken)
            if spec.module is not None and spec.model is not None:
                self.modules[layer] = weakref.ref(spec.module)
                self.models[id(spec.model)] = weakref.ref(spec.model)
            self.slots += [Slot(p, layer, key, _is_bias(key, p, spec)) for key, p in own.items() if p.numel()]
        self.slots.sort(key=lambda slot: (slot.layer, not slot.is_bias))
        self.width = len(self.layers) * len(self.columns)
        self._known.clear()
        names = Counter[str]()
        several = len({root for root, _, _ in self._keys if root}) > 1
        for layer, (root, name, _) in enumerate(self._keys):
            whole = ".".join(word for word in (root, name) if word) if several else name
            whole = whole or root or self.layers[layer].kind
            names[whole] += 1  # a module that took another's place, with another shape
            numbered = whole if names[whole] == 1 else f"{whole} ({names[whole]})"
            self.layers[layer] = replace(self.layers[layer], name=numbered)

    @property
    def has_roots(self) -> bool:
        """Whether models have names."""
        return any(root for root, _, _ in self._keys)

    def root_of(self, parameters: set[int]) -> str:
        """What the model is called that has the first of these parameters (by id); "" if it has no name."""
        return next((self._keys[slot.layer][0] for slot in self.slots if id(slot.parameter) in parameters), "")

    def layer_of(self, parameter: torch.Tensor) -> str:
        """What the layer of a parameter is called; "" if it is in none."""
        return next((self.layers[slot.layer].name for slot in self.slots if slot.parameter is parameter), "")

    def drop(self, gone: Callable[[torch.Tensor], bool]) -> None:
        """Let go of parameters; their layers stay, unmeasured."""
        leaving = [slot for slot in self.slots if gone(slot.parameter)]
        self._counted.difference_update(id(slot.parameter) for slot in leaving)
        self.slots = [slot for slot in self.slots if not gone(slot.parameter)]
        self._known.clear()

    def owned(self) -> set[int]:
        """The ids of the parameters whose module is there and has them still."""
        modules = (known() for known in self.modules.values())
        return {id(own) for module in modules if module is not None for own in own_parameters(module).values()}

    def release(self) -> None:
        """Let go of all parameters."""
        super().release()
        self._counted.clear()
        self.modules.clear()
        self.models.clear()

    def note_optimizer(self, number: int, parameters: set[int]) -> bool:
        """Note which layers have any of the parameters (by id) that an optimizer steps; True if that is new."""
        before = self.layers.copy()
        for layer in sorted({slot.layer for slot in self.slots if id(slot.parameter) in parameters}):
            known = self.layers[layer]
            if number not in known.optimizers:
                self.layers[layer] = replace(known, optimizers=(*known.optimizers, number))
        return self.layers != before

    def note_branches(self, found: Mapping[int, set[int]]) -> bool:
        """Note to which last layers each leads, beside those that are known; True if that is new."""
        before = self.layers.copy()
        for layer, ends in found.items():
            known = self.layers[layer]
            self.layers[layer] = replace(known, branches=tuple(sorted(ends.union(known.branches))))
        return self.layers != before

    def subset(self, chosen: Callable[[torch.Tensor], bool]) -> Slots:
        """Those slots whose parameter is chosen, in rows as wide as the table's."""
        mine = (slot for slot in self.slots if chosen(slot.parameter))
        return Slots(self.columns, mine, self.width, whole_layers(self.slots, chosen))

    def _place(self, spec: LayerSpec, own: Mapping[str, torch.Tensor], taken: set[int]) -> int:
        shapes = {name: tuple(parameter.shape) for name, parameter in own.items()}
        key = (spec.root, spec.name, tuple(shapes.items()))
        alike = self._by_key.setdefault(key, [])
        for layer in alike:
            if layer not in taken:
                taken.add(layer)
                return layer
        alike.append(len(self._keys))
        self._keys.append(key)
        count = sum(parameter.numel() for parameter in own.values())
        seen = (spec.input_shape, spec.output_shape)
        size = size_of(spec.module, spec.kind, shapes, count, seen if _is_leaf(spec.module) else (None, None))
        self.layers.append(Layer(spec.name, spec.kind, shapes, count, *seen, size=size))
        return len(self.layers) - 1


def specs_of(model: nn.Module, root: str, rank: Mapping[int, float]) -> list[LayerSpec]:
    """The layers of a model by `rank`, id of a module -> when it runs.

    A module that has none follows the one defined before it.
    """
    last = -1.0
    keyed = []
    makers: set[int] = set()
    for place, (name, module) in enumerate(model.named_modules()):
        if id(module) in makers:
            continue
        if is_parametrized(module):
            makers.update(id(maker) for maker in _parametrizations(module).modules())
        last = rank.get(id(module), last)
        own = own_parameters(module)
        if own:
            kind = _kind(module)
            keyed.append((last, place, LayerSpec(root, _clean(name), kind, own, module, model)))
    return [spec for _, _, spec in sorted(keyed, key=lambda entry: entry[:2])]


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module itself, and those of which parametrisations make its weights."""
    own = dict(module.named_parameters(recurse=False))
    if is_parametrized(module):
        own |= dict(_parametrizations(module).named_parameters())
    return own


def _kind(module: nn.Module) -> str:
    """The class as its author called it, without what parametrisations and FSDP2 make of it."""
    if isinstance(module, torch.jit.ScriptModule):
        return str(module.original_name)
    found = type_before_parametrizations(module)
    bases = [base for base in found.__bases__ if base.__name__ != "FSDPModule"]
    return (bases[0] if bases and len(bases) < len(found.__bases__) else found).__name__


def _parametrizations(module: nn.Module) -> nn.Module:
    return module.get_submodule("parametrizations")


def _is_bias(key: str, parameter: torch.Tensor, spec: LayerSpec) -> bool:
    return key.startswith("bias") or key.endswith("bias") or (spec.module is None and parameter.dim() == 1)


def _is_leaf(module: nn.Module | None) -> bool:
    """True if what goes in and comes out goes through the module's own parameters alone."""
    if module is None:
        return True
    makers = getattr(module, "parametrizations", None)
    return not any(True for child in module.children() if child is not makers for _ in child.parameters())


def is_anything_compiled() -> bool:
    """True if `torch.compile` has compiled anything in this process, a training step perhaps."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    counters: Mapping[str, Mapping[str, int]] = getattr(dynamo, "counters", {})
    # frames are not counted with fullgraph=True
    return bool(counters.get("frames") or counters.get("stats"))


def is_compiled(module: nn.Module) -> bool:
    """True if `torch.compile` was called on the module itself."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def _clean(name: str) -> str:
    """The name as the user wrote it, without what `torch.compile` and data parallelism put in front."""
    return ".".join(word for word in name.split(".") if word != "_orig_mod").removeprefix("module.")


def _shape_without_batch(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    return tuple(value.shape[1:]) if isinstance(value, torch.Tensor) and value.dim() else None
