"""The examples of CONTRIBUTING.md, run as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gradtui
import pretrain
from gradtui.callbacks import CALLBACKS
from gradtui.diagnosis import FINDINGS
from gradtui.lab.recipe import Recipe
from gradtui.remedies import REMEDIES
from gradtui.tui.app import GradtuiApp
from gradtui.tui.screens.run import RunScreen
from pretrain.layers import unregister_layer
from tests.synthetic import make_run, speeds
from tests.tui.test_screens import shows, text_of

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}


def run(section: str, **names: Any) -> dict[str, Any]:
    """What the Python of a section leaves behind; `names` are what it takes as given."""
    for block in re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL):
        exec(compile(block, f"CONTRIBUTING.md, {section}", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Nothing that an example registers stays for other tests."""
    yield
    FINDINGS.unregister("oscillating")
    REMEDIES.unregister("small-batches")
    CALLBACKS.unregister("tinyfit")
    unregister_layer("half-code")


def net_and_optimizer() -> tuple[torch.nn.Sequential, torch.optim.Optimizer]:
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    return net, torch.optim.SGD(net.parameters(), lr=0.01)


def step(net: torch.nn.Sequential, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    optimizer.zero_grad()
    loss = net(torch.randn(8, 4)).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_every_section_has_an_example_and_says_what_to_touch() -> None:
    assert list(SECTIONS) == [
        "A measure",
        "A finding",
        "A remedy",
        "A pretraining layer",
        "A callback",
        "A screen",
    ]
    for text in SECTIONS.values():
        assert "```python" in text
        (inside,) = re.findall(r"\*In the project:\*(.*)", text, re.DOTALL)
        for path in re.findall(r"`((?:gradtui|pretrain|tests|benchmarks)/[\w/.]+)`", inside):
            assert (Path(__file__).parents[1] / path).exists(), path


def test_a_measure(runs_in_tmp: Path) -> None:
    net, optimizer = net_and_optimizer()
    largest = [float(torch.linalg.svdvals(layer.weight.detach())[0]) for layer in (net[0], net[2])]  # type: ignore[arg-type]
    recorder = run("A measure", model=net, optimizer=optimizer)["recorder"]
    step(net, optimizer)
    recorder.close()
    with gradtui.open_run(recorder.path) as reader:
        (column,) = [i for i, measure in enumerate(reader.measures) if measure.name == "spectral_norm"]
        assert reader.measures[column].title == "Spectral norm"
        np.testing.assert_allclose(reader.at(1).measures[0, :, column], largest, rtol=1e-5)


@pytest.mark.parametrize("swings", [True, False])
def test_a_finding(swings: bool, runs_in_tmp: Path) -> None:
    path = runs_in_tmp / "one.gradtui"
    writer = make_run(path, steps=0, close=False)
    for at in range(1, 41):
        loss = 1.0 + 0.5 * ((at + 1) % 2) if swings else 1.0 + 0.01 * at
        writer.step(at, at, at, loss, 0.1, speeds(at, 4).tobytes())
    writer.close()
    found = {one.kind: one for one in run("A finding", path=path)["findings"]}
    assert ("oscillating" in found) == swings
    if swings:
        assert found["oscillating"].numbers["turns"] > 0.6 and "lower-rate" in found["oscillating"].remedies


def test_a_remedy() -> None:
    run("A remedy")
    assert Recipe().with_remedies("small-batches").batch_size == 5
    assert REMEDIES["small-batches"].source == "Keskar et al. 2017"


def test_a_pretraining_layer(tmp_path: Path) -> None:
    half_code = run("A pretraining layer")["HalfCode"]
    layer = half_code(6, 4)
    images = torch.rand(20, 6)
    pretrain.train_greedily([layer], images, epochs=1)
    pretrain.save_stack(tmp_path / "layers", pretrain.Stack([layer]))
    (back,) = pretrain.load_stack(tmp_path / "layers").layers
    assert type(back) is half_code and torch.equal(back.encode(images), layer.encode(images))
    assert "half-code" in pretrain.LAYERS


def test_a_callback(runs_in_tmp: Path) -> None:
    run("A callback")
    net, optimizer = net_and_optimizer()
    callback = gradtui.callbacks.tinyfit(every=1)
    callback.on_fit_begin(net, optimizer, 1)
    assert [callback.on_batch_end(step(net, optimizer), 0.1 * at) for at in range(1, 6)] == [False] * 5
    callback.on_fit_end()
    (found,) = gradtui.runs(runs_in_tmp)
    assert found.status is not None and found.status.state == "finished" and found.step == 5


async def test_a_screen(runs_in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("A screen")
    monkeypatch.setattr(RunScreen, "action_slowest", names["action_slowest"], raising=False)
    path = make_run(runs_in_tmp / "one.gradtui", steps=20, names=["in[red]", "middle", "out"], count=3).path
    app = GradtuiApp(runs_in_tmp, run=path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "Learning speed")
        assert isinstance(app.screen, RunScreen) and names["KEY"].key == "z"
        await app.screen.run_action("slowest")
        await shows(pilot, "Slowest layers first")
        assert "slowest: in[red]" in text_of(app.screen)
        await pilot.press("escape")
        await shows(pilot, "Learning speed")
