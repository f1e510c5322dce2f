"""Finds the models behind parameters that somebody trains: which modules own them, and what the user calls those.

One walk over everything that Python's garbage collector knows finds the modules; the frames of the running program
have the variables that hold them.
"""

from __future__ import annotations

import gc
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from gradtui.record.layers import LayerSpec, own_parameters, specs_of

MOST_ITEMS = 10_000  # of a list or dict in which a tensor's name is sought
OWNER = ("self", "cls")  # what a method calls the object it is of


class Discovered:
    """Layers that were found, as a source for a recording."""

    def __init__(self, specs: list[LayerSpec]) -> None:
        self._specs = specs

    def specs(self) -> list[LayerSpec]:
        """The layers in order of execution."""
        return self._specs

    def remove(self) -> None:
        """Let go of them."""
        self._specs = []


def find_specs(parameters: Sequence[Tensor], ranks: Mapping[int, int]) -> list[LayerSpec]:
    """The layers of all models that own any of `parameters`, and a layer for each parameter that no model owns.

    Args:
        parameters: what an optimizer steps, or has a gradient.
        ranks: id of a parameter -> when the forward pass first used it, as far as that is known.
    """
    wanted = {id(parameter) for parameter in parameters}
    frames = _user_frames()
    specs: list[LayerSpec] = []
    models = _models_with(wanted)
    # in the order of their first use, those that are not used last
    models.sort(key=lambda model: min((ranks.get(id(p), sys.maxsize) for p in model.parameters()), default=sys.maxsize))
    for model in models:
        root = _called(model, frames) or type(model).__name__.lower()
        first_use = {
            id(module): float(min(used))
            for module in model.modules()
            if (used := [ranks[id(p)] for p in own_parameters(module).values() if id(p) in ranks])
        }
        specs += specs_of(model, root, first_use)
        wanted -= {id(parameter) for parameter in model.parameters()}
    loose = sorted((p for p in parameters if id(p) in wanted), key=lambda p: ranks.get(id(p), sys.maxsize))
    for number, parameter in enumerate(loose, 1):
        name = _called(parameter, frames) or f"tensor {number}"
        specs.append(LayerSpec("", name, type(parameter).__name__, {name: parameter}))
    return specs


def specs_of_inputs(inputs: Mapping[str, Tensor], ranks: Mapping[int, int]) -> list[LayerSpec]:
    """The layers of what a training takes gradients by: those of its models, or by the names it gives the tensors.

    "hidden.weight" is of the layer "hidden", which is of the kind that a model has which is built alike.
    """
    if any(isinstance(tensor, nn.Parameter) for tensor in inputs.values()) or all(map(str.isdigit, inputs)):
        return find_specs(list(inputs.values()), ranks)
    model = _model_like(inputs)
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in inputs.items():
        layer, _, key = name.rpartition(".")
        layers.setdefault(layer or name, {})[key] = tensor
    kinds = {name: type(module).__name__ for name, module in model.named_modules()} if model is not None else {}
    return [LayerSpec("", name, kinds.get(name, "Tensor"), own) for name, own in layers.items()]


def _model_like(inputs: Mapping[str, Tensor]) -> nn.Module | None:
    """A model whose parameters have the same names and shapes."""
    shapes = {name: tensor.shape for name, tensor in inputs.items()}
    for found in gc.get_objects():
        # a model that is being built, or was taken apart, may lack its state
        is_whole = issubclass(type(found), nn.Module) and "_modules" in found.__dict__
        if is_whole and {name: parameter.shape for name, parameter in found.named_parameters()} == shapes:
            model: nn.Module = found
            return model
    return None


def _models_with(wanted: set[int]) -> list[nn.Module]:
    """The outermost modules that own any of the parameters: as few as will do, those with most of them first."""
    modules = [found for found in gc.get_objects() if issubclass(type(found), nn.Module)]
    inside = {id(child) for module in modules for child in _children(module)}
    covered: list[tuple[nn.Module, set[int], int]] = []
    for module in modules:
        if id(module) not in inside:
            own = {id(parameter) for parameter in module.parameters()}
            if own & wanted:
                covered.append((module, own, sum(1 for _ in module.modules())))
    # what a compiler made of a model has the same parameters
    covered.sort(key=lambda entry: (isinstance(entry[0], GraphModule), -len(entry[1] & wanted), entry[2]))
    chosen = []
    for module, own, _ in covered:
        if own & wanted:
            chosen.append(module)
            wanted = wanted - own
    return chosen


def _children(module: nn.Module) -> Iterator[nn.Module]:
    # the state of a module that is being built, or was taken apart, may be missing
    return (child for child in list(module.__dict__.get("_modules", {}).values()) if child is not None)


def _user_frames() -> list[FrameType]:
    """The frames of the running program, innermost first; the user's own before those of installed packages."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    installed = tuple({*site.getsitepackages(), sysconfig.get_paths()["stdlib"], str(torch.__path__[0])})
    own = [frame for frame in frames if not frame.f_code.co_filename.startswith((*installed, "<frozen"))]
    return [frame for frame in own if not frame.f_globals.get("__name__", "").startswith("gradtui.record")]


def _called(wanted: object, frames: Sequence[FrameType]) -> str | None:
    """The variable, attribute or entry that holds an object, as the user's code has it; None if nobody does."""
    scopes: list[Mapping[str, Any]] = []
    for frame in frames:
        scopes += [frame.f_locals, frame.f_globals]
    main = sys.modules.get("__main__")
    scopes.append(vars(main) if main is not None else {})
    held = {id(value): name for scope in reversed(scopes) for name, value in _variables(scope)}
    name = held.get(id(wanted))
    for scope in scopes:
        for holder, value in list(scope.items()):
            found, others = _within(wanted, holder, value)
            # the variable of a loop over a list holds one of its entries after the other
            if found is not None and (name is None or not all(id(other) in held for other in others)):
                return found
    return name


def _variables(scope: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The variables of a scope by which a person would call what they hold, the first one for each last."""
    named = [(name, value) for name, value in list(scope.items()) if not name.startswith("__") and name not in OWNER]
    return named[::-1]


def _within(wanted: object, name: str, value: Any) -> tuple[str | None, Sequence[object]]:
    """The name of an object that `value` has as an attribute or an entry, and what stands beside it in a list."""
    if type(value) in (list, tuple, dict):
        return _entry(wanted, name, value)
    attributes = getattr(value, "__dict__", None) if not isinstance(value, type) else None
    if type(attributes) is not dict:
        return None, ()
    is_module = isinstance(value, nn.Module)
    for key, entry in list(attributes.items()):
        if entry is wanted and not is_module:
            return key, ()
        if type(entry) in (list, tuple, dict) and not isinstance(value, ModuleType) and not key.startswith("_"):
            found, others = _entry(wanted, key, entry)
            if found is not None:
                return found, others
    return None, ()


def _entry(wanted: object, name: str, values: Any) -> tuple[str | None, Sequence[object]]:
    """The name of an object in a list, tuple or dict, and all that is in there."""
    if len(values) > MOST_ITEMS:
        return None, ()
    entries = list(values.items()) if type(values) is dict else list(enumerate(values))
    key = next((key for key, entry in entries if entry is wanted), None)
    if key is None:
        return None, ()
    return key if isinstance(key, str) else f"{name}[{key!r}]", [entry for _, entry in entries]
