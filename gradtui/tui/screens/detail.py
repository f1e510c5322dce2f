"""What the screens that open over a run have in common: its header, one list of bars or pictures, a line below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from gradtui.tui.widgets.bars import Bars
from gradtui.tui.widgets.key_footer import KeyFooter
from gradtui.tui.widgets.run_header import RunHeader
from gradtui.tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from gradtui.runfile import Measure
    from gradtui.view import Snapshot


class RunControls(Protocol):
    """What such a screen asks of the one below it."""

    def action_toggle_pause(self) -> None:
        """Pause, follow or replay."""

    def action_jump(self, direction: int) -> None:
        """Walk through time."""

    def select_layer(self, layer: int) -> None:
        """Move the cursor to a layer."""


class DetailScreen(Screen[None]):
    """Shows one side of a run's snapshots, which the run's screen hands on; pause and time are the run's own."""

    def __init__(self, run: RunControls) -> None:
        super().__init__()
        self._run = run
        self._snapshot: Snapshot | None = None
        self._composed = False

    def compose(self) -> ComposeResult:
        """A header, the body, one line in words."""
        yield RunHeader(id="run-header")
        yield self.body()
        yield Static(id="exact", markup=False)
        yield TooSmall()
        yield KeyFooter()

    def on_mount(self) -> None:
        """Show what there is."""
        self._composed = True
        self.query(Bars).focus()
        if self._snapshot is not None:
            self.show(self._snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot, now or once the widgets are there."""
        self._snapshot = snapshot
        if self._composed:
            self.query_one(RunHeader).show(snapshot)
            self.draw(snapshot)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that the run has."""
        return () if self._snapshot is None else self._snapshot.measures

    def body(self) -> Widget:
        """What stands in the middle."""
        return Bars(id="detail-bars")

    def draw(self, snapshot: Snapshot) -> None:
        """Draw a snapshot in the body."""
        raise NotImplementedError

    @property
    def bars(self) -> Bars:
        """The body, where it is bars."""
        return self.query_one(Bars)

    def say(self, text: str) -> None:
        """Say something in the line below the body; the same again draws nothing."""
        exact = self.query_one("#exact", Static)
        if text != exact.content:
            exact.update(text, layout=False)

    def action_toggle_pause(self) -> None:
        """Pause, follow or replay."""
        self._run.action_toggle_pause()

    def action_jump(self, direction: int) -> None:
        """Walk through time."""
        self._run.action_jump(direction)

    def action_toggle_log(self) -> None:
        """Switch the axis."""
        self.bars.toggle_log()
