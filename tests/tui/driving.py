"""Drives the program in memory: what it shows, and waiting for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot
from textual.screen import Screen

from gradtui.runfile import RunWriter
from gradtui.tui.app import GradtuiApp
from gradtui.tui.screens.run import RunScreen
from gradtui.view import Snapshot
from tests.synthetic import make_run

WICKED = [
    "[red]",
    "a[/b]",
    "[/]",
    "\x1b[2J\x9b2J",
    "x" * 300,
    "名前のとても長い層の名前",
    "👩‍👩‍👧 family",
    "\u202eright",
]


def text_of(screen: Screen[object]) -> str:
    """What the terminal shows, line by line."""
    # while a terminal is resized there may be fewer lines, or more, than its height
    strips = screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def wait_for(pilot: Pilot[object], condition: Callable[[], object]) -> None:
    for _ in range(400):
        if condition():
            await pilot.pause()
            return
        await pilot.pause(0.02)
    raise AssertionError(f"it never happened\n{text_of(pilot.app.screen)}")


async def shows(pilot: Pilot[object], text: str) -> None:
    await wait_for(pilot, lambda: text in text_of(pilot.app.screen))


async def shown_run(pilot: Pilot[object]) -> tuple[RunScreen, Snapshot]:
    """The screen of a run, once the run is on it, and what it shows."""
    await shows(pilot, "In words")
    screen = pilot.app.screen
    assert isinstance(screen, RunScreen) and screen.snapshot is not None
    return screen, screen.snapshot


def app_of(path: Path, **kind: object) -> GradtuiApp:
    return GradtuiApp(path.parent, run=path, **kind)  # type: ignore[arg-type]


def live_run(folder: Path, **facts: object) -> RunWriter:
    return make_run(folder / "live.gradtui", close=False, **facts)  # type: ignore[arg-type]


def step_shown(app: GradtuiApp) -> int:
    found = re.search(r"step ([0-9,]+)", text_of(app.screen))
    assert found, text_of(app.screen)
    return int(found[1].replace(",", ""))
