"""Trained layers and nets in files: tensors and how to build the modules, no code."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pretrain.checkpoint import DAMAGES, load, save
from pretrain.dbn import DBN
from pretrain.errors import DataError
from pretrain.layers import layer_from, spec_of
from pretrain.protocols import Layer
from pretrain.rbm import RBM

SMALL = 1000  # a number up to which it need not be the size of anything
# the modules that a net in a file may consist of
_MODULES: dict[str, type[nn.Module]] = {
    "Linear": nn.Linear,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "Identity": nn.Identity,
    "Dropout": nn.Dropout,
}


@dataclass(frozen=True)
class Stack:
    """Layers from the data up, and `about`, what is known of their training, fit for JSON.

    `recognition` are the recognition weights that the up-down algorithm has untied from those of the RBMs.
    """

    layers: Sequence[Layer]
    about: Mapping[str, Any] = field(default_factory=dict)
    recognition: Sequence[nn.Linear] = ()

    def belief_net(self) -> DBN:
        """The layers as a deep belief net; raises `DataError` if they cannot be one."""
        rbms = [layer for layer in self.layers if isinstance(layer, RBM)]
        if len(rbms) < len(self.layers):
            raise DataError("a deep belief net consists of RBMs (unit rbm), not of autoencoders")
        try:
            net = DBN(rbms)
        except ValueError as error:
            raise DataError(str(error)) from error
        if self.recognition:
            net.recognition = nn.ModuleList(self.recognition)  # type: ignore[assignment]
        return net


def save_stack(path: Path, stack: Stack) -> None:
    """Write the stack to `path`, atomically; raises `DataError` for a layer whose class is not registered."""
    tensors: dict[str, Tensor] = {}
    for number, module in enumerate([*stack.layers, *stack.recognition]):
        tensors.update({f"{number}.{name}": value for name, value in module.state_dict().items()})  # type: ignore[attr-defined]
    recognition = [[module.in_features, module.out_features] for module in stack.recognition]
    facts = {
        "layers": [spec_of(layer) for layer in stack.layers],
        "recognition": recognition,
        "about": dict(stack.about),
    }
    save(path, tensors, facts)


def load_stack(path: Path) -> Stack:
    """The stack that `save_stack` wrote, on the CPU; raises `DataError` for a file that is damaged or another."""
    if not path.exists():
        raise DataError(f"{path.parent} holds no layers: train them with `python -m pretrain fit {path.parent}`")
    tensors, facts = load(path)
    about = _about(path, facts)
    if not facts.get("layers"):
        raise DataError(f"{path} holds no layers: use a file that `python -m pretrain fit` wrote")
    try:
        _check_sizes(facts["layers"], tensors)
        _check_sizes(facts["recognition"], tensors)
        layers = [layer_from(spec) for spec in facts["layers"]]
        recognition = [nn.Linear(inputs, outputs) for inputs, outputs in facts["recognition"]]
        for number, module in enumerate([*layers, *recognition]):
            _fill(module, tensors, f"{number}.")  # type: ignore[arg-type]
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except DAMAGES as error:
        raise DataError(f"{path} is damaged: {error}") from error
    return Stack(layers, about, recognition)


def save_net(path: Path, net: nn.Sequential, about: Mapping[str, Any]) -> None:
    """Write a plain net to `path`, atomically; raises `TypeError` for modules that it cannot hold."""
    modules = []
    for name, module in net.named_children():
        kind = type(module).__name__
        if kind not in _MODULES:
            raise TypeError(f"{name} is a {kind}, which cannot be saved in a file of nets")
        arguments: list[float] = []
        if isinstance(module, nn.Linear):
            arguments = [module.in_features, module.out_features]
        elif isinstance(module, nn.Dropout):
            arguments = [module.p]
        modules.append([name, kind, arguments])
    save(path, dict(net.state_dict()), {"modules": modules, "about": dict(about)})


def load_net(path: Path) -> tuple[nn.Sequential, dict[str, Any]]:
    """The net that `save_net` wrote, on the CPU, and its `about`; raises `DataError` as `load_stack`."""
    tensors, facts = load(path)
    about = _about(path, facts)
    if "modules" not in facts:
        raise DataError(f"{path} holds no net: use a file that `python -m pretrain finetune` wrote")
    try:
        _check_sizes(facts["modules"], tensors)
        modules = OrderedDict((name, _MODULES[kind](*arguments)) for name, kind, arguments in facts["modules"])
        net = nn.Sequential(modules)
        net.load_state_dict(tensors)
    except DAMAGES as error:
        raise DataError(f"{path} is damaged: {error}") from error
    return net.eval(), about


def _about(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    about = facts.get("about")
    if not isinstance(about, dict):
        raise DataError(f"{path} is damaged: it does not say how it was trained")
    return about


def _check_sizes(specs: Any, tensors: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` where a size is claimed that no tensor has, before anything as large is made."""
    sides = {side for tensor in tensors.values() for side in tensor.shape}
    most = max([SMALL, sum(sides)])  # of settings that are no sizes, and of groups of units
    for number in _integers(specs):
        if number > most:
            raise ValueError(f"a layer of {number:.0e} units is claimed")


def _integers(tree: Any) -> Iterator[float]:
    if isinstance(tree, (dict, list)):
        for one in tree.values() if isinstance(tree, dict) else tree:
            yield from _integers(one)
    elif isinstance(tree, (int, float)):
        yield tree


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    module.load_state_dict(own)
