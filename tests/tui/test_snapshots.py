"""Screens as pictures; `pytest --snapshot-update` takes new ones, after a look at them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot

from gradtui.lab.recipe import Recipe
from gradtui.runfile import Finding, RunWriter
from gradtui.runfile.blocks import as_pictures
from gradtui.tui.app import GradtuiApp
from gradtui.tui.screens.run import RunScreen
from tests.synthetic import MEASURES, header, layers, make_run, speeds


async def drawn(pilot: Pilot[object], *keys: str) -> None:
    """Wait until the run is drawn, press keys, and wait until that is drawn."""
    app = pilot.app
    for _ in range(500):
        screen = app.screen
        if isinstance(screen, RunScreen) and screen.snapshot is not None and screen.query("#run-body"):
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("the run was never drawn")
    await pilot.press(*keys)
    await pilot.pause(0.7)


def a_run(folder: Path, **facts: object) -> GradtuiApp:
    return GradtuiApp(folder, run=make_run(folder / "synthetic.gradtui", started=0.0, **facts).path)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 40), (200, 60)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_run(size: tuple[int, int], snap_compare, runs_in_tmp: Path) -> None:  # type: ignore[no-untyped-def]
    assert snap_compare(a_run(runs_in_tmp), terminal_size=size, run_before=drawn)


def test_run_of_a_net_that_broke(snap_compare, runs_in_tmp: Path) -> None:  # type: ignore[no-untyped-def]
    writer = RunWriter(runs_in_tmp / "broken.gradtui", header("broken"), MEASURES)
    writer.set_layers(layers(4))
    for step in range(1, 301):
        block = speeds(step, 4)
        if step > 250:
            block[:2, 0] = np.nan
            block[2, 0] = np.inf
        writer.step(step, step / 10, step / 100, float("nan") if step > 250 else 1 / step, 0.1, block.tobytes())
    remedies = ("lower-rate", "clip-norm", "epsilon", "check-data")
    writer.finding(1, Finding("nan", (), 251, "the loss is NaN or infinite", remedies=remedies))
    writer.close("stopped", "diverged: the loss is not finite since step 251")
    app = GradtuiApp(runs_in_tmp, run=writer.path)
    assert snap_compare(app, terminal_size=(120, 40), run_before=drawn)


@pytest.mark.parametrize("keys", [("n", "s"), ("question_mark",), ("left", "left")], ids=lambda keys: "-".join(keys))
def test_screens_behind_keys(keys: tuple[str, ...], snap_compare, runs_in_tmp: Path) -> None:  # type: ignore[no-untyped-def]
    app = a_run(runs_in_tmp)
    assert snap_compare(app, terminal_size=(100, 30), run_before=lambda pilot: drawn(pilot, *keys))


def test_home(snap_compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    folder = Path("runs")
    monkeypatch.chdir(tmp_path)
    folder.mkdir(exist_ok=True)
    make_run(folder / "digits-sigmoid-4.gradtui")

    async def listed(pilot: Pilot[object]) -> None:
        for _ in range(300):
            if getattr(pilot.app.screen, "_shown", None):
                break
            await asyncio.sleep(0.02)
        await pilot.pause(0.3)

    assert snap_compare(GradtuiApp(folder), terminal_size=(100, 30), run_before=listed)


async def settled(pilot: Pilot[object]) -> None:
    for _ in range(300):
        if getattr(pilot.app.screen, "_newest", None) is not None:
            break
        await asyncio.sleep(0.02)
    await pilot.pause(0.7)


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_compare(size: tuple[int, int], snap_compare, runs_in_tmp: Path) -> None:  # type: ignore[no-untyped-def]
    paths = [make_run(runs_in_tmp / f"{depth} deep.gradtui", count=depth, started=0.0).path for depth in (3, 6)]
    app = GradtuiApp(runs_in_tmp, comparison=[*paths, runs_in_tmp / "not yet.gradtui"])
    assert snap_compare(app, terminal_size=size, run_before=settled)


@pytest.mark.parametrize("size", [(60, 16), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_recipe_form(size: tuple[int, int], snap_compare, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    app = GradtuiApp(Path("runs"))

    async def filled(pilot: Pilot[object]) -> None:
        app.new_recipe(Recipe(hidden=(20, 20), epochs=10))
        await pilot.pause(0.3)
        await pilot.press("right", "right", "right")
        await pilot.pause(0.3)

    assert snap_compare(app, terminal_size=size, run_before=filled)


def test_through_time(snap_compare, runs_in_tmp: Path) -> None:  # type: ignore[no-untyped-def]
    writer = RunWriter(runs_in_tmp / "rnn.gradtui", header("rnn"), MEASURES)
    writer.set_layers(layers(2))
    writer.step(1, 0.1, 0.1, 0.5, 0.1, speeds(1, 2).tobytes())
    writer.through_time(1, {"h1": np.geomspace(1e-12, 0.25, 50).astype(np.float32)})
    writer.close()
    app = GradtuiApp(runs_in_tmp, run=writer.path)
    assert snap_compare(app, terminal_size=(100, 30), run_before=lambda pilot: drawn(pilot, "t"))


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_images(size: tuple[int, int], snap_compare, runs_in_tmp: Path) -> None:  # type: ignore[no-untyped-def]
    writer = RunWriter(runs_in_tmp / "pretrained.gradtui", header("pretrained"), MEASURES)
    writer.set_layers(layers(2))
    writer.step(1, 0.1, 0.1, 0.5, 0.1, speeds(1, 2).tobytes())
    y, x = np.mgrid[0:28, 0:28]
    waves = np.stack([np.sin((k % 6 + 1) * x / 9) * np.cos((k // 6 + 1) * y / 9) for k in range(36)])
    writer.pictures(as_pictures(1, "filters", "fc1", waves.astype(np.float32)))
    writer.close()
    app = GradtuiApp(runs_in_tmp, run=writer.path)
    assert snap_compare(app, terminal_size=size, run_before=lambda pilot: drawn(pilot, "i"))
