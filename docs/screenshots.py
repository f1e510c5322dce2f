"""Draws the pictures in the README: the real program, on trainings that it runs for the purpose.

    python docs/screenshots.py

Trains one recipe of the experiment `vanishing` and some of `remedies`, without MNIST, and writes docs/run.svg and
docs/compare.svg; takes half a minute.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from gradtui.lab.experiments import EXPERIMENTS
from gradtui.lab.run_plan import plan_of, run_cells
from gradtui.lab.train import train
from gradtui.tui.app import GradtuiApp

HERE = Path(__file__).parent
SIZE = (112, 32)
SHOWN = ("nothing", "relu + he", "tanh", "batch-norm", "residual")  # as many as fit side by side


async def draw(app: GradtuiApp, title: str, target: Path) -> None:
    """Open the program, wait until all is drawn, and write what the terminal would show."""
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(3.0)
        target.write_text(app.export_screenshot(title=title))
    print(target)


def main() -> None:
    """Train, then draw."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = EXPERIMENTS["vanishing"].recipes["depth-8"]
        result = train(recipe.but(epochs=40, every=1, learning_rate=0.01), folder=folder)
        assert result.path is not None
        app = GradtuiApp(folder, run=result.path)
        asyncio.run(draw(app, "gradtui train --experiment vanishing/depth-8", HERE / "run.svg"))

        remedies = EXPERIMENTS["remedies"]
        recipes = {label: remedies.recipes[label] for label in SHOWN}
        plan = plan_of(folder / "remedies.compare", remedies.title, remedies.hint, recipes, 1, None)
        plan.save()
        run_cells(plan.cells())
        app = GradtuiApp(folder, comparison=plan.folder)
        asyncio.run(draw(app, "gradtui compare remedies --view", HERE / "compare.svg"))


if __name__ == "__main__":
    main()
