"""Lists of layers: those that do not train in one line, and one numbering on all screens."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from gradtui import watch
from gradtui.report import report
from gradtui.tui.run_follower import RunFollower
from gradtui.tui.run_view import RunView
from gradtui.view import LayerFacts, Snapshot, numbered


def train(model: nn.Module, optimizers: list[torch.optim.Optimizer], folder: Path) -> Path:
    with watch(model, optimizers, folder=folder, every=1) as recorder:
        for _ in range(30):
            model.zero_grad()
            (model(torch.randn(16, 8)) - 1).square().mean().backward()
            optimizers[0].step()
    assert recorder.path is not None
    return recorder.path


def seven() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(7)))


def test_frozen_layers_are_one_line_of_the_report_and_of_the_viewer(tmp_path: Path) -> None:
    model = seven()
    model[:5].requires_grad_(False)
    path = train(model, [torch.optim.Adam(model.parameters())], tmp_path)
    lines = report(path, as_json=False, terminal=False).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("layer\tshape")) + 1 :]
    assert [line.split("\t")[0] for line in table[:2]] == ["5", "6"]
    assert table[2:] == ["", "5 layers do not train: layer 0, layer 1, layer 2, layer 3 and 1 more"]
    found = json.loads(report(path, as_json=True, terminal=False))["layers"]
    assert [layer["trains"] for layer in found] == [False] * 5 + [True] * 2
    view = RunView(RunFollower(lambda: path))
    view.poll()
    snapshot = view.next(changed=True, ready=True)
    view.close()
    assert isinstance(snapshot, Snapshot)
    assert any(line.startswith("5 layers do not train: ") for line in snapshot.lines)
    assert any(line.startswith("Adam, rate 0.001 (constant)") for line in snapshot.lines)


def test_the_layers_of_an_optimizer_that_was_not_measured_are_not_taken_for_frozen(tmp_path: Path) -> None:
    model = seven()
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(model[:4].parameters(), lr=0.1), torch.optim.SGD(model[4:].parameters(), lr=0.1),
    ]  # fmt: skip
    assert "not train" not in report(train(model, optimizers, tmp_path), as_json=False, terminal=False)


def test_layers_of_a_sequential_keep_their_numbers() -> None:
    def facts(*names: str) -> list[LayerFacts]:
        return [LayerFacts(name, "Linear", "", 1) for name in names]

    assert numbered(facts("0", "2", "4")) == ((0, 2, 4), ("Linear", "Linear", "Linear"))
    assert numbered(facts("fc1", "2")) == ((1, 2), ("fc1", "2"))
    assert numbered(facts("net.0", "net.2")) == ((1, 2), ("net.0", "net.2"))
