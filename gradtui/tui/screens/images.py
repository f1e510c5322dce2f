"""What a layer in pretraining looks like: filters, dreams, reconstructions, one kind at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Static

from gradtui.tui.bars import number
from gradtui.tui.text import clean
from gradtui.tui.widgets.picture_grid import PictureGrid
from gradtui.tui.widgets.run_header import RunHeader
from gradtui.tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from gradtui.tui.screens.run import RunScreen
    from gradtui.view import Snapshot


class ImagesScreen(Screen[None]):
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
        super().__init__()
        self._run = run
        self._snapshot: Snapshot | None = None
        self._kind = 0
        self._composed = False

    def compose(self) -> ComposeResult:
        """A header, the pictures, one line in words."""
        yield RunHeader(id="run-header")
        yield PictureGrid(id="pictures")
        yield Static(id="exact", markup=False)
        yield TooSmall(id="too-small")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Show what there is."""
        self._composed = True
        if self._snapshot is not None:
            self.call_after_refresh(self.show, self._snapshot)

    def on_resize(self) -> None:
        """Say how many fit now."""
        if self._snapshot is not None:
            self.call_after_refresh(self.show, self._snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot, now or once the widgets are there."""
        self._snapshot = snapshot
        if not self._composed:
            return
        self.query_one(RunHeader).show(snapshot)
        grid, exact = self.query_one(PictureGrid), self.query_one("#exact", Static)
        if not snapshot.pictures:
            grid.show(None)
            exact.update("no pictures yet: a layer that is pretrained has some")
            return
        one = snapshot.pictures[self._kind % len(snapshot.pictures)]
        grid.show(one)
        count = f"{grid.seen} of {one.count}" if grid.seen < one.count else f"{one.count}"
        where = f"{self._kind % len(snapshot.pictures) + 1}/{len(snapshot.pictures)}"
        values = f"from {number(one.low)} to {number(one.high)}"
        name = f"{clean(one.layer)}: {clean(one.name)}"
        exact.update(f"{name} ({where})   {count} of {one.rows}×{one.columns}, {values}, at step {one.step:,}")

    def action_kind(self, by: int) -> None:
        """Show another kind."""
        self._kind += by
        if self._snapshot is not None:
            self.show(self._snapshot)

    def action_toggle_pause(self) -> None:
        """Pause, follow or replay."""
        self._run.action_toggle_pause()

    def action_jump(self, direction: int) -> None:
        """Walk through time."""
        self._run.action_jump(direction)
