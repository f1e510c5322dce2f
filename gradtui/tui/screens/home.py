"""Where the program opens: experiments to start, and runs to open, live ones first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from gradtui.errors import GradtuiError
from gradtui.tui import bindings
from gradtui.tui.navigation import navigator
from gradtui.tui.text import clean
from gradtui.tui.widgets.key_footer import KeyFooter
from gradtui.tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from gradtui.lab.experiments import Experiment
    from gradtui.runfolder import RunSummary

POLL_EVERY = 2.0  # s between polls of the folder
COMPARISON = "comparison/"  # before the name of a comparison's folder, where runs have their ids


class Choices(OptionList):
    """A list whose enter key stands in the footer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select", "open")]


class HomeScreen(Screen[None]):
    """Experiments on the left with what to look at, runs below."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings.ALWAYS,
        Binding(
            "tab",
            "app.focus_next",
            "other list",
            tooltip="go from the experiments to the runs and back",
        ),
        Binding("f", "form", "new recipe", tooltip="build a recipe: a form with every choice"),
        Binding("o", "one", "train one", tooltip="train only the first recipe of the experiment under the cursor"),
        Binding("d", "delete", "delete", tooltip="delete the run or the comparison under the cursor; asks first"),
    ]

    class Listed(Message):
        """The folder was read."""

        def __init__(self, runs: list[RunSummary], comparisons: list[Path]) -> None:
            super().__init__()
            self.runs = runs
            self.comparisons = comparisons

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._experiments: dict[str, Experiment] = {}
        self._runs: dict[str, RunSummary] = {}
        self._comparisons: list[Path] = []
        self._shown: list[tuple[str, str]] = []

    def compose(self) -> ComposeResult:
        """The widgets, as they stand on the screen."""
        yield Static("gradtui   how fast does every layer learn?", id="banner", markup=False)
        with Horizontal(id="home-top"):
            yield Choices(id="experiments", markup=False)
            with VerticalScroll(id="about", can_focus=False):
                yield Static(id="about-text", markup=False)
        yield Choices(id="runs", markup=False)
        yield TooSmall()
        yield KeyFooter()

    def on_mount(self) -> None:
        """List the experiments; read the folder once the first frame is on the screen."""
        experiments = self.query_one("#experiments", OptionList)
        experiments.border_title = "Experiments"
        experiments.focus()
        self.query_one("#about").border_title = "What to look at"
        runs = self.query_one("#runs", OptionList)
        runs.border_title = Content(f"Runs in {clean(str(self._folder))}")
        self.call_after_refresh(self._list_experiments)
        self.set_interval(POLL_EVERY, self._read_folder)

    def _list_experiments(self) -> None:
        from gradtui.lab.experiments import EXPERIMENTS

        self._experiments = dict(EXPERIMENTS)
        experiments = self.query_one("#experiments", OptionList)
        experiments.add_options([Option(e.title, id=name) for name, e in self._experiments.items()])
        experiments.highlighted = 0
        self._read_folder()

    def on_screen_resume(self) -> None:
        """Read the folder again when coming back."""
        if self._shown:
            self._read_folder()

    @work(thread=True, exclusive=True)
    def _read_folder(self) -> None:
        from gradtui.lab.plan import comparisons
        from gradtui.runfolder import list_again

        try:
            found, compared = list_again(self._folder, self._runs.values()), comparisons(self._folder)
        except OSError as error:
            self.app.call_from_thread(self.notify, f"{self._folder}: {error.strerror}", severity="error", markup=False)
            return
        self.post_message(self.Listed(found, compared))

    def on_home_screen_listed(self, event: HomeScreen.Listed) -> None:
        """Show the runs; leave the list alone where nothing changed."""
        self._runs = {run.run_id: run for run in event.runs}
        width = max(40, self.size.width - 6)
        self._comparisons = event.comparisons
        from gradtui.tui.run_lines import describe, describe_comparison

        shown = [(COMPARISON + path.name, describe_comparison(path, width)) for path in event.comparisons]
        shown += [(run.run_id, describe(run, width)) for run in event.runs]
        if shown == self._shown:
            return
        runs = self.query_one("#runs", OptionList)
        if [name for name, _ in shown] == [name for name, _ in self._shown]:
            for (name, text), (_, before) in zip(shown, self._shown, strict=True):
                if text != before:
                    runs.replace_option_prompt(name, text)
        else:
            chosen = runs.highlighted_option.id if runs.highlighted_option else None
            runs.set_options([Option(text, id=name) for name, text in shown])
            names = [name for name, _ in shown]
            runs.highlighted = names.index(chosen) if chosen in names else (0 if names else None)
        runs.border_subtitle = "" if shown else "none yet: press enter on an experiment"
        self._shown = shown

    def on_resize(self) -> None:
        """Describe the runs for the new width."""
        if self._shown:
            self.on_home_screen_listed(self.Listed(list(self._runs.values()), self._comparisons))

    def on_option_list_option_highlighted(self) -> None:
        """Describe what the cursor has moved to."""
        self._describe_choice()

    def on_descendant_focus(self) -> None:
        """Describe what the cursor of the other list is on."""
        self._describe_choice()

    def _describe_choice(self) -> None:
        """Say what the experiment shows, or more about the run."""
        chosen = self.focused
        if not isinstance(chosen, OptionList) or chosen.highlighted_option is None:
            return
        name = str(chosen.highlighted_option.id)
        about = self.query_one("#about-text", Static)
        if chosen.id == "experiments":
            experiment = self._experiments[name]
            about.update(_describe_experiment(name, experiment))
        elif name.startswith(COMPARISON):
            about.update(f"A comparison: runs side by side.\n\n$ gradtui attach {clean(name.removeprefix(COMPARISON))}")
        elif name in self._runs:
            run = self._runs[name]
            from gradtui.tui.run_lines import details

            about.update(details(run))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Start an experiment, or open a run."""
        app = navigator(self)
        if event.option_list.id == "experiments":
            experiment = self._experiments[str(event.option.id)]
            if len(experiment.recipes) > 1:
                app.compare(str(event.option.id), experiment)
            else:
                app.start(experiment.recipe)
        elif str(event.option.id).startswith(COMPARISON):
            try:
                app.open_comparison(self._folder / str(event.option.id).removeprefix(COMPARISON))
            except GradtuiError as error:
                self.notify(clean(str(error)), severity="error", markup=False)
        elif (run := self._runs.get(str(event.option.id))) is not None:
            if run.problem:
                self.notify(run.problem, severity="error", markup=False)
            else:
                app.open_run(run.path)

    def action_form(self) -> None:
        """Build a recipe, from the experiment under the cursor."""
        app = navigator(self)
        experiments = self.query_one("#experiments", OptionList)
        chosen = experiments.highlighted_option
        if chosen is not None:
            app.new_recipe(self._experiments[str(chosen.id)].recipe.but(name=None))

    def action_one(self) -> None:
        """Train only the first recipe of the experiment under the cursor."""
        chosen = self.query_one("#experiments", OptionList).highlighted_option
        if chosen is not None:
            navigator(self).start(self._experiments[str(chosen.id)].recipe)

    def action_delete(self) -> None:
        """Delete the run under the cursor, after asking."""
        runs = self.query_one("#runs", OptionList)
        option = runs.highlighted_option
        if option is not None and str(option.id).startswith(COMPARISON) and self.focused is runs:
            self._ask_to_delete_comparison(self._folder / str(option.id).removeprefix(COMPARISON))
            return
        run = self._runs.get(str(option.id)) if option else None
        if run is None or self.focused is not runs:
            self.notify("Select a run first (Tab switches lists).", markup=False)
        elif run.live:
            self.notify(f"{run.run_id} is still training.", severity="warning", markup=False)
        else:
            from gradtui.tui.screens.ask import AskScreen

            question = AskScreen(
                f"Delete the run {clean(run.run_id)} for good?", {"d": "delete it", "escape": "keep it"}
            )
            self.app.push_screen(question, lambda answer: self._delete(run) if answer == "d" else None)

    def _ask_to_delete_comparison(self, folder: Path) -> None:
        from gradtui.lab.plan import remove_comparison, running
        from gradtui.tui.screens.ask import AskScreen

        if running(folder) is not None:
            self.notify(f"{clean(folder.name)} is still training.", severity="warning", markup=False)
            return

        def delete(answer: str | None) -> None:
            if answer == "d":
                remove_comparison(folder)
                self._read_folder()

        question = AskScreen(
            f"Delete {clean(folder.name)} and its runs for good?", {"d": "delete them", "escape": "keep them"}
        )
        self.app.push_screen(question, delete)

    def _delete(self, run: RunSummary) -> None:
        from gradtui.runfolder import remove

        remove(run.path)
        self._read_folder()


def _describe_experiment(name: str, experiment: Experiment) -> str:
    recipes = experiment.recipes
    if len(recipes) == 1:
        return f"{experiment.hint}\n\n{experiment.recipe.summary}\n\n$ gradtui train --experiment {name}"
    return f"{experiment.hint}\n\n{len(recipes)} recipes: {', '.join(recipes)}\n\n$ gradtui compare {name} --view"
