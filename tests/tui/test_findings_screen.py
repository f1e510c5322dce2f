"""What the diagnosis says, on the screen of a run; and layers that join while it is shown."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gradtui.diagnosis import LiveDiagnosis, Thresholds
from gradtui.measures import MEASURES
from gradtui.remedies import REMEDIES
from gradtui.runfile import NOT_MEASURED, Finding, RunWriter
from gradtui.runfile.schema import Origin
from tests.synthetic import header, layers, make_run
from tests.tui.driving import app_of, shows, text_of


def stuck_run(path: Path, count: int, steps: int, origins: Sequence[Origin] = ()) -> RunWriter:
    """A run, diagnosed as a recorder does, whose gradient shrinks tenfold a layer and whose loss does not fall."""
    diagnosis = LiveDiagnosis(list(MEASURES), Thresholds(), share=1.0)
    writer = RunWriter(path, header(), list(MEASURES.values()), diagnose=diagnosis.take)
    writer.set_layers(layers(count))
    diagnosis.know(layers(count))
    for origin in origins:
        diagnosis.broke(origin)
    grid = np.full((count, len(MEASURES)), NOT_MEASURED, np.float32)
    grid[:, :4] = (10.0 ** -np.arange(count)[::-1])[:, None]
    for step in range(1, steps + 1):
        writer.step(step, None, step / 10, 2.3 + 0.001 * (-1) ** step, 0.1, grid.tobytes())
    return writer


async def test_findings_stand_first_with_what_may_help(runs_in_tmp: Path) -> None:
    writer = stuck_run(runs_in_tmp / "a.gradtui", 8, 100)
    writer.close()
    app = app_of(writer.path)
    async with app.run_test(size=(160, 40)) as pilot:
        await shows(pilot, "VANISHING")
        text = text_of(app.screen)
        assert "Findings" in text and "since step 1" in text and "try: relu, he" in text
        assert "PLATEAU" in text


async def test_the_first_nan_is_named_with_its_layer_and_step(runs_in_tmp: Path) -> None:
    origin = Origin(21, "forward", 1, "what log returned after it was NaN or infinite")
    writer = stuck_run(runs_in_tmp / "a.gradtui", 3, 20, [origin])
    writer.close()
    app = app_of(writer.path)
    async with app.run_test(size=(160, 40)) as pilot:
        await shows(pilot, "NAN")
        assert "forward pass of step 21" in " ".join(text_of(app.screen).split())


async def test_layers_that_join_later_get_their_bars(runs_in_tmp: Path) -> None:
    writer = stuck_run(runs_in_tmp / "a.gradtui", 2, 20)
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
    writer = stuck_run(runs_in_tmp / "a.gradtui", 8, 100)
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


async def test_a_run_without_findings_says_what_was_checked(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "In words")
        await pilot.press("f")
        await shows(pilot, "No problems found.")
        assert "Checked for nan, exploding, update-too-large, dead" in text_of(app.screen)


async def test_cleared_findings_come_last_and_the_panel_and_the_header_leave_them_out(runs_in_tmp: Path) -> None:
    writer = make_run(runs_in_tmp / "a.gradtui", close=False)
    writer.finding(1, Finding("vanishing", ("fc1",), 1, "far below fc4", remedies=("relu", "own-idea"), end=600))
    writer.finding(2, Finding("dead", ("fc2", "fc3"), 700, "all zero", remedies=("leaky-relu",)))
    writer.close()
    app = app_of(writer.path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "1 finding ")
        text = text_of(app.screen)
        assert "DEAD  fc2, fc3: all zero, since step 700" in text
        assert "VANISHING" not in text and "try: leaky-relu" in text
        await pilot.press("f")
        await shows(pilot, "cleared: steps 1 to 600")
        text = text_of(app.screen)
        assert text.index("DEAD  since step 700") < text.index("VANISHING  cleared: steps 1 to 600")
        assert "· try leaky-relu" in text and REMEDIES["leaky-relu"].what in text, (
            "what a remedy is stands beside its id"
        )


async def test_a_finding_of_a_kind_and_remedies_that_nobody_knows_is_text(runs_in_tmp: Path) -> None:
    writer = make_run(runs_in_tmp / "a.gradtui", close=False)
    odd = Finding("[red]mine\x1b[2J", ("[/b]",), 5, "e\u202evidence", {"x": float("nan")}, ("[link]my-remedy\x07",))
    writer.finding(1, odd)
    writer.close()
    app = app_of(writer.path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "[RED]MINE")
        await pilot.press("f")
        await shows(pilot, "· try [link]my-remedy␇")
        text = text_of(app.screen)
        assert "\x1b" not in text and "\u202e" not in text and "[/b]" in text


@pytest.mark.parametrize(
    ("column", "value"),
    [("numbers", "[1]"), ("layers", "7"), ("remedies", "{"), ("first_step", "soon"), ("kind", None)],
)
async def test_odd_values_of_a_finding_are_one_line_or_text(column: str, value: str | None, runs_in_tmp: Path) -> None:
    writer = make_run(runs_in_tmp / "a.gradtui", close=False)
    writer.finding(1, Finding("dead", ("fc2",), 700, "all zero"))
    writer.close()
    with sqlite3.connect(writer.path) as connection:
        connection.execute(f"UPDATE findings SET {column} = ?", (value,))
    connection.close()
    app = app_of(writer.path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "Findings")
        assert "is damaged" in text_of(app.screen) or "NONE" in text_of(app.screen)
        await pilot.press("f")
        await pilot.pause(0.3)
        await pilot.press("escape", "m")
        await shows(pilot, "Update ratio")
