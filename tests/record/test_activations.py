"""Sampled activations: which layer a function outside any module counts for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import gradtui
from gradtui.runfile import is_measured
from tests.record.columns_of_ours import ACTIVATION_MEAN, DEAD
from tests.record.watched_nets import watch_into


class Net(nn.Module):
    """Two layers and functional ReLUs; the second layer's units are all dead."""

    def __init__(self, root: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        nn.init.constant_(self.b.bias, -100.0)
        self.scale = nn.Parameter(torch.ones(1)) if root else 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.b(functional.relu(self.a(x) * self.scale)))
        return self.c(hidden)


class Gate(nn.Module):
    """A layer with a parameter of its own that calls a function itself."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.full((8,), -100.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.shift)


def sampled(model: nn.Module, path: Path) -> dict[str, list[float | None]]:
    """Layer -> its newest mean activation and dead fraction, None where they were not sampled."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch_into(model, optimizer, every=1, budget=1.0, path=path):
        for _ in range(8):
            optimizer.zero_grad()
            model(torch.randn(16, 3)).square().mean().backward()
            optimizer.step()
    reader = gradtui.open_run(path)
    rows = reader.last(8).measures[:, :, [ACTIVATION_MEAN, DEAD]]
    newest = {}
    for i, layer in enumerate(reader.layers()):
        known = [rows[is_measured(rows[:, i, k]), i, k] for k in range(2)]
        newest[layer.name] = [float(values[-1]) if len(values) else None for values in known]
    return newest


@pytest.mark.parametrize("root", [False, True])
def test_a_function_counts_for_the_layer_before_it_though_the_model_has_a_parameter_itself(
    root: bool, tmp_path: Path
) -> None:
    found = sampled(Net(root), tmp_path / "a.gradtui")
    assert found["b"] == [0.0, 1.0]
    mean, dead = found["a"]
    assert mean is not None and mean > 0 and dead is not None and dead < 1
    assert found["c"][1] is None


def test_a_function_within_a_layer_counts_for_that_layer(tmp_path: Path) -> None:
    found = sampled(nn.Sequential(nn.Linear(3, 8), Gate(), nn.Linear(8, 2)), tmp_path / "a.gradtui")
    assert found["1"] == [0.0, 1.0]
    assert found["0"][1] is None and found["2"][1] is None
