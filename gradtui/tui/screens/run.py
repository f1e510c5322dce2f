"""One run, live, attached or replayed: the same screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static

from gradtui.tui.feed import FRAMES_PER_SECOND, Feed, Waiting
from gradtui.tui.messages import Delivered, Slot
from gradtui.tui.text import clean
from gradtui.tui.widgets.bars import BarRows, Bars
from gradtui.tui.widgets.curve import Curve
from gradtui.tui.widgets.neuron_strip import NeuronStrip
from gradtui.tui.widgets.run_header import RunHeader
from gradtui.tui.widgets.too_small import TooSmall
from gradtui.tui.widgets.words import Words

if TYPE_CHECKING:
    from gradtui.tui.app import GradtuiApp
    from gradtui.tui.screens.neurons import NeuronsScreen
    from gradtui.view import Snapshot

TITLES = {  # the measures that the recorder takes; others are titled by their own names
    "bias_grad_norm": "Learning speed",
    "weight_grad_norm": "Weight gradient",
    "grad_norm": "Gradient norm",
    "param_norm": "Parameter norm",
    "update_ratio": "Update ratio",
}
JUMP = 0.02  # share of the run that ← and → move by


class RunScreen(Screen[None]):
    """Bars, neurons, curves and words about one run.

    `starting` is asked while the run file does not exist yet; see `Feed`.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        # the most needed first: a narrow footer cuts the last ones off
        Binding("question_mark", "app.help", "help", tooltip="this page"),
        Binding("q", "app.leave", "quit", tooltip="quit the viewer; asks first while the training runs"),
        Binding("space", "toggle_pause", "pause", tooltip="pause or follow a live run; replay an ended one"),
        Binding("m", "measure(1)", "measure", tooltip="show the next measure: gradients, parameters, updates"),
        Binding("M", "measure(-1)", "previous measure", show=False, tooltip="show the measure before"),
        Binding("n,enter", "neurons", "neurons", tooltip="all neurons of the selected layer"),
        Binding("left", "jump(-1)", "time", key_display="←/→", tooltip="walk back through time"),
        Binding("right", "jump(1)", "later", show=False, tooltip="walk on through time"),
        Binding("shift+left,comma", "walk(-1)", "a step back", show=False, tooltip="one recorded step back"),
        Binding("shift+right,full_stop", "walk(1)", "a step on", show=False, tooltip="one recorded step on"),
        Binding("home", "first", "first step", show=False, tooltip="the first recorded step"),
        Binding("end", "last", "newest step", show=False, tooltip="the newest step; follow a live run"),
        Binding("escape,h", "home", "home", tooltip="all experiments and runs; a training goes on"),
        Binding("l", "toggle_log", "log", tooltip="logarithmic or linear axis"),
        Binding("p", "plot", "plot", tooltip="a large plot over time, to zoom into"),
    ]

    def __init__(
        self,
        path: Path,
        *,
        frames_per_second: float = FRAMES_PER_SECOND,
        starting: Callable[[], str | None] | None = None,
        log: Callable[[], tuple[str, ...]] = lambda: (),
    ) -> None:
        super().__init__()
        self.path = path
        self.snapshot: Snapshot | None = None
        self._slot = Slot()
        self._neurons_screen: NeuronsScreen | None = None
        self._named: tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]] = ((), (), ())
        self._named_for: object = None
        self.feed = Feed(path, self._deliver, frames_per_second=frames_per_second, starting=starting, log=log)

    def compose(self) -> ComposeResult:
        """The widgets, as they stand on the screen."""
        yield RunHeader(id="run-header")
        with Horizontal(id="run-body"):
            with Vertical(id="run-left"):
                yield Bars(id="bars")
                yield NeuronStrip(id="strip")
            with Vertical(id="run-right"):
                with Horizontal(id="run-progress"):
                    yield Curve(log=False, colour="warning", id="loss")
                    yield Curve(log=False, colour="success", id="accuracy")
                yield Curve(log=True, id="speeds")
                yield Words(id="words")
        yield Static("Opening …", id="waiting", markup=False)
        yield TooSmall(id="too-small")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Title the panels; start reading once the first frame is on the screen."""
        self.query_one("#run-header", RunHeader).show(None, clean(self.path.stem))
        self.query_one("#loss").border_title = "Loss"
        self.query_one("#accuracy").border_title = "Accuracy"
        self.query_one(Words).border_title = "In words"
        self.query_one(Bars).focus()
        self.call_after_refresh(self.feed.start)

    def on_unmount(self) -> None:
        """Stop reading."""
        self.feed.stop()

    # -- what arrives -----------------------------------------------------------------------------------------

    def _deliver(self, newest: Snapshot | Waiting) -> None:
        if self._slot.put(newest):
            self.post_message(Delivered())

    def on_delivered(self) -> None:
        """Show the newest delivery."""
        newest = self._slot.take()
        if isinstance(newest, Waiting):
            self._show_waiting(newest)
        elif newest is not None:
            self._show(newest)

    def _show_waiting(self, waiting: Waiting) -> None:
        if self.snapshot is not None:
            # what was read stays readable when the file is lost
            self.notify(waiting.text, severity="error", timeout=30, markup=False)
            return
        lines = [clean(waiting.text), *(f"  {clean(line)}" for line in waiting.log)]
        panel = self.query_one("#waiting", Static)
        panel.set_class(waiting.failed, "-failed")
        panel.update(Content("\n".join(lines)))

    def _show(self, snapshot: Snapshot) -> None:
        first = self.snapshot is None
        self.snapshot = snapshot
        self.set_class(True, "-ready")
        self.query_one(RunHeader).show(snapshot)
        bars = self.query_one("#bars", Bars)
        measure = snapshot.measures[snapshot.measure]
        title = f"{TITLES.get(measure.name, clean(measure.name))}  {clean(measure.symbol)}"
        bars.set_title(title)
        numbers, names, notes = self._names(snapshot)
        bars.show(BarRows(numbers, names, notes, snapshot.values, snapshot.before))
        strip = self.query_one(NeuronStrip)
        strip.set_title(f"Neurons of {names[snapshot.layer]}")
        strip.show(snapshot.neurons, snapshot.layer, len(names))
        self._show_curves(snapshot, f"{title} over time")
        self._show_words(snapshot)
        if self._neurons_screen is not None:
            self._neurons_screen.show(snapshot)
        if first:
            bars.focus()

    def _names(self, snapshot: Snapshot) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
        if self._named_for is not snapshot.layers:
            self._named_for = snapshot.layers
            self._named = (
                tuple(range(1, len(snapshot.layers) + 1)),
                tuple(clean(layer.name) for layer in snapshot.layers),
                tuple(clean(layer.shape) for layer in snapshot.layers),
            )
        return self._named

    def _show_curves(self, snapshot: Snapshot, title: str) -> None:
        curves = snapshot.curves
        span = snapshot.last_step - snapshot.first_step
        cursor = None if snapshot.following or span <= 0 else (snapshot.step - snapshot.first_step) / span
        speeds = self.query_one("#speeds", Curve)
        speeds.set_title(title)
        speeds.show(curves.last_step, curves.mean, broken=curves.broken, cursor=cursor)
        loss = self.query_one("#loss", Curve)
        loss.show(curves.last_step, curves.loss, broken=curves.loss_broken, cursor=cursor, empty="no loss logged")
        accuracy = self.query_one("#accuracy", Curve)
        accuracy.set_class(snapshot.accuracy is None, "-absent")
        if snapshot.accuracy is not None:
            accuracy.show(snapshot.accuracy.step, snapshot.accuracy.value)

    def _show_words(self, snapshot: Snapshot) -> None:
        status = snapshot.status
        lines = list(snapshot.words)
        if status.detail:
            lines.append(f"{status.state}: {status.detail}")
        elif status.live and status.silent > 10:
            lines.append(f"no sign of life for {status.silent:.0f} s")
        lines += [f"{event.kind} at step {event.step:,}: {event.text}" if event.step is not None
                  else f"{event.kind}: {event.text}" for event in reversed(snapshot.events[-20:])]  # fmt: skip
        self.query_one(Words).show([clean(line) for line in lines])

    # -- what is asked for ------------------------------------------------------------------------------------

    def on_bars_selected(self, event: Bars.Selected) -> None:
        """Show the neurons of the layer under the cursor."""
        self.feed.want(layer=event.row)

    def select_layer(self, layer: int) -> None:
        """Move the cursor to a layer."""
        self.query_one("#bars", Bars).select(layer)

    def on_bars_opened(self) -> None:
        """Open the neurons of a layer that was clicked twice."""
        self.action_neurons()

    def action_toggle_pause(self) -> None:
        """Pause, follow or replay."""
        self.feed.toggle_pause()

    def action_measure(self, by: int) -> None:
        """Show another measure."""
        if self.snapshot is not None:
            self.feed.want(measure=(self.snapshot.measure + by) % len(self.snapshot.measures))

    def action_jump(self, direction: int) -> None:
        """Walk through time."""
        self.feed.jump(direction * JUMP)

    def action_walk(self, direction: int) -> None:
        """Walk by single recorded steps."""
        self.feed.walk(direction)

    def action_first(self) -> None:
        """Show the first recorded step."""
        self.feed.want(cursor=0, playing=False)

    def action_last(self) -> None:
        """Show the newest step, and follow."""
        self.feed.want(cursor=None, playing=False)

    def action_toggle_log(self) -> None:
        """Switch the axis of the bars."""
        self.query_one("#bars", Bars).toggle_log()

    def action_neurons(self) -> None:
        """Open the neurons of the selected layer."""
        if self.snapshot is not None:
            from gradtui.tui.screens.neurons import NeuronsScreen

            self._neurons_screen = NeuronsScreen(self)
            self.app.push_screen(self._neurons_screen, self._neurons_closed)
            self._neurons_screen.show(self.snapshot)

    def _neurons_closed(self, _: None) -> None:
        self._neurons_screen = None

    def action_plot(self) -> None:
        """Open the large plot."""
        if self.snapshot is not None:
            from gradtui.tui.screens.plot import PlotScreen

            self.app.push_screen(PlotScreen(self.path, self.snapshot.measure))

    def action_home(self) -> None:
        """Go to the list of experiments and runs."""
        cast("GradtuiApp", self.app).go_home()
