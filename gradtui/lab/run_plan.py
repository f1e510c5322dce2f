"""Recipes × seeds, trained by workers. `python -m gradtui.lab.run_plan FOLDER` runs a plan in the background."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from gradtui.errors import GradtuiError, say_on_stderr
from gradtui.format import printable
from gradtui.lab.background import check_data
from gradtui.lab.plan import TUNING_FOLDER, Cell, Plan, load_plan, locked
from gradtui.lab.recipe import Recipe, safe
from gradtui.lab.results import RunResult, result_of
from gradtui.lab.workers import train_all
from gradtui.runfile.private_files import make_folder, write_whole
from gradtui.runfolder import ENDING, remove

# rates that `--tune lr` tries for each recipe, √10 apart; the best of them suits within a factor of two
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
TUNING_SEED = 1_000  # beside the seeds that are compared


def run_cells(
    cells: list[Cell],
    *,
    jobs: int = -1,
    backend: str = "loky",
    target_cost: float | None = None,
    on_result: Callable[[Cell, RunResult], None] = lambda cell, result: None,
) -> None:
    """Train all cells that are not done yet; what is done stays whatever happens.

    Args:
        cells: the trainings; those whose run has come to its end are reported at once.
        jobs: trainings at a time; −1 takes as many as there are cores.
        backend: `loky` for processes on this computer, `dask://HOST:PORT` or `ray://HOST:PORT` for a cluster.
        on_result: told of each training that is over, in the order in which they end.

    Raises:
        UsageError: there is no such backend.
        ExtraMissingError: its package is not installed.
        GradtuiError: a training failed; the others go on, and it is raised at the end.
    """
    for recipe in {cell.recipe.data: cell.recipe for cell in cells}.values():
        check_data(recipe)
    todo: list[Cell] = []
    for cell in {cell.path: cell for cell in cells}.values():  # two labels of the same training share its run
        result = result_of(cell, target_cost)
        if result.over:
            on_result(cell, result)
        else:
            remove(cell.path)  # of a training that was killed half-way
            todo.append(cell)
    if not todo:
        return
    problems = []
    with closing(train_all(todo, backend, jobs)) as training:
        for ended in training:
            cell = todo[ended.number]
            if ended.content is not None:
                _keep(cell.path, ended.content)
            if ended.problem:
                problems.append(f"{cell.label}: {ended.problem}")
            on_result(cell, result_of(cell, target_cost))
    if problems:
        more = f"; and {len(problems) - 3} more" if problems[3:] else ""
        raise GradtuiError("; ".join(problems[:3]) + more)


def tune_rates(
    plan: Plan,
    *,
    jobs: int = -1,
    backend: str = "loky",
    rates: tuple[float, ...] = RATES,
    on_result: Callable[[Cell, RunResult], None] = lambda cell, result: None,
) -> Plan:
    """The plan with the learning rate of each recipe that does best on the validation images.

    Each recipe has the same budget: every rate, all of its epochs, one seed that is not compared. The trials are
    recorded in the folder `tuning` of the plan. A rate at which the training diverges loses to any other.
    """
    trials = tuning_cells(plan, rates)
    run_cells(trials, jobs=jobs, backend=backend, on_result=on_result)
    best = {}
    for label in plan.recipes:
        of_label = [(cell, result_of(cell, None)) for cell in trials if cell.label == label]
        best[label] = max(of_label, key=lambda trial: _merit(trial[1]))[0].recipe.rate
    tuned = {label: recipe.but(learning_rate=best[label]) for label, recipe in plan.recipes.items()}
    return replace(plan, recipes=tuned, tuned=True)


def tuning_cells(plan: Plan, rates: tuple[float, ...] = RATES) -> list[Cell]:
    """The trials of `tune_rates`."""
    folder = plan.folder / TUNING_FOLDER
    found = []
    for rate in rates:
        for label, recipe in plan.recipes.items():
            trial = recipe.but(learning_rate=rate, seed=TUNING_SEED, name=f"{label} η {rate:g}")
            cell = replace(plan, folder=folder, recipes={label: trial}, seeds=(TUNING_SEED,)).cells()[0]
            found.append(replace(cell, path=folder / f"{safe(label)}-{rate:g}-{cell.path.stem[-8:]}{ENDING}"))
    return found


def _merit(result: RunResult) -> tuple[bool, float, float]:
    """What is compared: not diverged, validated well, and of equals the one with the lower cost."""
    cost = result.validation_cost if result.validation_cost is not None else result.cost
    if result.validation_cost is not None:
        return not result.diverged, -result.validation_cost, 0.0
    known = cost if cost is not None and cost == cost else float("inf")
    return not result.diverged, result.validation or 0.0, -known


def _keep(path: Path, content: bytes) -> None:
    make_folder(path.parent)
    write_whole(path, content)


def plan_of(
    folder: Path, title: str, hint: str, recipes: Mapping[str, Recipe], seeds: int, target_cost: float | None
) -> Plan:
    """A plan with seeds that follow the first recipe's."""
    first = next(iter(recipes.values())).seed
    return Plan(folder, title, hint, recipes, tuple(range(first, first + seeds)), target_cost)


def main(arguments: list[str] | None = None) -> int:
    """Run a plan that is there; what a viewer starts in the background."""
    parser = argparse.ArgumentParser("python -m gradtui.lab.run_plan", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="the folder with plan.json")
    parser.add_argument("--jobs", type=int, default=-1, help="trainings at a time")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with locked(options.folder):
            plan = load_plan(options.folder)
            run_cells(plan.cells(), jobs=options.jobs, on_result=_print_result)
    except GradtuiError as error:
        say_on_stderr(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _print_result(cell: Cell, result: RunResult) -> None:
    print(printable(cell.label), result.state)


if __name__ == "__main__":
    raise SystemExit(main())
