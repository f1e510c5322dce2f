"""The viewer: which screen is shown, starting and stopping trainings, leaving."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.screen import Screen

from gradtui.errors import GradtuiError
from gradtui.tui.ascii import AsciiFilter
from gradtui.tui.link import Link
from gradtui.tui.painter import Painter
from gradtui.tui.palette import DARK, LIGHT
from gradtui.tui.text import clean
from gradtui.tui.textual_private import CompositorUpdate, PaintedApp, driver_of
from gradtui.tui.widgets.too_small import LEAST_HEIGHT, LEAST_WIDTH

if TYPE_CHECKING:
    from textual.driver import Driver
    from textual.notifications import SeverityLevel

    from gradtui.lab.experiments import Experiment
    from gradtui.lab.recipe import Recipe
    from gradtui.recorded_command import Launched
    from gradtui.tui.screens.compare import CompareScreen
    from gradtui.tui.screens.following import FollowingScreen
    from gradtui.tui.screens.run import RunScreen


_NO_LABELS: Mapping[Path, str] = MappingProxyType({})


class GradtuiApp(PaintedApp):
    """Home, or one run at once. The return value is a last line for the terminal, e.g. how to attach again.

    Args:
        folder: where runs live.
        run: the run to open; None opens Home, or the newest run if `newest`.
        launch: the training that was just started to write `run`.
        comparison: the folder of a comparison to open, or run files to be shown side by side.
        ascii_only: draw with ASCII characters alone.
    """

    CSS_PATH = "app.tcss"
    TITLE = "gradtui"
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - as App declares it
        (0, "-tiny"),
        (LEAST_WIDTH, "-narrow"),
        (96, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-flat"),
        (LEAST_HEIGHT, "-low"),
        (22, "-tall"),
        (34, "-high"),
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "leave", show=False, priority=True),
        Binding("ctrl+l", "redraw", show=False, priority=True),
    ]

    def __init__(
        self,
        folder: Path,
        *,
        run: Path | None = None,
        newest: bool = False,
        launch: Launched | None = None,
        comparison: Path | Sequence[Path] | None = None,
        frames_per_second: float = 4.0,
        ascii_only: bool = False,
    ) -> None:
        super().__init__()
        self.link = Link()
        self.painter = Painter(self, self.link)
        self._folder = folder
        self._run = run
        self._newest = newest
        self._launch = launch
        self._comparison = comparison
        self._frames_per_second = frames_per_second
        self.ascii_only = ascii_only
        self._ascii = [AsciiFilter()] if ascii_only else []
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a message, as text whatever it holds: names and errors from outside stand in it."""
        shown, heading = clean(message), clean(title)
        super().notify(shown, title=heading, severity=severity, timeout=timeout, markup=False)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's filters, and the one that leaves only ASCII."""
        return [*super().get_line_filters(), *self._ascii]

    def get_driver_class(self) -> type[Driver]:
        """Textual's own, but for the one for terminals on Unix."""
        theirs = super().get_driver_class()
        if theirs.__name__ != "LinuxDriver":
            return theirs
        from gradtui.tui.driver import PacedDriver

        return PacedDriver

    def paint(self, update: CompositorUpdate) -> None:
        """Bring an update to the terminal, over a canvas."""
        self.painter.draw(update)

    def on_resize(self) -> None:
        """A terminal that was resized, or was away, may have lost what stood on it."""
        self.painter.redraw()

    def get_default_screen(self) -> Screen[None]:
        """The screen that the program opens with."""
        if self._run is not None:
            return self._run_screen(self._run, self._launch)
        if self._comparison is not None:
            return self._compare_screen(self._comparison)
        return self._newest_run() if self._newest else self._home()

    def export_screenshot(self, *, title: str | None = None, simplify: bool = False) -> str:
        """An SVG picture of the screen that fetches nothing: Textual's own names a font on a server."""
        picture = super().export_screenshot(title=title, simplify=simplify)
        return re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)

    def on_mount(self) -> None:
        """Leave cleanly when the connection is lost or the program is asked to end; a training is not touched."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGHUP, signal.SIGTERM):
            loop.add_signal_handler(number, self.exit)
        if not self.is_headless:
            self.set_interval(1.0, self._leave_if_hung_up)

    def _leave_if_hung_up(self) -> None:
        # the signal does not reach every process of a terminal that is gone
        if getattr(driver_of(self), "hung_up", False):
            self.exit()

    # -- screens ------------------------------------------------------------------------------------------------------

    def open_run(self, path: Path, launch: Launched | None = None) -> None:
        """Show a run over Home."""
        self.push_screen(self._run_screen(path, launch))

    def start(self, recipe: Recipe) -> None:
        """Start a training of its own, and show it."""
        from gradtui.lab.background import launch_in

        try:
            launch = launch_in(self._folder, recipe)
        except GradtuiError as error:
            self._say_not_started(error)
            return
        self.open_run(launch.path, launch)

    def compare(self, name: str, experiment: Experiment) -> None:
        """Train the recipes of an experiment that are not trained yet, and show them side by side."""
        from gradtui.lab.background import launch_comparison
        from gradtui.lab.plan import Plan, comparison_folder, running

        folder = comparison_folder(self._folder, name)
        try:
            if running(folder) is None:
                seed = experiment.recipe.seed
                plan = Plan(folder, experiment.title, experiment.hint, experiment.recipes, (seed,))
                launch_comparison(replace(plan, target_cost=experiment.target_cost))
            self.open_comparison(folder)
        except GradtuiError as error:
            self._say_not_started(error)

    def open_comparison(self, what: Path | Sequence[Path]) -> None:
        """Show runs side by side: those of a comparison's folder, or any; raises `GradtuiError`."""
        self.push_screen(self._compare_screen(what))

    def same_again(self, run: Path, recipe: Recipe) -> None:
        """Train a changed recipe, and show it beside the run that it was taken from."""
        from gradtui.lab.background import launch_in

        try:
            launch = launch_in(self._folder, recipe)
        except GradtuiError as error:
            self._say_not_started(error)
            return
        self.push_screen(self._compare_screen([run, launch.path], {launch.path: recipe.title}))

    def new_recipe(self, recipe: Recipe, run: Path | None = None) -> None:
        """Open the form of a recipe; one that was taken from a run is compared with it."""
        from gradtui.tui.screens.recipe_form import RecipeForm

        def start(changed: Recipe | None) -> None:
            if changed is not None:
                self.start(changed) if run is None else self.same_again(run, changed)

        self.push_screen(RecipeForm(recipe, again=run is not None), start)

    def _say_not_started(self, error: GradtuiError) -> None:
        self.notify(clean(str(error)), title="Not started", severity="error", timeout=15, markup=False)

    def go_home(self) -> None:
        """Close the run that is shown; it goes on."""
        if len(self.screen_stack) > 1:
            self.pop_screen()
        else:
            # an app's first screen cannot be replaced: the run rests, unseen, under Home
            from gradtui.tui.screens.following import FollowingScreen

            if isinstance(self.screen, FollowingScreen):
                self.screen.rest()
            self.push_screen(self._home())

    def _home(self) -> Screen[None]:
        from gradtui.tui.screens.home import HomeScreen

        return HomeScreen(self._folder)

    def _run_screen(self, path: Path, launch: Launched | None) -> RunScreen:
        from gradtui.tui.screens.run import RunScreen

        frames, ready = self._frames_per_second, self._link_is_ready
        if launch is None:
            return RunScreen(lambda: path, path.stem, frames_per_second=frames, ready=ready)
        return RunScreen(
            lambda: path,
            path.stem,
            frames_per_second=frames,
            ready=ready,
            starting_problem=launch.trouble,
            log=launch.log_tail,
            stop=launch.stop,
        )

    def _compare_screen(self, what: Path | Sequence[Path], labels: Mapping[Path, str] = _NO_LABELS) -> CompareScreen:
        from gradtui.tui.compared_runs import Source
        from gradtui.tui.screens.compare import CompareScreen

        frames, ready = self._frames_per_second, self._link_is_ready
        if not isinstance(what, Path):
            sources = [Source(labels.get(path, path.stem), path) for path in what]
            return CompareScreen("side by side", "", [sources], frames_per_second=frames, ready=ready)
        from gradtui.lab.plan import load_plan, running

        plan = load_plan(what)
        by_seed = [
            [Source(cell.label, cell.path) for cell in plan.cells() if cell.recipe.seed == seed] for seed in plan.seeds
        ]
        return CompareScreen(
            plan.title,
            plan.hint,
            by_seed,
            owner=lambda: running(plan.folder),
            frames_per_second=frames,
            ready=ready,
        )

    def _newest_run(self) -> RunScreen:
        from gradtui.tui.screens.run import RunScreen

        def find() -> Path:
            # reads every run of the folder, so not before the first frame
            from gradtui.runfolder import find_run

            return find_run(None, self._folder)

        return RunScreen(find, "the newest run", frames_per_second=self._frames_per_second, ready=self._link_is_ready)

    def _link_is_ready(self) -> bool:
        return self.link.ready

    # -- help and leaving ---------------------------------------------------------------------------------------------

    def action_redraw(self) -> None:
        """Draw the screen anew, as in most terminal programs, where something else wrote on it."""
        self.painter.redraw()

    def action_help(self) -> None:
        """List the keys of the screen that is shown."""
        from gradtui.tui.screens.help import HelpScreen

        self.push_screen(HelpScreen(self.screen))

    async def action_leave(self) -> None:
        """Quit; ask first if the run that is shown still trains and can be told to stop."""
        from gradtui.tui.screens.ask import AskScreen
        from gradtui.tui.screens.following import FollowingScreen

        if isinstance(self.screen, AskScreen):
            self.screen.dismiss("escape")
            return
        shown = next((screen for screen in reversed(self.screen_stack) if isinstance(screen, FollowingScreen)), None)
        if shown is None or not shown.can_stop:
            self.exit()
            return
        answers = {"l": "leave it running", "s": "stop it", "escape": "stay here"}
        name = shown.name_to_attach
        question = AskScreen(f"{clean(name)} is still training.", answers)
        self.push_screen(question, lambda answer: self._leave(shown, name, answer))

    def _leave(self, shown: FollowingScreen[Any], name: str, answer: str | None) -> None:
        if answer == "l":
            self.exit(f"{name} goes on training: `gradtui attach {name}` shows it again")
        elif answer == "s":
            try:
                shown.stop_training()
            except (GradtuiError, OSError) as error:
                self.notify(clean(str(error)), severity="error", markup=False)
                return
            self.exit(f"{name} was asked to stop; what it recorded stays: `gradtui attach {name}`")
