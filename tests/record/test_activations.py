"""Sampled activations: which layer a function outside any module counts for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import gradtui
from gradtui.measures import MEASURES
from gradtui.runfile import Layer, is_measured
from tests.record.columns_of_ours import ACTIVATION_MEAN, ACTIVATION_STD, DEAD
from tests.record.watched_nets import watch_into

LINEAR = Layer("a", "Linear", {}, 1)


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


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softsign"])
def test_saturated_is_where_the_derivative_is_under_5_percent_of_its_maximum(name: str) -> None:
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64, requires_grad=True)
    output = getattr(functional, name)(x)
    (slope,) = torch.autograd.grad(output.sum(), x)
    for side in (x < 0, x >= 0):
        expected = (slope[side] < 0.05 * slope.max()).double().mean()
        found = MEASURES["saturated"].of_outputs(output.detach()[side], name, LINEAR)  # type: ignore[misc]
        assert 0 < expected < 1 and float(found) == pytest.approx(float(expected), abs=1 / 2000)


def test_saturated_and_dead_are_of_some_functions_only() -> None:
    ones = torch.ones(4, 3)
    for name in (None, "relu", "gelu"):
        assert MEASURES["saturated"].of_outputs(ones, name, LINEAR) is None  # type: ignore[misc]
    for name in (None, "sigmoid", "gelu"):
        assert MEASURES["dead"].of_outputs(ones, name, LINEAR) is None  # type: ignore[misc]
    assert MEASURES["dead"].of_outputs(torch.zeros(3), "relu", LINEAR) is None, "no batch"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["relu", "relu6", "threshold"])
def test_dead_is_the_share_of_units_that_are_zero_on_the_whole_batch(name: str) -> None:
    dead = MEASURES["dead"].of_outputs
    assert dead is not None
    output = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.0, 0.0]])
    assert float(dead(output, name, LINEAR)) == pytest.approx(0.6)
    images = torch.zeros(2, 4, 3, 3)  # [images, channels, rows, columns]
    images[1, 2, 0, 1] = 0.1
    assert float(dead(images, name, Layer("c", "Conv2d", {}, 1))) == pytest.approx(0.75)
    assert float(dead(images.permute(0, 2, 3, 1), name, LINEAR)) == pytest.approx(0.75), "units come last"


def test_mean_and_std_are_those_of_the_sampled_output(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(2, 3)
    with gradtui.watch(model, optimizer, every=1, folder=tmp_path) as recorder:
        for _ in range(2):
            model(x).sum().backward()
            optimizer.step()
    row = gradtui.open_run(recorder.path).last(1).measures[0]
    for line, output in zip(row, (model[:2](x), model(x)), strict=True):
        assert line[ACTIVATION_MEAN] == pytest.approx(output.mean().item(), rel=1e-5)
        assert line[ACTIVATION_STD] == pytest.approx(output.std().item(), rel=1e-5)


def test_an_output_of_one_number_has_no_measures(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradtui.watch(model, optimizer, every=1, folder=tmp_path) as recorder:
        for _ in range(2):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
    assert not is_measured(gradtui.open_run(recorder.path).last(1).measures[0, 0, ACTIVATION_MEAN:]).any()
