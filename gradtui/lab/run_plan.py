"""Recipes × seeds, trained by joblib's workers. `python -m gradtui.lab.run_plan FOLDER` runs a plan without a word."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradtui.errors import GradtuiError, UsageError
from gradtui.lab.background import check_data
from gradtui.lab.plan import TUNING_FOLDER, Cell, Plan, load_plan, locked
from gradtui.lab.recipe import Recipe, safe
from gradtui.lab.results import RunResult, result_of
from gradtui.runfolder import ENDING, remove

BACKENDS = ("loky", "dask", "ray")
# rates that `--tune lr` tries for each recipe, √10 apart; the best of them suits within a factor of two
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
CLUSTER_TIMEOUT = "10s"
TUNING_SEED = 1_000  # beside the seeds that are compared


@dataclass(frozen=True)
class _Trained:
    """What a worker sends back: the number of the cell, and the run file where the worker's disk is not ours."""

    number: int
    trouble: str
    content: bytes | None


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
        backend: `loky` for processes on this machine, `dask://host:port` or `ray://host:port` for a cluster.
        on_result: told of each training that is over, in the order in which they end.

    Raises:
        UsageError: there is no such backend, or its package is not installed.
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
    troubles = []
    from joblib import Parallel, delayed

    with _joblib_backend(backend, jobs) as settings:
        carry = settings.pop("carry")
        work = [delayed(_train)(number, cell, carry, os.getpid()) for number, cell in enumerate(todo)]
        for trained in Parallel(return_as="generator_unordered", batch_size=1, **settings)(work):
            cell = todo[trained.number]
            if trained.content is not None:
                _keep(cell.path, trained.content)
            if trained.trouble:
                troubles.append(f"{cell.label}: {trained.trouble}")
            on_result(cell, result_of(cell, target_cost))
    if troubles:
        raise GradtuiError("; ".join(troubles[:3]) + (f"; and {len(troubles) - 3} more" if troubles[3:] else ""))


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


def _train(number: int, cell: Cell, carry: bool, parent: int) -> _Trained:
    """Train one cell, in a worker."""
    if os.getpid() != parent:
        # Ctrl-C reaches the workers of a terminal too; it is the parent that ends them
        with contextlib.suppress(ValueError):  # not in the main thread of a Dask worker
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    from gradtui.lab.train import train

    def orphaned() -> bool:
        """Whether who started this was killed: nobody would wait for the rest."""
        return parent not in (os.getpid(), os.getppid())

    try:
        if not carry:
            if not orphaned():
                train(cell.recipe, path=cell.path, should_stop=orphaned)
            if orphaned():
                os._exit(1)  # the worker would wait minutes for more to do
            return _Trained(number, "", None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / cell.path.name
            train(cell.recipe, path=path)
            return _Trained(number, "", path.read_bytes())
    except (GradtuiError, OSError) as error:
        return _Trained(number, str(error), None)


@contextlib.contextmanager
def _joblib_backend(backend: str, jobs: int) -> Iterator[dict[str, Any]]:
    """The settings of joblib's `Parallel`; leaving ends the workers at once if something went wrong."""
    kind, _, address = backend.partition("://")
    if kind not in BACKENDS:
        raise UsageError(f"--backend {backend!r}: give loky, dask://host:port or ray://host:port")
    if kind == "loky":
        from joblib.externals.loky import get_reusable_executor

        try:
            yield {"n_jobs": jobs, "backend": "loky", "carry": False}
        except BaseException:
            get_reusable_executor().shutdown(wait=True, kill_workers=True)
            raise
        return
    import joblib

    with _cluster(kind, address), joblib.parallel_config(backend=kind, n_jobs=jobs):
        yield {"carry": True}


@contextlib.contextmanager
def _cluster(kind: str, address: str) -> Iterator[None]:
    try:
        if kind == "ray":
            import ray
            from ray.util.joblib import register_ray

            ray.init(address=f"ray://{address}" if address else None)
            register_ray()
            yield
            return
        from dask.distributed import Client

        with Client(  # type: ignore[no-untyped-call]
            f"tcp://{address}" if address else None, timeout=CLUSTER_TIMEOUT
        ):
            yield
    except ImportError as error:
        packages = {"dask": "pip install 'gradtui[dask]'", "ray": "pip install 'ray[default]'"}
        raise UsageError(f"--backend {kind} needs a package that is not installed: {packages[kind]}") from error
    except (OSError, TimeoutError) as error:
        raise GradtuiError(f"no {kind} cluster answers at {address or 'this machine'}: {error}") from error


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_bytes(content)
    draft.replace(path)


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
            run_cells(plan.cells(), jobs=options.jobs, on_result=lambda cell, result: print(cell.label, result.state))
    except GradtuiError as error:
        print(f"gradtui: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
