"""What the diagnosis says, on the screen of a run; and layers that join while somebody looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gradtui.measures import MEASURES
from gradtui.runfile import NOT_MEASURED, RunWriter
from gradtui.runfile.schema import Origin
from tests.synthetic import header, layers, make_run
from tests.tui.test_screens import app_of, shows, text_of


def sick_run(path: Path, count: int, steps: int) -> RunWriter:
    """A run whose gradient shrinks tenfold a layer and whose loss stands still."""
    writer = RunWriter(path, header(), list(MEASURES.values()))
    writer.set_layers(layers(count))
    grid = np.full((count, len(MEASURES)), NOT_MEASURED, np.float32)
    grid[:, :4] = (10.0 ** -np.arange(count)[::-1])[:, None]
    for step in range(1, steps + 1):
        writer.step(step, None, step / 10, 2.3 + 0.001 * (-1) ** step, 0.1, grid.tobytes())
    return writer


async def test_findings_stand_first_with_what_may_help(runs_in_tmp: Path) -> None:
    writer = sick_run(runs_in_tmp / "a.gradtui", 8, 100)
    writer.close()
    app = app_of(writer.path)
    async with app.run_test(size=(160, 40)) as pilot:
        await shows(pilot, "VANISHING")
        text = text_of(app.screen)
        assert "Findings" in text and "since step 1" in text and "try: ReLU with He" in text
        assert "PLATEAU" in text


async def test_the_first_nan_is_named_with_its_layer_and_step(runs_in_tmp: Path) -> None:
    writer = sick_run(runs_in_tmp / "a.gradtui", 3, 20)
    writer.origin(Origin(21, "forward", 1, "what log returned after it was NaN or infinite"))
    writer.close()
    app = app_of(writer.path)
    async with app.run_test(size=(160, 40)) as pilot:
        await shows(pilot, "NAN")
        assert "forward pass of step 21" in " ".join(text_of(app.screen).split())


async def test_layers_that_join_later_get_their_bars(runs_in_tmp: Path) -> None:
    writer = sick_run(runs_in_tmp / "a.gradtui", 2, 20)
    app = app_of(writer.path)
    try:
        async with app.run_test(size=(160, 40)) as pilot:
            await shows(pilot, "fc2")
            assert "netG.fc1" not in text_of(app.screen)
            names = ["netD.fc1", "netD.fc2", "netG.fc1", "netG.fc2"]
            writer.set_layers(layers(4, names))
            grid = np.ones((4, len(MEASURES)), np.float32)
            for step in range(21, 30):
                writer.step(step, None, step / 10, 2.0, 0.1, grid.tobytes())
            await shows(pilot, "netG.fc2")
            assert "netD.fc1" in text_of(app.screen)
    finally:
        writer.close()


async def test_every_finding_can_be_read_in_full_on_a_small_terminal(runs_in_tmp: Path) -> None:
    writer = sick_run(runs_in_tmp / "a.gradtui", 8, 100)
    writer.close()
    app = app_of(writer.path)
    async with app.run_test(size=(60, 16)) as pilot:
        await shows(pilot, "2 findings")
        await pilot.press("f")
        await shows(pilot, "· try ")
        await pilot.press("j", "j", "j", "j", "j", "j")
        await shows(pilot, "PLATEAU")
        await pilot.press("f")
        await shows(pilot, "Learning speed")


async def test_a_healthy_run_says_what_was_looked_for(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "In words")
        await pilot.press("f")
        await shows(pilot, "No problems found.")
