"""What a screen asks of the app: to show another screen, or to train something."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from textual.screen import Screen

    from gradtui.lab.experiments import Experiment
    from gradtui.lab.recipe import Recipe
    from gradtui.tui.link import Link


class Navigator(Protocol):
    """The app, as its screens see it."""

    link: Link

    def open_run(self, path: Path) -> None:
        """Show a run over the screen that is there."""

    def open_comparison(self, what: Path | Sequence[Path]) -> None:
        """Show runs side by side: those of a comparison's folder, or any; raises `GradtuiError`."""

    def go_home(self) -> None:
        """Close the run that is shown; it goes on."""

    def start(self, recipe: Recipe) -> None:
        """Start a training, and show it."""

    def compare(self, name: str, experiment: Experiment) -> None:
        """Train the recipes of an experiment, and show them side by side."""

    def new_recipe(self, recipe: Recipe, run: Path | None = None) -> None:
        """Open the form of a recipe; one that was taken from a run is compared with it."""


def navigator(screen: Screen[Any]) -> Navigator:
    """The app of a screen."""
    return cast("Navigator", screen.app)
