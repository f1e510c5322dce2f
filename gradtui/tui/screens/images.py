"""What a layer in pretraining looks like: filters, samples, reconstructions, one kind at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType
from textual.widget import Widget

from gradtui.tui import bindings
from gradtui.tui.scales import number
from gradtui.tui.screens.detail import DetailScreen, RunControls
from gradtui.tui.text import clean
from gradtui.tui.widgets.picture_grid import PictureGrid

if TYPE_CHECKING:
    from gradtui.view import Snapshot


class ImagesScreen(DetailScreen):
    """The newest pictures at the shown step; pause and time are the run's own."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings.ALWAYS,
        *bindings.bracket_keys("kind", "kind", "filters, reconstructions, …", "the next kind of pictures"),
        *bindings.TIME,
        bindings.back("i"),
    ]

    def __init__(self, run: RunControls) -> None:
        super().__init__(run)
        self._kind = 0

    def body(self) -> Widget:
        """The pictures."""
        return PictureGrid(id="pictures")

    def on_resize(self) -> None:
        """Say how many fit now."""
        if self._snapshot is not None:
            self.call_after_refresh(self.show, self._snapshot)

    def draw(self, snapshot: Snapshot) -> None:
        """Draw the pictures of one kind."""
        grid = self.query_one(PictureGrid)
        if not snapshot.pictures:
            grid.show(None)
            self.say("no pictures yet: a layer that is pretrained has some")
            return
        index = self._kind % len(snapshot.pictures)
        one = snapshot.pictures[index]
        grid.show(one)
        count = f"{grid.seen} of {one.count}" if grid.seen < one.count else f"{one.count}"
        name = f"{clean(one.layer)}: {clean(one.name)} ({index + 1}/{len(snapshot.pictures)})"
        values = f"from {number(one.low)} to {number(one.high)}"
        self.say(f"{name}   {count} of {one.rows}×{one.columns}, {values}, at step {one.step:,}")

    def action_kind(self, by: int) -> None:
        """Show another kind."""
        self._kind += by
        if self._snapshot is not None:
            self.show(self._snapshot)
