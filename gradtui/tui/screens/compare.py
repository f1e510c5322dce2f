"""Runs side by side, live: the same axis for all, and their accuracy over time."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from gradtui.tui import bindings
from gradtui.tui.compared_runs import ComparedRun, Comparison, ComparisonView, Source, aligned, on_one_grid
from gradtui.tui.follow_thread import FRAMES_PER_SECOND
from gradtui.tui.navigation import navigator
from gradtui.tui.screens.following import FollowingScreen
from gradtui.tui.text import clean, title_of
from gradtui.tui.widgets.curve import Curve
from gradtui.tui.widgets.key_footer import KeyFooter
from gradtui.tui.widgets.side_by_side import ColumnOpened, ColumnSelected, SideBySide
from gradtui.tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from gradtui.runfile import Measure

ACCURACIES, LOSSES = "Validation accuracy over epochs", "Loss over steps"
ORDERS = ("in order", "most accurate first", "smallest speed ratio first")


class CompareScreen(FollowingScreen[Comparison]):
    """A column a run, and curves.

    Args:
        title: what is compared.
        hint: what to look at.
        sources: one list of runs for each seed, all with the same labels; a plain comparison has one.
        owner: gives the process that still trains them, or None.
        frames_per_second, ready: as `FollowingScreen` has them.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings.ALWAYS,
        Binding("left", "move(-1)", "run", key_display="←/→", tooltip="select the run to the left"),
        Binding("right", "move(1)", "to the right", show=False, tooltip="select the run to the right"),
        Binding("home", "move(-1000)", "first", show=False, tooltip="the first run"),
        Binding("end", "move(1000)", "last", show=False, tooltip="the last run"),
        Binding("enter", "open", "open", tooltip="the selected run by itself"),
        Binding("s", "sort", "sort", tooltip=", ".join(ORDERS)),
        Binding("b", "baseline", "baseline", tooltip="make the selected run the first, which others are compared with"),
        Binding("r", "ratios", "ratio", tooltip="values as multiples of the baseline's, layer by layer"),
        Binding("x", "hide", "hide", tooltip="hide the selected run"),
        Binding("X", "show_all", "show all", show=False, tooltip="show the hidden runs again"),
        *bindings.measure_keys("gradients, parameters, updates, activations"),
        Binding("escape,h", "home", "back", tooltip="back to where it was opened from; trainings go on"),
        Binding("n", "seed", "seed", show=False, tooltip="the runs of the next seed"),
        bindings.LOG_AXIS,
    ]

    def __init__(
        self,
        title: str,
        hint: str,
        sources: Sequence[Sequence[Source]],
        *,
        owner: Callable[[], int | None] = lambda: None,
        frames_per_second: float = FRAMES_PER_SECOND,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._view = ComparisonView(sources[0])
        super().__init__(self._view, frames_per_second=frames_per_second, ready=ready)
        self._compared = title
        self._hint = hint
        self._sources = [list(of_seed) for of_seed in sources]
        self._owner = owner
        self._seed = 0
        self._order = 0
        self._baseline = self._sources[0][0].label
        self._hidden: set[str] = set()
        self._newest: Comparison | None = None
        self._shown: tuple[ComparedRun, ...] = ()
        self._curves: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        """A line about all of it, the runs, the curves."""
        yield Static(id="compare-header", markup=False)
        yield SideBySide(id="side-by-side")
        yield Curve(log=False, id="curves")
        yield Static(clean(self._hint), id="hint", markup=False)
        yield TooSmall()
        yield KeyFooter()

    def on_mount(self) -> None:
        """Title the panels."""
        self.query_one(SideBySide).focus()
        self.query_one("#curves", Curve).set_title(ACCURACIES)
        self._say()

    # -- what arrives -------------------------------------------------------------------------------------------------

    async def show(self, newest: Comparison) -> None:
        """Show the runs as they are now."""
        self._newest = newest
        self._draw()

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that the runs have; empty until one is known."""
        return () if self._newest is None else self._newest.measures

    def _draw(self) -> None:
        newest = self._newest
        if newest is None:
            return
        numbers = {source.label: number for number, source in enumerate(self._sources[0])}
        self._shown = aligned(self._in_order(newest.runs))
        colours = tuple(numbers.get(run.label, 0) for run in self._shown)
        if newest.measures:
            self._side.set_title(f"{title_of(newest.measures[newest.measure])}  {ORDERS[self._order]}")
        self._side.show(self._shown, colours, len(numbers))
        self._draw_curves(newest.runs)
        self._say()

    def _in_order(self, runs: Sequence[ComparedRun]) -> tuple[ComparedRun, ...]:
        """The baseline first, then the others by the order that is chosen; without the hidden ones."""
        kept = [run for run in runs if run.label not in self._hidden]
        if self._order == 1:
            kept.sort(key=lambda run: -(run.accuracy or 0.0))
        elif self._order == 2:
            kept.sort(key=lambda run: math.inf if run.speed_ratio is None else run.speed_ratio)
        kept.sort(key=lambda run: run.label != self._baseline)
        return tuple(kept)

    def _draw_curves(self, runs: Sequence[ComparedRun]) -> None:
        """The accuracies, or the losses where no run has any."""
        losses = not any(run.accuracies for run in runs) and any(run.losses for run in runs)
        shown = tuple(
            ((), ())
            if run.label in self._hidden
            else (run.steps, run.losses)
            if losses
            else (run.epochs, run.accuracies)
            for run in runs
        )
        if shown != self._curves:
            self._curves = shown
            panel = self.query_one("#curves", Curve)
            panel.set_title(LOSSES if losses else ACCURACIES)
            panel.show(*on_one_grid(shown), empty="nothing evaluated yet")

    def _say(self) -> None:
        runs = self._newest.runs if self._newest is not None else ()
        live = sum(run.state == "live" for run in runs)
        waiting = sum(run.state == "waiting" for run in runs)
        facts = [clean(self._compared), f"{len(runs) - live - waiting} of {len(runs)} done"]
        if live:
            facts.append(f"● {live} training")
        if waiting:
            facts.append(f"○ {waiting} waiting")
        if waiting and not live and self._owner() is not None:
            facts.append("starting …")
        if len(self._sources) > 1:
            facts.append(f"seed {self._seed + 1} of {len(self._sources)} (n)")
        if self._hidden:
            facts.append(f"{len(self._hidden)} hidden (X)")
        left, right = self._side.hidden_at_the_sides()
        facts += [f"◂ {left} more"] if left else []
        facts += [f"{right} more ▸"] if right else []
        selected = self._selected()
        if selected is not None and selected.detail:
            facts.append(clean(f"{selected.label}: {selected.detail}"))
        header = self.query_one("#compare-header", Static)
        text = "  ·  ".join(facts)
        if text != header.content:
            header.update(text, layout=False)

    # -- what is asked for --------------------------------------------------------------------------------------------

    @property
    def _side(self) -> SideBySide:
        return self.query_one(SideBySide)

    def _selected(self) -> ComparedRun | None:
        return self._shown[self._side.cursor] if self._side.cursor < len(self._shown) else None

    @property
    def name_to_attach(self) -> str:
        """What `gradtui attach` takes to show this again."""
        return self._sources[0][0].path.parent.name

    @property
    def can_stop(self) -> bool:
        """Whether a process still trains these runs, and can be told to stop."""
        runs = self._newest.runs if self._newest is not None else ()
        over = len(self._sources) == 1 and runs and not any(run.state in ("live", "waiting") for run in runs)
        return not over and self._owner() is not None

    def stop_training(self) -> None:
        """Ask that process to stop; what is done is kept."""
        process = self._owner()
        if process is not None:
            os.kill(process, signal.SIGTERM)

    @on(ColumnSelected)
    def say_selected(self) -> None:
        """Say more about the run under the cursor."""
        self._say()

    @on(ColumnOpened)
    def open_clicked(self) -> None:
        """Open a run that was clicked twice."""
        self.action_open()

    def action_move(self, by: int) -> None:
        """Select another run."""
        self._side.select(self._side.cursor + by)

    def action_open(self) -> None:
        """Show the selected run by itself."""
        run = self._selected()
        if run is None:
            return
        if run.state == "waiting":
            self.notify(f"{clean(run.label)} has not started yet.", markup=False)
        else:
            navigator(self).open_run(run.path)

    def action_sort(self) -> None:
        """Go on to the next order."""
        self._order = (self._order + 1) % len(ORDERS)
        if self._order == 1 and all(run.accuracy is None for run in self._shown):
            self._order = 2
        self._draw()

    def action_baseline(self) -> None:
        """Pin the selected run as the baseline."""
        run = self._selected()
        if run is not None:
            self._baseline = run.label
            self._draw()
            self._side.select(0)

    def action_ratios(self) -> None:
        """Show ratios to the baseline, or values."""
        self._side.ratios = not self._side.ratios
        self._draw()

    def action_hide(self) -> None:
        """Hide the selected run; the last one stays."""
        run = self._selected()
        if run is not None and len(self._shown) > 1:
            self._hidden.add(run.label)
            if run.label == self._baseline:
                self._baseline = next(shown.label for shown in self._shown if shown.label != run.label)
            self._draw()

    def action_show_all(self) -> None:
        """Show all runs again."""
        self._hidden.clear()
        self._draw()

    def action_seed(self) -> None:
        """Show the runs of the next seed."""
        self._seed = (self._seed + 1) % len(self._sources)
        self.following.ask(partial(self._view.show, self._sources[self._seed]))
        self._say()

    def action_measure(self, by: int) -> None:
        """Show another measure."""
        if self._newest is not None and self._newest.measures:
            measure = (self._newest.measure + by) % len(self._newest.measures)
            self.following.ask(partial(self._view.choose, measure))

    def action_toggle_log(self) -> None:
        """Switch the axis."""
        self._side.toggle_log()

    def action_home(self) -> None:
        """Go to the list of experiments and runs."""
        navigator(self).go_home()
