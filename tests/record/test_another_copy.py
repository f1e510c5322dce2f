"""An optimizer of another copy of the model than the one that is trained, under `gradtui run`."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from gradtui.record.columns import Columns
from tests.record.test_grad_steps import batches, recorded
from tests.record.watched_nets import perceptron

SAYS = "the loss does not depend on any parameter of the optimizer"


def train(model: nn.Module, optimizer: torch.optim.Optimizer, *, again: bool = False) -> None:
    for x in batches():
        model.zero_grad()
        output = checkpoint(model, x.requires_grad_(), use_reentrant=True) if again else model(x)
        output.square().mean().backward()
        optimizer.step()


def test_it_is_said_and_the_layers_of_the_trained_model_are_there(tmp_path: Path, capfd) -> None:
    def wrong() -> None:
        first = perceptron(6, 5, 4)
        optimizer = torch.optim.SGD(first.parameters(), lr=0.1)
        used = copy.deepcopy(first)
        train(used, optimizer)

    reader = recorded(wrong, tmp_path)
    assert reader is not None and capfd.readouterr().err.count(SAYS) == 1
    assert [event.text for event in reader.events() if SAYS in event.text]
    assert [layer.name for layer in reader.layers()] == ["model.0", "model.2", "first.0", "first.2"]
    values = reader.last(1).measures[0, :, [measure.name for measure in Columns().measures].index("grad_norm")]
    assert (values[:2] > 0).all() and not (values[2:] > 0).any()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["right", "cast", "checkpoint", "two"])
def test_nothing_is_said_of_an_optimizer_of_the_trained_model(kind: str, tmp_path: Path, capfd) -> None:
    def right() -> None:
        model = perceptron(6, 5, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if kind == "two":
            train(model, optimizer)
            model = perceptron(6, 5, 4)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if kind == "cast":
            model = model.to(torch.float64).to(torch.float32)
        train(model, optimizer, again=kind == "checkpoint")

    reader = recorded(right, tmp_path)
    assert reader is not None and SAYS not in capfd.readouterr().err
    assert {layer.name for layer in reader.layers()} == {"0", "2"}
