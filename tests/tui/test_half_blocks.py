"""Pictures in cells, against averages written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Static

from gradtui.runfile import RunWriter
from gradtui.runfile.blocks import as_pictures
from gradtui.tui.app import GradtuiApp
from gradtui.tui.half_blocks import LEVELS, fit, shades
from gradtui.tui.widgets.picture_grid import PictureGrid
from tests.synthetic import MEASURES, header, layers, speeds
from tests.tui.test_snapshots import drawn


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_shades_are_the_means_of_blocks_of_pixels(rows: int, columns: int, scale: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, rows, columns), dtype=np.uint8)
    found = shades(pixels.tobytes(), rows, columns, scale)
    for picture, levels in zip(pixels.astype(float), found, strict=True):
        for y, line in enumerate(levels):
            for x, level in enumerate(line):
                block = picture[y * scale : (y + 1) * scale, x * scale : (x + 1) * scale]
                assert level == min(LEVELS - 1, int(block.mean() * LEVELS / 256 + 1e-9))


@given(*(st.integers(1, 40) for _ in range(3)), st.integers(1, 200), st.integers(1, 60))
def test_tiles_fit_into_the_cells_or_there_is_one(count: int, rows: int, columns: int, width: int, height: int) -> None:
    grid = fit(count, rows, columns, width, height)
    assert grid.height == -(-rows // grid.scale) and grid.width == -(-columns // grid.scale)
    if grid.across > 1:
        assert grid.across * (grid.width + 1) - 1 <= width
    if grid.down > 1:
        assert grid.down * (grid.lines + 1) - 1 <= height
    if grid.scale > 1:
        larger = grid.scale - 1
        tall, wide = -(-rows // larger), -(-columns // larger)
        assert (width + 1) // (wide + 1) * ((height + 1) // (-(-tall // 2) + 1)) < min(count, 12), (
            "no smaller than need be"
        )


@pytest.mark.parametrize("ascii_only", [False, True])
async def test_the_kinds_of_pictures_follow_each_other(ascii_only: bool, runs_in_tmp: Path) -> None:
    writer = RunWriter(runs_in_tmp / "seen.gradtui", header("seen"), MEASURES)
    writer.set_layers(layers(2))
    writer.step(1, 0.1, 0.1, 0.5, 0.1, speeds(1, 2).tobytes())
    bright = np.zeros((3, 8, 8), np.float32)
    bright[0, :2, 0] = 1.0
    writer.pictures(as_pictures(1, "filters", "fc1", bright - 0.5))
    writer.pictures(as_pictures(1, "[red]samples", "fc1", bright))
    writer.close()
    app = GradtuiApp(runs_in_tmp, run=writer.path, ascii_only=ascii_only)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(pilot, "i")
        grid = app.screen.query_one(PictureGrid)
        line = "".join(text for text, _ in grid.line(0, 40))
        assert line.startswith("@       " if ascii_only else "▀▀▀▀▀▀▀▀ ▀▀▀▀▀▀▀▀ ▀▀▀▀▀▀▀▀ ")
        said = app.screen.query_one("#exact", Static)
        assert str(said.content) == "fc1: filters (1/2)   3 of 8×8, from -0.500 to 0.500, at step 1"
        await pilot.press("right_square_bracket")
        assert str(said.content).startswith("fc1: [red]samples (2/2)"), "text from a run is shown as text"
        await pilot.press("escape")
        assert not app.screen.query(PictureGrid)


async def test_a_run_without_pictures_says_how_to_get_some(runs_in_tmp: Path) -> None:
    writer = RunWriter(runs_in_tmp / "plain.gradtui", header("plain"), MEASURES)
    writer.set_layers(layers(1))
    writer.step(1, 0.1, 0.1, 0.5, 0.1, speeds(1, 1).tobytes())
    writer.close()
    app = GradtuiApp(runs_in_tmp, run=writer.path)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(pilot, "i")
        assert not app.screen.query(PictureGrid)
        assert any("--pretrain" in str(toast.message) for toast in app._notifications)
