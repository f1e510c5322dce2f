"""Parameters that are on no device, take another shape, are replaced or deleted while a training is recorded."""

from __future__ import annotations

import gc
import sys
import textwrap
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradtui
from gradtui.options import RecordOptions
from gradtui.recorded_command import prepare
from gradtui.runfile import open_run
from tests.forked_python import run


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.ones(4, 4)).square().mean().backward()
        optimizer.step()


def norm_of(module: nn.Module) -> float:
    return sum(float(p.grad.square().sum()) for p in module.parameters() if p.grad is not None) ** 0.5


def measured(recorder: gradtui.Recorder, measure: str = "grad_norm") -> tuple[list[str], np.ndarray]:
    assert recorder.path is not None
    with open_run(recorder.path) as reader:
        column = [one.name for one in reader.measures].index(measure)
        return [layer.name for layer in reader.layers()], reader.newer(0).measures[:, :, column]


def test_a_parameter_on_the_meta_device_is_left_out_and_the_rest_is_measured(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradtui.errors._said", set())
    net = two_layers()
    whole = nn.ModuleDict({"net": net, "unused": nn.Linear(4, 4, device="meta"), "partly": nn.Linear(4, 4)})
    whole["partly"].bias = nn.Parameter(torch.empty(4, device="meta"))
    optimizer = torch.optim.SGD(whole.parameters(), 0.1)
    with gradtui.watch(whole, optimizer, every=1) as recorder:
        train(net, optimizer, 5)
    names, norms = measured(recorder)
    assert names == ["net.0", "net.1", "partly"] and norms.shape == (5, 3)
    assert norms[-1, :2] == pytest.approx([norm_of(net[0]), norm_of(net[1])], rel=1e-6)
    (line,) = capfd.readouterr().err.splitlines()
    assert "unused.weight, unused.bias" in line and "partly.bias" in line and "meta device" in line


def test_a_parameter_that_takes_another_shape_is_measured_on_without_a_warning() -> None:
    net = two_layers()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with warnings.catch_warnings(), gradtui.watch(net, optimizer, every=1, update_every=1) as recorder:
        warnings.simplefilter("error")
        train(net, optimizer, 3)
        for rows in (2, 6, 1):
            optimizer.zero_grad()
            net[1].weight.data, net[1].bias.data = torch.randn(rows, 4), torch.randn(rows)
            train(net, optimizer, 3)
            assert recorder.path is not None
            last = [norm_of(net[0]), norm_of(net[1])]
    _, norms = measured(recorder)
    assert norms.shape == (12, 2) and np.isfinite(norms).all() and norms[-1] == pytest.approx(last, rel=1e-6)


def test_a_layer_that_is_replaced_is_let_go_of_and_the_new_one_is_measured() -> None:
    net = two_layers()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with gradtui.watch(net, optimizer, every=1, update_every=1) as recorder:
        train(net, optimizer, 3)
        before = [weakref.ref(parameter) for parameter in net[1].parameters()]
        net[1] = nn.Linear(4, 3)
        del optimizer.param_groups[0]["params"][2:]
        optimizer.state.clear()
        optimizer.add_param_group({"params": list(net[1].parameters())})
        train(net, optimizer, 3)
        gc.collect()
        assert not any(ref() is not None for ref in before)
    names, norms = measured(recorder)
    assert names == ["0", "1", "1 (2)"] and norms.shape == (6, 3)
    assert norms[-1, [0, 2]] == pytest.approx([norm_of(net[0]), norm_of(net[1])], rel=1e-6)
    assert np.isnan(norms[3:, 1]).all() and np.isnan(norms[:3, 2]).all()


def test_a_layer_that_is_exchanged_in_the_list_of_the_optimizer_is_noticed_soon() -> None:
    net = two_layers()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with gradtui.watch(net, optimizer, every=1) as recorder:
        train(net, optimizer, 3)
        before = weakref.ref(net[1].weight)
        net[1] = nn.Linear(4, 4)
        optimizer.state.clear()
        optimizer.param_groups[0]["params"][2:] = list(net[1].parameters())
        train(net, optimizer, 20)
        gc.collect()
        assert before() is None
    names, norms = measured(recorder)
    assert names == ["0", "1"] and norms[-1] == pytest.approx([norm_of(net[0]), norm_of(net[1])], rel=1e-6)


def test_an_optimizer_that_is_given_fewer_parameters_goes_on_being_measured() -> None:
    net = two_layers()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with gradtui.watch(net, optimizer, every=1) as recorder:
        train(net, optimizer, 2)
        del optimizer.param_groups[0]["params"][2:]
        train(net, optimizer, 2)
    names, norms = measured(recorder)
    assert names == ["0", "1"] and norms.shape == (4, 2)


OUTLIVES = """
import gc, weakref
import torch
from torch import nn
import gradtui.runfile.writer as writer
writer.FLUSH_EVERY = 60.0  # the rows wait until the end

def train():
    net = nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 300), nn.Linear(300, 1))
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(40):
        optimizer.zero_grad()
        hidden = net[1](net[0](torch.ones(4, 4)))
        loss = net[3](net[2](hidden)).square().mean()
        loss.backward()
        optimizer.step()
    tensors = {"loss": loss, "hidden": hidden, "grad": net[0].weight.grad, **dict(net.named_parameters())}
    return {name: weakref.ref(one) for name, one in {**tensors, "net": net, "layer": net[0], "it": optimizer}.items()}

alive = train()
gc.collect()
print([name for name, ref in alive.items() if ref() is not None])
train()
"""


def test_nothing_of_a_training_outlives_it(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(OUTLIVES))
    for every in (1, None):
        options = RecordOptions(every=every, update_every=3, folder=tmp_path / "runs")
        command = prepare([sys.executable, str(script)], options)
        done = run([str(script)], env=command.environment, cwd=tmp_path, check=True)
        assert done.stdout == "[]\n", done.stderr
        with open_run(command.request.path) as reader:
            assert reader.span() is not None


@pytest.mark.parametrize("name", ["\ud83d", "a\x00b", "\x1b[31mred", "x" * 5000])
def test_whatever_a_layer_and_a_run_are_called_they_are_recorded(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    net = nn.Sequential()
    net.add_module(name, nn.Linear(4, 4))
    net.add_module("plain", nn.Linear(4, 1))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with gradtui.watch({name: net}, optimizer, every=1, name=name) as recorder:
        train(net, optimizer, 3)
        recorder.log(**{name: 2.0})
        recorder.event(name, name)
    names, norms = measured(recorder)
    assert names[1] == "plain" and norms.shape == (3, 2) and np.isfinite(norms).all()
    assert capfd.readouterr().err == ""
