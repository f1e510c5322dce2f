"""What a layer in pretraining looks like: filters, dreams, reconstructions, one kind at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from gradtui.tui.scales import number
from gradtui.tui.screens.detail import DetailScreen
from gradtui.tui.text import clean
from gradtui.tui.widgets.picture_grid import PictureGrid

if TYPE_CHECKING:
    from gradtui.tui.screens.run import RunScreen
    from gradtui.view import Snapshot


class ImagesScreen(DetailScreen):
    """The newest pictures at the shown step; pause and time are the run's own."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "app.help", "help", tooltip="this page"),
        Binding("q", "app.leave", "quit", tooltip="quit the viewer; asks first while the training runs"),
        Binding("left_square_bracket", "kind(-1)", "kind", key_display="[/]", tooltip="filters, reconstructions, …"),
        Binding("right_square_bracket", "kind(1)", "next kind", show=False, tooltip="the next kind of pictures"),
        Binding("space", "toggle_pause", "pause", tooltip="pause or follow a live run; replay an ended one"),
        Binding("left", "jump(-1)", "time", key_display="←/→", tooltip="walk back through the training"),
        Binding("right", "jump(1)", "later", show=False, tooltip="walk on through the training"),
        Binding("escape,i", "dismiss", "back", tooltip="back to the layers"),
    ]

    def __init__(self, run: RunScreen) -> None:
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
