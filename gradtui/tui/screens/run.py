"""One run, live, attached or replayed: the same screen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from gradtui.errors import GradtuiError
from gradtui.tui import bindings
from gradtui.tui.follow_thread import FRAMES_PER_SECOND
from gradtui.tui.messages import RowOpened, RowSelected
from gradtui.tui.navigation import navigator
from gradtui.tui.run_follower import RunFollower
from gradtui.tui.run_view import RunView, Waiting
from gradtui.tui.screens.following import FollowingScreen
from gradtui.tui.text import clean
from gradtui.tui.widgets.key_footer import KeyFooter
from gradtui.tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from gradtui.runfile import Measure
    from gradtui.tui.screens.detail import DetailScreen
    from gradtui.tui.widgets.bars import Bars
    from gradtui.tui.widgets.run_body import RunBody
    from gradtui.tui.widgets.run_header import RunHeader
    from gradtui.view import Snapshot

JUMP = 0.02  # share of the run that ← and → move by


class RunScreen(FollowingScreen["Snapshot | Waiting"]):
    """Bars, neurons, curves and words about one run.

    Args:
        find: which run; called on another thread.
        name: what is shown until the run is open.
        frames_per_second, ready: as `FollowingScreen` has them.
        starting_problem: for a training that was launched from here and has no run file yet: None as long as it is
            starting, else a line that says how that went wrong.
        log: the last lines that the training printed.
        stop: stops a training that was launched from here, even before it has a run file.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        # the most needed first: a narrow footer leaves the last ones out
        *bindings.ALWAYS,
        bindings.PAUSE,
        *bindings.measure_keys("gradients, parameters, updates, activations"),
        Binding("f", "findings", "findings", tooltip="what is wrong: every finding, its evidence, suggested fixes"),
        Binding("n,enter", "neurons", "neurons", tooltip="all neurons of the selected layer"),
        bindings.EARLIER,
        bindings.LATER,
        Binding("shift+left,comma", "walk(-1)", "a step back", show=False, tooltip="one recorded step back"),
        Binding("shift+right,full_stop", "walk(1)", "a step on", show=False, tooltip="one recorded step on"),
        Binding("home", "first", "first step", show=False, tooltip="the first recorded step"),
        Binding("end", "last", "newest step", show=False, tooltip="the newest step; follow a live run"),
        Binding("escape,h", "home", "home", tooltip="all experiments and runs; a training goes on"),
        bindings.LOG_AXIS,
        Binding("p", "plot", "plot", tooltip="a large plot over time, to zoom into"),
        Binding("t", "time", "time steps", show=False, tooltip="the gradient through time of a recurrent net"),
        Binding("i", "images", "images", show=False, tooltip="filters and samples of a layer that is pretrained"),
        Binding("w", "again", "again with", tooltip="a built-in training again with one thing changed, side by side"),
    ]

    def __init__(
        self,
        find: Callable[[], Path],
        name: str,
        *,
        frames_per_second: float = FRAMES_PER_SECOND,
        ready: Callable[[], bool] = lambda: True,
        starting_problem: Callable[[], str | None] | None = None,
        log: Callable[[], tuple[str, ...]] = lambda: (),
        stop: Callable[[], None] | None = None,
    ) -> None:
        follower = RunFollower(find, waits=starting_problem is not None)
        self._view = RunView(follower, starting_problem=starting_problem or (lambda: None), log=log)
        super().__init__(self._view, frames_per_second=frames_per_second, ready=ready)
        self.snapshot: Snapshot | None = None
        self._stop_launched = stop
        self._name_until_known = name
        self._failed = False
        self._detail: DetailScreen | None = None  # what is open over this screen

    def compose(self) -> ComposeResult:
        """The reason why there are no bars yet."""
        yield Static(f"Opening {clean(self._name_until_known)} …", id="waiting", markup=False)
        yield TooSmall()
        yield KeyFooter()

    def rest(self) -> None:
        """Stop reading, and forget the training: the screen is not seen again."""
        super().rest()
        self.snapshot, self._stop_launched = None, None

    # -- what arrives -------------------------------------------------------------------------------------------------

    async def show(self, newest: Snapshot | Waiting) -> None:
        """Show the run, or why there is nothing of it to show."""
        if isinstance(newest, Waiting):
            self._show_waiting(newest)
        else:
            await self._show(newest)

    def _show_waiting(self, waiting: Waiting) -> None:
        if self.snapshot is not None:
            # what was read stays readable when the file is lost
            self.notify(clean(waiting.text), severity="error", timeout=30, markup=False)
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
            await self.mount(RunHeader(id="run-header"), RunBody(id="run-body"), before=self.query_one(TooSmall))
            self._bars.focus()
        self._header.show(snapshot)
        self._body.show(snapshot)
        if self._detail is not None:
            self._detail.show(snapshot)

    @property
    def path(self) -> Path | None:
        """The run file; None until it is found."""
        return self._view.follower.path

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that the run has; empty until it is known."""
        return () if self.snapshot is None else self.snapshot.measures

    @property
    def name_to_attach(self) -> str:
        """What `gradtui attach` takes to show this again."""
        return self.path.stem if self.path is not None else "the run"

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
        elif self.path is not None:
            from gradtui.runfile import request

            request(self.path, "stop")

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

    def _want(self, **changes: object) -> None:
        self.following.ask(partial(self._view.want, **changes))

    @on(RowSelected)
    def show_neurons_of_layer(self, event: RowSelected) -> None:
        """Show the neurons of the layer under the cursor."""
        self._want(layer=event.row)

    def select_layer(self, layer: int) -> None:
        """Move the cursor to a layer."""
        self._bars.select(layer)

    @on(RowOpened)
    def open_clicked_layer(self) -> None:
        """Open the neurons of a layer that was clicked twice."""
        self.action_neurons()

    def action_toggle_pause(self) -> None:
        """Pause, follow or replay."""
        self.following.ask(self._view.toggle_pause)

    def action_measure(self, by: int) -> None:
        """Show another measure."""
        if self.snapshot is not None:
            self._want(measure=(self.snapshot.measure + by) % len(self.snapshot.measures))

    def action_jump(self, direction: int) -> None:
        """Walk through time."""
        self.following.ask(partial(self._view.jump, direction * JUMP))

    def action_walk(self, direction: int) -> None:
        """Walk by single recorded steps."""
        self.following.ask(partial(self._view.walk, direction))

    def action_first(self) -> None:
        """Show the first recorded step."""
        self._want(cursor=0, playing=False)

    def action_last(self) -> None:
        """Show the newest step, and follow."""
        self._want(cursor=None, playing=False)

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
        if self.snapshot is not None and self.path is not None:
            from gradtui.tui.screens.plot import PlotScreen

            self.app.push_screen(PlotScreen(self.path, self.snapshot.measure))

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
        return action != "again" or (self.snapshot is not None and self.snapshot.header.recipe is not None)

    def action_again(self) -> None:
        """Train the same recipe with one thing changed."""
        if self.snapshot is None or self.snapshot.header.recipe is None or self.path is None:
            return
        from gradtui.lab.recipe import Recipe

        try:
            recipe = Recipe.from_json(self.snapshot.header.recipe)
        except GradtuiError as error:
            self.notify(clean(str(error)), severity="error", markup=False)
            return
        navigator(self).new_recipe(recipe, self.path)

    def action_home(self) -> None:
        """Go to the list of experiments and runs."""
        navigator(self).go_home()
