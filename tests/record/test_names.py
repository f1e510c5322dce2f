"""What a model or a tensor is called that somebody trains: as the user's own code reaches it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from gradtui.record.discover import find_specs


def names(parameters: Iterable[Tensor]) -> list[str]:
    return [spec.root for spec in find_specs(list(parameters), {})]


class Layer(nn.Linear):
    """Trains itself, as in the forward-forward algorithm."""

    def names(self) -> list[str]:
        return names(self.parameters())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stack = [Layer(2, 2), Layer(2, 2)]  # no ModuleList

    def names(self) -> list[str]:
        return [name for layer in self.stack for name in layer.names()]


class Trainer:
    def __init__(self) -> None:
        self.critic = nn.Linear(2, 2)
        self.experts = {"left": nn.Linear(2, 2), "right": nn.Linear(2, 2)}

    def get(self, name: str) -> Iterable[Tensor]:
        return (self.critic if name == "critic" else self.experts[name]).parameters()

    def names(self) -> list[str]:
        return [name for net in ("critic", "left", "right") for name in names(self.get(net))]


def test_a_variable_is_the_name_also_if_a_list_has_the_model_too() -> None:
    encoder, decoder = nn.Linear(2, 2), nn.Linear(2, 2)
    models = [encoder, decoder]
    assert names(p for net in models for p in net.parameters()) == ["encoder", "decoder"]


def test_an_entry_of_a_list_is_not_called_after_the_variable_of_a_loop() -> None:
    folds = [nn.Linear(2, 2) for _ in range(3)]
    assert [name for net in folds for name in names(net.parameters())] == ["folds[0]", "folds[1]", "folds[2]"]


def test_models_in_a_list_of_a_module_are_called_after_the_list() -> None:
    net = Net()
    assert net.names() == ["stack[0]", "stack[1]"]


def test_models_of_an_object_are_called_after_its_attributes() -> None:
    assert Trainer().names() == ["critic", "left", "right"]


def test_a_method_does_not_call_its_own_object_self() -> None:
    def name_of(make: Callable[[], Layer]) -> list[str]:
        return make().names()

    assert name_of(lambda: Layer(2, 2)) == ["layer"]  # nobody holds it: its class


def test_tensors_of_two_lists() -> None:
    weights, biases = [torch.zeros(2) for _ in range(2)], [torch.zeros(2)]
    specs = find_specs([*weights, *biases], {})
    assert [spec.name for spec in specs] == ["weights[0]", "weights[1]", "biases[0]"]


def test_to_look_for_names_keeps_nothing_alive_and_leaves_what_locals_gave() -> None:
    def program() -> tuple[weakref.ref[nn.Module], dict[str, object]]:
        net = nn.Linear(2, 2)
        mine = locals()
        find_specs([*net.parameters()], {})
        seen, kept = weakref.ref(net), dict(mine)
        del net, mine
        return seen, kept

    def bare() -> bool:
        net = nn.Linear(2, 2)
        roots = [spec.root for spec in find_specs([*net.parameters()], {})]
        seen = weakref.ref(net)
        del net
        return seen() is None and roots == ["net"]

    assert bare()
    assert set(program()[1]) >= {"net"}
