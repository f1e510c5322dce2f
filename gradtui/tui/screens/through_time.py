"""The gradient as it comes back through time: one bar a time step of a recurrent net."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Static

from gradtui.tui.bars import number
from gradtui.tui.text import clean
from gradtui.tui.widgets.bars import BarRows, Bars
from gradtui.tui.widgets.run_header import RunHeader
from gradtui.tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from gradtui.tui.screens.run import RunScreen
    from gradtui.view import Snapshot


class ThroughTimeScreen(Screen[None]):
    """‖∂C/∂h_t‖ for every time step t, or ‖∂C/∂c_t‖ of an LSTM's carried state."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "app.help", "help", tooltip="this page"),
        Binding("q", "app.leave", "quit", tooltip="quit the viewer; asks first while the training runs"),
        Binding("left_square_bracket", "state(-1)", "state", key_display="[/]", tooltip="the state before: h1, c1, …"),
        Binding("right_square_bracket", "state(1)", "next state", show=False, tooltip="the next state"),
        Binding("space", "toggle_pause", "pause", tooltip="pause or follow a live run; replay an ended one"),
        Binding("left", "jump(-1)", "time", key_display="←/→", tooltip="walk back through the training"),
        Binding("right", "jump(1)", "later", show=False, tooltip="walk on through the training"),
        Binding("l", "toggle_log", "log", tooltip="logarithmic or linear axis"),
        Binding("escape,t", "dismiss", "back", tooltip="back to the layers"),
    ]

    def __init__(self, run: RunScreen) -> None:
        super().__init__()
        self._run = run
        self._snapshot: Snapshot | None = None
        self._state = 0
        self._composed = False

    def compose(self) -> ComposeResult:
        """A header, the bars, one line in words."""
        yield RunHeader(id="run-header")
        yield Bars(id="time-bars")
        yield Static(id="exact", markup=False)
        yield TooSmall(id="too-small")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Show what there is."""
        self._composed = True
        self.query_one(Bars).focus()
        if self._snapshot is not None:
            self.show(self._snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Show the states of a snapshot."""
        self._snapshot = snapshot
        if not self._composed or not snapshot.through_time:
            return
        self.query_one(RunHeader).show(snapshot)
        index = min(self._state, len(snapshot.through_time) - 1)
        state, norms = snapshot.through_time[index]
        name = clean(state)
        bars = self.query_one(Bars)
        bars.set_title(f"Gradient through time  ‖∂C/∂{name}(t)‖")
        count = len(norms)
        bars.show(
            BarRows(
                tuple(range(1, count + 1)),
                ("",) * count,
                ("",) * count,
                norms,
                colours=(index, max(2, len(snapshot.through_time))),
            )
        )
        exact = self.query_one("#exact", Static)
        text = f"{in_words(name, norms)}   at step {snapshot.through_time_step:,}"
        if text != exact.content:
            exact.update(text, layout=False)

    def action_state(self, by: int) -> None:
        """Show another state."""
        if self._snapshot is not None and self._snapshot.through_time:
            self._state = (self._state + by) % len(self._snapshot.through_time)
            self.show(self._snapshot)

    def action_toggle_pause(self) -> None:
        """Pause, follow or replay."""
        self._run.action_toggle_pause()

    def action_jump(self, direction: int) -> None:
        """Walk through time."""
        self._run.action_jump(direction)

    def action_toggle_log(self) -> None:
        """Switch the axis."""
        self.query_one(Bars).toggle_log()


def in_words(state: str, norms: tuple[float, ...]) -> str:
    """How much of the gradient at the last time step arrives at the first."""
    first, last = norms[0], norms[-1]
    if not (math.isfinite(first) and math.isfinite(last)):
        return f"the gradient is not finite: {number(first)} at the first time step, {number(last)} at the last"
    if first == 0 or last == 0:
        return f"{number(first)} at the first time step, {number(last)} at the last: what is exactly 0 teaches nothing"
    share = first / last
    if 0.1 <= share <= 10:
        return f"level: the first of {len(norms)} time steps has {share:.2g} of the last one's gradient"
    return f"the first of {len(norms)} time steps has {share:.1e} of the last one's gradient"
