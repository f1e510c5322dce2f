"""`gradtui compare`: what is compared, a progress line while it trains, and the table at the end."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gradtui.errors import GradtuiError, UsageError
from gradtui.format import printable
from gradtui.lab.background import check_data
from gradtui.lab.experiments import EXPERIMENTS, find
from gradtui.lab.flags import changed_by_flags
from gradtui.lab.plan import Cell, Plan, comparison_folder, locked
from gradtui.lab.recipe import Recipe
from gradtui.lab.results import HEADINGS, RunResult, as_cells, as_csv, as_json, results, table
from gradtui.lab.run_plan import RATES, plan_of, run_cells, tune_rates, tuning_cells
from gradtui.lab.workers import check_backend
from gradtui.runfile.private_files import write_whole
from gradtui.runfolder import check_folder

POLL_EVERY = 0.5  # s between updates of the progress bar
INTERRUPTED = 130
MOST_SEEDS = 10_000
IMAGES = ("digits", "mnist")  # data that an experiment may be repeated on
DEFAULT_TARGET = 0.3  # the training cost that the table counts the epochs to, for recipes of no experiment


def plan_from_flags(options: argparse.Namespace, runs_folder: Path) -> Plan:
    """The plan that is asked for; raises `UsageError` if it makes no sense."""
    recipes: dict[str, Recipe] = {}
    names, hints, targets = [], [], []
    given = vars(options)
    # --name is the name of the comparison, not of a recipe
    changes = {key: value for key, value in given.items() if key not in ("with", "name")}
    for what in options.what:
        if what.endswith(".json"):
            recipe = changed_by_flags(_recipe_file(Path(what)), changes)
            recipes[_unused(recipe.name or Path(what).stem, recipes)] = recipe
            names.append(Path(what).stem)
            continue
        experiment, label = find(what)
        chosen = {label: experiment.recipes[label]} if "/" in what else dict(experiment.recipes)
        for label, recipe in chosen.items():
            # chains and adding problems are of no other data
            fitting = changes if recipe.data in IMAGES else {**changes, "data": None}
            recipes[_unused(label, recipes)] = changed_by_flags(recipe, {**fitting, "name": label})
        names.append(what.replace("/", "-"))
        hints.append(experiment.hint)
        targets.append(experiment.target_cost)
    if not recipes:
        base = changed_by_flags(Recipe(every=None), changes)
        recipes["nothing"] = base
        names.append(base.title)
    base = next(iter(recipes.values()))
    for remedies in given["with"] or ():
        label = remedies.replace(",", " + ")
        recipes[_unused(label, recipes)] = base.with_remedies(*(name.strip() for name in remedies.split(",")))
    if options.only:
        recipes = _only(recipes, options.only)
    target = targets[0] if targets else DEFAULT_TARGET
    if options.target_cost is not None:
        target = options.target_cost
        if not (math.isfinite(target) and target > 0):
            raise UsageError(f"--target-cost {target:g}: give a number above 0")
    folder = comparison_folder(runs_folder, options.name or "-".join(names))
    recipes = {label: recipe.but(name=label) for label, recipe in recipes.items()}
    title = EXPERIMENTS[names[0]].title if names[0] in EXPERIMENTS and len(names) == 1 else folder.stem
    if not 1 <= options.seeds <= MOST_SEEDS:
        raise UsageError(f"--seeds {options.seeds}: give from 1 to {MOST_SEEDS:,}")
    return plan_of(folder, title, " ".join(hints), recipes, options.seeds, target)


def compare_here(plan: Plan, options: argparse.Namespace) -> int:
    """Train what is not done yet, and print the table; returns the exit code. Ctrl-C keeps what is done."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 has no ×, and is to see the figures too
    _check_reports(options)
    _check_jobs(options.jobs)
    check_backend(options.backend)
    for recipe in plan.recipes.values():
        check_data(recipe)
    check_folder(plan.folder.parent)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failure: GradtuiError | None = None
    interrupted = False
    try:
        with locked(plan.folder):
            if options.tune:
                plan = _tune(plan, options)
            plan.save()
            cells = plan.cells()
            with _printing(cells, quiet=options.json) as on_result:
                run_cells(
                    cells, jobs=options.jobs, backend=options.backend, target_cost=plan.target_cost, on_result=on_result
                )
    except GradtuiError as error:
        if not plan.folder.exists() or not any(result.over for result in results(plan)):
            raise
        failure = error
    except KeyboardInterrupt:
        interrupted = True
    found = results(plan)
    _show(plan, found, options)
    if failure is not None:
        raise failure
    if interrupted:
        done = sum(result.over for result in found)
        print(f"stopped: {done} of {len(found)} trainings are kept; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0


def _tune(plan: Plan, options: argparse.Namespace) -> Plan:
    trials = tuning_cells(plan)
    if not options.json:
        print(f"tuning: {len(RATES)} rates for each of {len(plan.recipes)} recipes")
    with _printing(trials, quiet=options.json) as on_result:
        return tune_rates(plan, jobs=options.jobs, backend=options.backend, on_result=on_result)


def _show(plan: Plan, found: Sequence[RunResult], options: argparse.Namespace) -> None:
    if options.csv:
        _write(options.csv, as_csv(plan, found))
    if options.html:
        from gradtui.lab.html_report import write_report

        write_report(plan, found, options.html)
    if options.json:
        print(as_json(plan, found))
        return
    rows = [as_cells(row) for row in table(plan, found)]
    target = "" if plan.target_cost is None else f"epochs to {plan.target_cost:g}"
    headings = tuple(target if heading == "epochs to cost" else heading for heading in HEADINGS)
    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        # an empty column says nothing
        kept = [i for i, _ in enumerate(headings) if i == 0 or any(row[i] for row in rows)]
        drawn = Table(box=None, pad_edge=False, header_style="bold")
        for i in kept:
            drawn.add_column(headings[i], justify="left" if i in (0, len(headings) - 1) else "right")
        for row in rows:
            drawn.add_row(*(row[i] for i in kept))
        console.print(drawn)
        print(printable(f"see it            gradtui attach {plan.folder}"))
    else:
        print("\n".join("\t".join(row) for row in [headings, *rows]))


@contextmanager
def _printing(cells: Sequence[Cell], *, quiet: bool) -> Iterator[_Printer]:
    console = Console(highlight=False, markup=False, emoji=False, stderr=quiet)
    printer: _Printer = _ProgressBar(cells, console) if console.is_terminal else _LinePrinter(quiet)
    with printer:
        yield printer


class _Printer:
    """Called with each training that has ended."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, cell: Cell, result: RunResult) -> None:
        raise NotImplementedError


class _LinePrinter(_Printer):
    """A tab-separated line for each training, as it ends."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def __call__(self, cell: Cell, result: RunResult) -> None:
        if not self._quiet:
            accuracy = "" if result.accuracy is None else f"{result.accuracy:.4f}"
            validation = "" if result.validation is None else f"{result.validation:.4f}"
            cells = (cell.label, cell.recipe.seed, f"{cell.recipe.rate:g}", result.state, validation, accuracy)
            print("\t".join(printable(str(one)) for one in (*cells, result.detail)).rstrip(), flush=True)


class _ProgressBar(_Printer):
    """One line that is drawn again and again: trainings that are done, steps of all, time left."""

    def __init__(self, cells: Sequence[Cell], console: Console) -> None:
        self._cells = list(cells)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[done]} of {task.fields[of]} trainings  {task.fields[now]}", markup=False),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        total = sum(_steps(cell) for cell in cells)
        self._task = self._progress.add_task("", total=total, done=0, of=len(cells), now="")
        self._over: dict[Path, int] = {}
        self._before = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="gradtui-progress", daemon=True)

    def __enter__(self) -> None:
        self._progress.start()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._progress.stop()

    def __call__(self, cell: Cell, result: RunResult) -> None:
        self._over[cell.path] = _steps(cell)

    def _poll(self) -> None:
        from gradtui.errors import RunFileError
        from gradtui.runfile.summary import RunMetadata

        while not self._stopped.wait(POLL_EVERY):
            live = {}
            for cell in self._cells:
                if cell.path not in self._over and cell.path.exists():
                    try:
                        with RunMetadata(cell.path) as run:
                            span = run.span()
                            live[cell] = span[1] if span else 0
                    except RunFileError:
                        continue  # being made, or removed
            done = sum(self._over.values()) + sum(live.values())
            self._progress.update(
                self._task,
                completed=done,
                done=len(self._over),
                now=printable(", ".join(cell.label for cell in live), most=40),
            )


def _steps(cell: Cell) -> int:
    return cell.recipe.total_steps


def _recipe_file(path: Path) -> Recipe:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise UsageError(f"{path} holds no recipe: an object with the fields of a recipe is wanted")
    return Recipe.from_json(facts)


def _only(recipes: dict[str, Recipe], labels: Sequence[str]) -> dict[str, Recipe]:
    unknown = [label for label in labels if label not in recipes]
    if unknown:
        raise UsageError(f"--only {unknown[0]!r}: the recipes are {', '.join(recipes)}")
    return {label: recipe for label, recipe in recipes.items() if label in labels}


def _unused(label: str, taken: dict[str, Recipe]) -> str:
    number, name = 2, label
    while name in taken:
        name, number = f"{label} ({number})", number + 1
    return name


def _check_jobs(jobs: int) -> None:
    if jobs == 0 or jobs < -1:
        raise UsageError(f"--jobs {jobs}: give the trainings at a time, or -1 for as many as there are cores")


def _check_reports(options: argparse.Namespace) -> None:
    """Raise `GradtuiError` where a report cannot be written: better now than after the trainings."""
    for path in (options.csv, options.html):
        if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            raise GradtuiError(f"cannot write {path}: {path.parent} is no folder that can be written to")


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text, private=False)
    except OSError as error:
        raise GradtuiError(f"cannot write {path}: {error.strerror}") from error
