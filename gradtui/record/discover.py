"""Finds the models behind parameters that somebody trains: which modules own them, and what the user calls those.

One walk over everything that Python's garbage collector knows finds the modules; the frames of the running program
have the variables that hold them.
"""

from __future__ import annotations

import functools
import gc
import site
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import CO_OPTIMIZED
from types import FrameType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from gradtui.record.layers import LayerSpec, own_parameters, specs_of

MOST_ITEMS = 10_000  # of a list or dict in which a tensor's name is sought
HELD_BY_FRAME = 3  # references to the variables of a frame that nobody else has: its own, ours, that of the count
LARGE_MODULE = 300  # names of a Python module in which a tensor's name is not sought
OWNER = ("self", "cls")  # what a method calls the object it is of


class ModelSearch:
    """Finds models by their parameters: the first ones everywhere, later ones first in what the program holds.

    A process may make one model after another, and a walk over all objects takes a tenth of a second.

    Args:
        budget: share of the time since the first search that walks over all objects may take after the first.
        clock: seconds.
    """

    def __init__(self, budget: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget, self._clock = budget, clock
        self._began: float | None = None
        self._spent = 0.0
        self.walks = 0

    def models_with(self, wanted: set[int], frames: Sequence[FrameType]) -> list[nn.Module]:
        """The outermost modules that own any of the parameters (by id), as few as will do."""
        began = self._clock()
        if self._began is not None:
            held = list(_held_by(frames))
            found = _covering(held, wanted)
            if wanted <= {id(parameter) for model in found for parameter in model.parameters()}:
                return found
            if self._spent > self._budget * (began - self._began):
                young = [*gc.get_objects(generation=0), *gc.get_objects(generation=1)]
                return _covering([*held, *_all_modules(young)], wanted)
        self._began = began if self._began is None else self._began
        self.walks += 1
        found = _covering(_all_modules(gc.get_objects()), wanted)
        self._spent += self._clock() - began
        return found


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


def find_specs(
    parameters: Sequence[Tensor], ranks: Mapping[int, int], search: ModelSearch | None = None
) -> list[LayerSpec]:
    """The layers of all models that own any of `parameters`, and a layer for each parameter that no model owns.

    Args:
        parameters: what an optimizer steps, or has a gradient.
        ranks: id of a parameter -> when the forward pass first used it, as far as that is known.
        search: finds the models; by default everywhere.
    """
    wanted = {id(parameter) for parameter in parameters}
    frames = _user_frames()
    specs: list[LayerSpec] = []
    models = (search or ModelSearch()).models_with(wanted, frames)
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


def _covering(modules: Iterable[nn.Module], wanted: set[int]) -> list[nn.Module]:
    """The outermost of these modules that own any of the parameters: as few as will do, those with most first."""
    modules = list({id(module): module for module in modules}.values())
    inside = {id(child) for module in modules for child in _children(module)}
    covered: list[tuple[nn.Module, set[int], int]] = []
    for module in modules:
        if id(module) not in inside:
            try:
                own = {id(parameter) for parameter in module.parameters()}
                if own & wanted:
                    covered.append((module, own, sum(1 for _ in module.modules())))
            except RuntimeError:
                continue  # another thread changes it
    # what a compiler made of a model has the same parameters
    covered.sort(key=lambda entry: (isinstance(entry[0], GraphModule), -len(entry[1] & wanted), entry[2]))
    chosen = []
    for module, own, _ in covered:
        if own & wanted:
            chosen.append(module)
            wanted = wanted - own
    return chosen


def _all_modules(objects: Iterable[Any]) -> list[nn.Module]:
    is_module = _IsModule()
    return [found for found in objects if is_module[type(found)]]


class _IsModule(dict[type, bool]):
    """Whether a type is one of modules; each type is looked at once."""

    def __missing__(self, kind: type) -> bool:
        self[kind] = found = issubclass(kind, nn.Module)
        return found


def _held_by(frames: Sequence[FrameType]) -> Iterator[nn.Module]:
    """The modules in variables, in lists and dicts in them, and in attributes of what they hold."""
    for scope in _scopes(frames):
        for value in list(scope.values()):
            yield from _modules_in(value)
            attributes = getattr(value, "__dict__", None) if not isinstance(value, (type, ModuleType)) else None
            if type(attributes) is dict:
                for entry in list(attributes.values()):
                    yield from _modules_in(entry)


def _modules_in(value: Any) -> Iterable[nn.Module]:
    if type(value) in (list, tuple, dict) and len(value) <= MOST_ITEMS:
        return _all_modules(list(value.values()) if type(value) is dict else list(value))
    return _all_modules([value])


def _scopes(frames: Sequence[FrameType]) -> list[Mapping[str, Any]]:
    """Their variables, each scope once, and those of the script."""
    main = sys.modules.get("__main__")
    scopes = [scope for frame in frames for scope in (_locals(frame), frame.f_globals)]
    scopes.append(vars(main) if main is not None else {})
    return list({id(scope): scope for scope in scopes}.values())


def _locals(frame: FrameType) -> Mapping[str, Any]:
    """The variables of a frame.

    Before Python 3.13, a function's frame keeps the dict that it gives away, and with it what the variables held: a
    model would outlive its `del`. So that dict is emptied, unless the program has it too, by `locals()`.
    """
    found = frame.f_locals
    if found is frame.f_globals or not frame.f_code.co_flags & CO_OPTIMIZED or sys.version_info >= (3, 13):
        return found
    variables = dict(found)
    if sys.getrefcount(found) <= HELD_BY_FRAME:
        found.clear()
    return variables


def _children(module: nn.Module) -> Iterator[nn.Module]:
    # the state of a module that is being built, or was taken apart, may be missing
    return (child for child in list(module.__dict__.get("_modules", {}).values()) if child is not None)


def _user_frames() -> list[FrameType]:
    """The frames of the running program, innermost first; the user's own before those of installed packages."""
    others = (*_installed(), "<frozen")
    frames: list[FrameType] = []  # none of ours: a frame in a list of its own would keep all that it holds alive
    frame: FrameType | None = sys._getframe().f_back
    while frame is not None:
        is_ours = frame.f_globals.get("__name__", "").startswith("gradtui.record")
        if not is_ours and not frame.f_code.co_filename.startswith(others):
            frames.append(frame)
        frame = frame.f_back
    return frames


@functools.cache
def _installed() -> tuple[str, ...]:
    """The folders of what is not the user's own."""
    return tuple({*site.getsitepackages(), sysconfig.get_paths()["stdlib"], str(torch.__path__[0])})


def _called(wanted: object, frames: Sequence[FrameType]) -> str | None:
    """The variable, attribute or entry that holds an object, as the user's code has it; None if nobody does."""
    scopes = _scopes(frames)
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
    if type(attributes) is not dict or (isinstance(value, ModuleType) and len(attributes) > LARGE_MODULE):
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
