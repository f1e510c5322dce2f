"""Screens as pictures; `pytest --snapshot-update` takes new ones, after a look at them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot

from gradtui.runfile import RunWriter
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
