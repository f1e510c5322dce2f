"""`watch` on models that take no hooks, and what it meets and cannot do: the training goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import gradtui
from gradtui.record import watching
from gradtui.runfile import open_run


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def train(model: nn.Module, **options: object) -> list[torch.Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = gradtui.watch(model, optimizer, every=1, **options) if options else None  # type: ignore[arg-type]
    for x in torch.randn(12, 16, 6, generator=torch.Generator().manual_seed(1)):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    if recorder is not None:
        recorder.close()
    return [parameter.detach().clone() for parameter in model.parameters()]


MODELS = {
    "script": lambda: torch.jit.script(net()),
    "trace": lambda: torch.jit.trace(net(), torch.zeros(16, 6)),
    "inside": lambda: nn.Sequential(torch.jit.script(net()), nn.Linear(4, 4)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", MODELS)
def test_torchscript_is_recorded_by_its_parameters(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = MODELS[kind]()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    plain = train(model)
    model.load_state_dict(start)
    seen = train(model, folder=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    (path,) = tmp_path.glob("*.gradtui")
    with open_run(path) as reader:
        names = ["0.0", "0.2", "1"] if kind == "inside" else ["0", "2"]
        assert [(layer.name, layer.kind) for layer in reader.layers()] == [(name, "Linear") for name in names]
        assert len(reader.last(99)) == 12
        assert not [event for event in reader.events() if event.kind == "recorder"]


def test_what_watch_cannot_do_is_said_once_and_training_goes_on(tmp_path: Path, monkeypatch, capfd) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("not on this module")

    monkeypatch.setattr(watching, "ForwardTrace", fail)
    plain, seen = train(net()), train(net(), folder=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "not on this module" in said and "training goes on" in said
