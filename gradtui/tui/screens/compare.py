"""Runs side by side, live: the same axis for all, and their accuracy over time."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer, Static

from gradtui.tui.lanes import Comparison, Lane, LaneFeed, Source, aligned, on_one_grid
from gradtui.tui.messages import Delivered
from gradtui.tui.screens.trained import TrainedScreen
from gradtui.tui.text import clean
from gradtui.tui.widgets.curve import Curve
from gradtui.tui.widgets.run_body import TITLES
from gradtui.tui.widgets.side_by_side import LaneOpened, LaneSelected, SideBySide
from gradtui.tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from gradtui.tui.app import GradtuiApp

ACCURACIES, LOSSES = "Validation accuracy over epochs", "Loss over steps"
ORDERS = ("in order", "most accurate first", "levelest first")


class CompareScreen(TrainedScreen):
    """Lanes and curves. `sources` gives the runs of each seed; `owner` the process that trains them, if one does.

    Args:
        title: what is compared.
        look: what to look at.
        sources: one list of runs for each seed, all with the same labels; a plain comparison has one.
        owner: the process that still trains, or None.
        ready: as the feed asks.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "app.help", "help", tooltip="this page"),
        Binding("q", "app.leave", "quit", tooltip="quit the viewer; asks first while trainings run"),
        Binding("left", "move(-1)", "run", key_display="←/→", tooltip="select the run to the left"),
        Binding("right", "move(1)", "to the right", show=False, tooltip="select the run to the right"),
        Binding("home", "move(-1000)", "first", show=False, tooltip="the first run"),
        Binding("end", "move(1000)", "last", show=False, tooltip="the last run"),
        Binding("enter", "open", "open", tooltip="the selected run by itself"),
        Binding("s", "sort", "sort", tooltip="in order, most accurate first, levelest first"),
        Binding("b", "baseline", "baseline", tooltip="make the selected run the first, which others are compared with"),
        Binding("r", "ratios", "ratio", tooltip="values as multiples of the baseline's, layer by layer"),
        Binding("x", "hide", "hide", tooltip="hide the selected run"),
        Binding("X", "show_all", "show all", show=False, tooltip="show the hidden runs again"),
        Binding("m", "measure(1)", "measure", tooltip="the next measure: gradients, parameters, updates"),
        Binding("M", "measure(-1)", "previous measure", show=False, tooltip="the measure before"),
        Binding("escape,h", "home", "back", tooltip="back to where it was opened from; trainings go on"),
        Binding("n", "seed", "seed", show=False, tooltip="the runs of the next seed"),
        Binding("l", "toggle_log", "log", show=False, tooltip="logarithmic or linear axis"),
    ]

    def __init__(
        self,
        title: str,
        look: str,
        sources: Sequence[Sequence[Source]],
        *,
        owner: Callable[[], int | None] = lambda: None,
        frames_per_second: float = 4.0,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__()
        self._name_of_it = title
        self._look = look
        self._sources = [list(of_seed) for of_seed in sources]
        self._owner = owner
        self._seed = 0
        self._order = 0
        self._baseline = self._sources[0][0].label
        self._hidden: set[str] = set()
        self._newest: Comparison | None = None
        self._shown: tuple[Lane, ...] = ()
        self._curves: tuple[object, ...] = ()
        self._due = False
        self.feed = LaneFeed(self._sources[0], self._deliver, frames_per_second=frames_per_second, ready=ready)

    def compose(self) -> ComposeResult:
        """A line about all of it, the lanes, the curves."""
        yield Static(id="compare-header", markup=False)
        yield SideBySide(id="side-by-side")
        yield Curve(log=False, id="curves")
        yield Static(clean(self._look), id="look", markup=False)
        yield TooSmall(id="update-too-small")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Start reading once the first frame is on the screen."""
        self.query_one(SideBySide).focus()
        self.query_one("#curves", Curve).set_title(ACCURACIES)
        self._say()
        self.call_after_refresh(self.feed.start)

    def on_unmount(self) -> None:
        """Stop reading."""
        self.feed.stop()

    def rest(self) -> None:
        """Stop reading: the screen is not seen again."""
        self.feed.stop()

    # -- what arrives -----------------------------------------------------------------------------------------

    def _deliver(self, newest: Comparison) -> None:
        self._newest = newest
        if not self._due:
            self._due = True
            self.post_message(Delivered())

    def on_delivered(self) -> None:
        """Show the newest delivery."""
        self._due = False
        self._draw()

    def _draw(self) -> None:
        newest = self._newest
        if newest is None:
            return
        numbers = {source.label: number for number, source in enumerate(self._sources[0])}
        lanes = aligned(self._in_order(newest.lanes))
        self._shown = lanes
        colours = tuple(numbers.get(lane.label, 0) for lane in lanes)
        if newest.measures:
            measure = newest.measures[newest.measure]
            title = f"{TITLES.get(measure.name, clean(measure.name))}  {clean(measure.symbol)}"
            self._side.set_title(f"{title}  {ORDERS[self._order]}")
        self._side.show(lanes, colours, len(numbers))
        self._draw_curves(newest.lanes)
        self._say()

    def _in_order(self, lanes: Sequence[Lane]) -> tuple[Lane, ...]:
        """The baseline first, then the others by the order that is chosen; without the hidden ones."""
        kept = [lane for lane in lanes if lane.label not in self._hidden]
        if self._order == 1:
            kept.sort(key=lambda lane: -(lane.accuracy or 0.0))
        elif self._order == 2:
            kept.sort(key=lambda lane: math.inf if lane.spread is None else lane.spread)
        kept.sort(key=lambda lane: lane.label != self._baseline)
        return tuple(kept)

    def _draw_curves(self, lanes: Sequence[Lane]) -> None:
        """The accuracies, or the losses where no run has any."""
        losses = not any(lane.accuracies for lane in lanes) and any(lane.losses for lane in lanes)
        shown = tuple(
            ((), ())
            if lane.label in self._hidden
            else (lane.steps, lane.losses)
            if losses
            else (lane.epochs, lane.accuracies)
            for lane in lanes
        )
        if shown != self._curves:
            self._curves = shown
            panel = self.query_one("#curves", Curve)
            panel.set_title(LOSSES if losses else ACCURACIES)
            panel.show(*on_one_grid(shown), empty="nothing evaluated yet")

    def _say(self) -> None:
        lanes = self._newest.lanes if self._newest is not None else ()
        live = sum(lane.state == "live" for lane in lanes)
        waiting = sum(lane.state == "waiting" for lane in lanes)
        parts = [clean(self._name_of_it), f"{len(lanes) - live - waiting} of {len(lanes)} done"]
        if live:
            parts.append(f"● {live} training")
        if waiting:
            parts.append(f"○ {waiting} waiting")
        if waiting and not live and self._owner() is not None:
            parts.append("starting …")
        if len(self._sources) > 1:
            parts.append(f"seed {self._seed + 1} of {len(self._sources)} (n)")
        if self._hidden:
            parts.append(f"{len(self._hidden)} hidden (X)")
        left, right = self._side.hidden_at_the_sides()
        parts += [f"◂ {left} more"] if left else []
        parts += [f"{right} more ▸"] if right else []
        selected = self._selected()
        if selected is not None and selected.detail:
            parts.append(clean(f"{selected.label}: {selected.detail}"))
        header = self.query_one("#compare-header", Static)
        text = "  ·  ".join(parts)
        if text != header.content:
            header.update(text, layout=False)

    # -- what is asked for ------------------------------------------------------------------------------------

    @property
    def _side(self) -> SideBySide:
        return self.query_one(SideBySide)

    def _selected(self) -> Lane | None:
        return self._shown[self._side.cursor] if self._side.cursor < len(self._shown) else None

    @property
    def name_to_attach(self) -> str:
        """What `gradtui attach` takes to show this again."""
        return self._sources[0][0].path.parent.name

    @property
    def can_stop(self) -> bool:
        """Whether a process still trains these runs, and can be told to stop."""
        lanes = self._newest.lanes if self._newest is not None else ()
        over = len(self._sources) == 1 and lanes and not any(lane.state in ("live", "waiting") for lane in lanes)
        return not over and self._owner() is not None

    def stop_training(self) -> None:
        """Ask that process to stop; what is done is kept."""
        process = self._owner()
        if process is not None:
            os.kill(process, signal.SIGTERM)

    @on(LaneSelected)
    def say_selected(self) -> None:
        """Say more about the run under the cursor."""
        self._say()

    @on(LaneOpened)
    def open_clicked(self) -> None:
        """Open a lane that was clicked twice."""
        self.action_open()

    def action_move(self, by: int) -> None:
        """Select another run."""
        self._side.select(self._side.cursor + by)

    def action_open(self) -> None:
        """Show the selected run by itself."""
        lane = self._selected()
        if lane is None:
            return
        if lane.state == "waiting":
            self.notify(f"{clean(lane.label)} has not started yet.", markup=False)
        else:
            cast("GradtuiApp", self.app).open_run(lane.path)

    def action_sort(self) -> None:
        """Go on to the next order."""
        self._order = (self._order + 1) % len(ORDERS)
        if self._order == 1 and all(lane.accuracy is None for lane in self._shown):
            self._order = 2
        self._draw()

    def action_baseline(self) -> None:
        """Pin the selected run as the baseline."""
        lane = self._selected()
        if lane is not None:
            self._baseline = lane.label
            self._draw()
            self._side.select(0)

    def action_ratios(self) -> None:
        """Show ratios to the baseline, or values."""
        self._side.ratios = not self._side.ratios
        self._draw()

    def action_hide(self) -> None:
        """Hide the selected run; the last one stays."""
        lane = self._selected()
        if lane is not None and len(self._shown) > 1:
            self._hidden.add(lane.label)
            if lane.label == self._baseline:
                self._baseline = next(shown.label for shown in self._shown if shown.label != lane.label)
            self._draw()

    def action_show_all(self) -> None:
        """Show all runs again."""
        self._hidden.clear()
        self._draw()

    def action_seed(self) -> None:
        """Show the runs of the next seed."""
        self._seed = (self._seed + 1) % len(self._sources)
        self.feed.show(self._sources[self._seed])
        self._say()

    def action_measure(self, by: int) -> None:
        """Show another measure."""
        if self._newest is not None and self._newest.measures:
            self.feed.want(measure=(self._newest.measure + by) % len(self._newest.measures))

    def action_toggle_log(self) -> None:
        """Switch the axis."""
        self._side.toggle_log()

    def action_home(self) -> None:
        """Go to the list of experiments and runs."""
        cast("GradtuiApp", self.app).go_home()
