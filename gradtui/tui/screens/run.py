"""One run, live, attached or replayed: the same screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import Footer, Static

from gradtui.errors import GradtuiError
from gradtui.tui.feed import FRAMES_PER_SECOND, Feed, Waiting
from gradtui.tui.messages import Delivered, RowOpened, RowSelected, Slot
from gradtui.tui.screens.trained import TrainedScreen
from gradtui.tui.text import clean
from gradtui.tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from gradtui.tui.app import GradtuiApp
    from gradtui.tui.screens.detail import DetailScreen
    from gradtui.tui.widgets.bars import Bars
    from gradtui.tui.widgets.run_body import RunBody
    from gradtui.tui.widgets.run_header import RunHeader
    from gradtui.view import Snapshot

JUMP = 0.02  # share of the run that ← and → move by


class RunScreen(TrainedScreen):
    """Bars, neurons, curves and words about one run.

    `find`, `ready`, `starting` and `log` are the feed's; `name` is shown until the run is open. `stop` stops a training
    that was launched from here, even before it has a run file.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        # the most needed first: a narrow footer cuts the last ones off
        Binding("question_mark", "app.help", "help", tooltip="this page"),
        Binding("q", "app.leave", "quit", tooltip="quit; asks first where a training can be stopped"),
        Binding("space", "toggle_pause", "pause", tooltip="pause or follow a live run; replay an ended one"),
        Binding("m", "measure(1)", "measure", tooltip="show the next measure: gradients, parameters, updates"),
        Binding("M", "measure(-1)", "previous measure", show=False, tooltip="show the measure before"),
        Binding("n,enter", "neurons", "neurons", tooltip="all neurons of the selected layer"),
        Binding("f", "findings", "findings", tooltip="what ails this net: every finding, the numbers, what may help"),
        Binding("left", "jump(-1)", "time", key_display="←/→", tooltip="walk back through time"),
        Binding("right", "jump(1)", "later", show=False, tooltip="walk on through time"),
        Binding("shift+left,comma", "walk(-1)", "a step back", show=False, tooltip="one recorded step back"),
        Binding("shift+right,full_stop", "walk(1)", "a step on", show=False, tooltip="one recorded step on"),
        Binding("home", "first", "first step", show=False, tooltip="the first recorded step"),
        Binding("end", "last", "newest step", show=False, tooltip="the newest step; follow a live run"),
        Binding("escape,h", "home", "home", tooltip="all experiments and runs; a training goes on"),
        Binding("l", "toggle_log", "log", tooltip="logarithmic or linear axis"),
        Binding("p", "plot", "plot", tooltip="a large plot over time, to zoom into"),
        Binding("t", "time", "time steps", show=False, tooltip="the gradient through time of a recurrent net"),
        Binding("i", "images", "images", show=False, tooltip="filters and dreams of a layer that is pretrained"),
        Binding("w", "again", "again with", tooltip="a built-in training again with one thing changed, side by side"),
    ]

    def __init__(
        self,
        find: Callable[[], Path],
        name: str,
        *,
        frames_per_second: float = FRAMES_PER_SECOND,
        ready: Callable[[], bool] = lambda: True,
        starting: Callable[[], str | None] | None = None,
        log: Callable[[], tuple[str, ...]] = lambda: (),
        stop: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self._stop_launched = stop
        self.snapshot: Snapshot | None = None
        self._name_until_known = name
        self._failed = self._resting = False
        self._slot = Slot()
        self._detail: DetailScreen | None = None  # what is open over this screen
        self.feed = Feed(
            find, self._deliver, frames_per_second=frames_per_second, ready=ready, starting=starting, log=log
        )

    def compose(self) -> ComposeResult:
        """The reason why there are no bars yet."""
        yield Static(f"Opening {clean(self._name_until_known)} …", id="waiting", markup=False)
        yield TooSmall(id="update-too-small")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Start reading once the first frame is on the screen."""
        self.call_after_refresh(self.feed.start)

    def on_unmount(self) -> None:
        """Stop reading."""
        self.feed.stop()

    def rest(self) -> None:
        """Stop reading, and forget the training: the screen is not seen again."""
        self.feed.stop()
        self.snapshot, self._stop_launched, self._resting = None, None, True

    # -- what arrives -----------------------------------------------------------------------------------------

    def _deliver(self, newest: Snapshot | Waiting) -> None:
        if self._slot.put(newest):
            self.post_message(Delivered())

    async def on_delivered(self) -> None:
        """Show the newest delivery."""
        newest = self._slot.take()
        if self._resting:
            return
        try:
            if isinstance(newest, Waiting):
                self._show_waiting(newest)
            elif newest is not None:
                await self._show(newest)
        except NoMatches:
            if self in self.app.screen_stack:
                raise
            # it arrived while the screen was being left, and the widgets are gone already

    def _show_waiting(self, waiting: Waiting) -> None:
        if self.snapshot is not None:
            # what was read stays readable when the file is lost
            self.notify(waiting.text, severity="error", timeout=30, markup=False)
            return
        self._failed = waiting.failed
        lines = [clean(waiting.text), *(f"  {clean(line)}" for line in waiting.log)]
        panel = self.query_one("#waiting", Static)
        panel.set_class(waiting.failed, "-failed")
        panel.update(Content("\n".join(lines)))

    async def _show(self, snapshot: Snapshot) -> None:
        first = self.snapshot is None
        self.snapshot = snapshot
        if first:
            self.refresh_bindings()
            # loaded now: the first frame does without them
            from gradtui.tui.widgets.run_body import RunBody
            from gradtui.tui.widgets.run_header import RunHeader

            await self.query_one("#waiting").remove()
            await self.mount(RunHeader(id="run-header"), RunBody(id="run-body"), before="#update-too-small")
            self._bars.focus()
        self._header.show(snapshot)
        self._body.show(snapshot)
        if self._detail is not None:
            self._detail.show(snapshot)

    @property
    def name_to_attach(self) -> str:
        """What `gradtui attach` takes to show this again."""
        return self.feed.path.stem if self.feed.path is not None else "the run"

    @property
    def can_stop(self) -> bool:
        """Whether the run still trains, or is starting to, and takes the command to stop."""
        if self.snapshot is None:
            return self._stop_launched is not None and not self._failed
        return self.snapshot.status.live and self.snapshot.takes_stop

    def stop_training(self) -> None:
        """Ask the training to stop; raises `GradtuiError` if it cannot be asked."""
        if self._stop_launched is not None:
            self._stop_launched()
        elif self.feed.path is not None:
            from gradtui.runfile import request

            request(self.feed.path, "stop")

    @property
    def _header(self) -> RunHeader:
        return cast("RunHeader", self.query_one("#run-header"))

    @property
    def _body(self) -> RunBody:
        return cast("RunBody", self.query_one("#run-body"))

    @property
    def _bars(self) -> Bars:
        return cast("Bars", self.query_one("#bars"))

    # -- what is asked for ------------------------------------------------------------------------------------

    @on(RowSelected)
    def show_neurons_of_layer(self, event: RowSelected) -> None:
        """Show the neurons of the layer under the cursor."""
        self.feed.want(layer=event.row)

    def select_layer(self, layer: int) -> None:
        """Move the cursor to a layer."""
        self._bars.select(layer)

    @on(RowOpened)
    def open_clicked_layer(self) -> None:
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
        if self.snapshot is not None:
            self._bars.toggle_log()

    def action_neurons(self) -> None:
        """Open the neurons of the selected layer."""
        from gradtui.tui.screens.neurons import NeuronsScreen

        self._open(NeuronsScreen(self))

    def action_findings(self) -> None:
        """Open the findings in full."""
        from gradtui.tui.screens.findings import FindingsScreen

        self._open(FindingsScreen(self))

    def _open(self, detail: DetailScreen) -> None:
        if self.snapshot is not None:
            self._detail = detail
            self.app.push_screen(detail, self._detail_closed)
            detail.show(self.snapshot)

    def _detail_closed(self, _: None) -> None:
        self._detail = None

    def action_plot(self) -> None:
        """Open the large plot."""
        if self.snapshot is not None and self.feed.path is not None:
            from gradtui.tui.screens.plot import PlotScreen

            self.app.push_screen(PlotScreen(self.feed.path, self.snapshot.measure))

    def action_time(self) -> None:
        """Open the gradient through time."""
        if self.snapshot is None:
            return
        if not self.snapshot.through_time:
            self.notify("This net is not recurrent, or its gradient through time is not measured yet.", markup=False)
            return
        from gradtui.tui.screens.through_time import ThroughTimeScreen

        self._open(ThroughTimeScreen(self))

    def action_images(self) -> None:
        """Open the pictures."""
        if self.snapshot is None:
            return
        if not self.snapshot.pictures:
            self.notify("No pictures yet: a net has some while its layers are pretrained (--pretrain).", markup=False)
            return
        from gradtui.tui.screens.images import ImagesScreen

        self._open(ImagesScreen(self))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only built-in trainings, which are made from a recipe, can be had again."""
        return action != "again" or (self.snapshot is not None and self.snapshot.recipe is not None)

    def action_again(self) -> None:
        """Train the same recipe with one thing changed."""
        if self.snapshot is None or self.snapshot.recipe is None or self.feed.path is None:
            return
        from gradtui.lab.recipe import Recipe

        try:
            recipe = Recipe.from_json(self.snapshot.recipe)
        except GradtuiError as error:
            self.notify(clean(str(error)), severity="error", markup=False)
            return
        cast("GradtuiApp", self.app).new_recipe(recipe, self.feed.path)

    def action_home(self) -> None:
        """Go to the list of experiments and runs."""
        cast("GradtuiApp", self.app).go_home()
