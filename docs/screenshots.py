"""Draws the picture in the README: the real program, on a training that it runs for the purpose.

    python docs/screenshots.py

Trains the experiment `vanishing` for some seconds, without MNIST, and writes docs/run.svg.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from gradtui.lab.experiments import EXPERIMENTS
from gradtui.lab.train import train
from gradtui.tui.app import GradtuiApp
from gradtui.tui.screens.run import RunScreen

HERE = Path(__file__).parent
SIZE = (112, 32)


async def draw(run: Path, target: Path) -> None:
    """Open a run, wait until it is drawn, and write what the terminal would show."""
    app = GradtuiApp(run.parent, run=run)
    async with app.run_test(size=SIZE) as pilot:
        while not (isinstance(app.screen, RunScreen) and app.screen.snapshot is not None):
            await pilot.pause(0.1)
        await pilot.pause(0.5)
        target.write_text(app.export_screenshot(title="gradtui train --experiment vanishing"))
    print(target)


def main() -> None:
    """Train, then draw."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(EXPERIMENTS["vanishing"].recipe.but(epochs=40), folder=Path(folder))
        assert result.path is not None
        asyncio.run(draw(result.path, HERE / "run.svg"))


if __name__ == "__main__":
    main()
