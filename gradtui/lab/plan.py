"""A comparison on disk: which recipes, which seeds, and the run file of each training. Standard library only.

A comparison is a folder, `NAME.compare`, in the folder of runs: `plan.json` says what is compared, the trainings are
run files beside it. The name of a run file is made of its recipe, so that the same training is never run twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TextIO

from gradtui.errors import GradtuiError, RunFileError
from gradtui.format import printable
from gradtui.lab.recipe import Recipe, safe
from gradtui.runfile import checked
from gradtui.runfile.private_files import make_folder, open_to_append, write_whole
from gradtui.runfile.summary import LONGEST_REASON
from gradtui.runfolder import ENDING, changed, remove

FOLDER_ENDING = ".compare"
PLAN, LOCK, LOG = "plan.json", "lock", "compare.log"
TUNING_FOLDER = "tuning"  # in the folder: the trials of `--tune lr`
VERSION = 1
MOST_CELLS = 100_000  # trainings of a comparison
# what reading a plan that is damaged or forged may raise, beside `OSError`
DAMAGES = (GradtuiError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Cell:
    """One training of a comparison: a recipe with its seed, and its run file."""

    label: str
    recipe: Recipe
    path: Path


@dataclass(frozen=True)
class Plan:
    """What is compared; the first recipe is the baseline.

    Attributes:
        folder: where plan and runs live.
        hint: what to look at.
        recipes: by label.
        seeds: each recipe is trained with each of them.
        target_cost: the training cost whose epoch is asked for; None asks for none.
        tuned: whether the learning rates were chosen on the validation images.
    """

    folder: Path
    title: str
    hint: str
    recipes: Mapping[str, Recipe]
    seeds: tuple[int, ...]
    target_cost: float | None = None
    tuned: bool = False
    started: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        """What the comparison is called."""
        return self.folder.name.removesuffix(FOLDER_ENDING)

    def cells(self) -> list[Cell]:
        """All trainings: all recipes with the first seed, then with the second, …"""
        return [
            Cell(label, seeded, self.folder / f"{safe(label)}-seed{seed}-{_digest(seeded)}{ENDING}")
            for seed in self.seeds
            for label, recipe in self.recipes.items()
            for seeded in [recipe.but(seed=seed, name=label)]
        ]

    def save(self) -> None:
        """Write the plan, whole or not at all; raises `GradtuiError` if the folder cannot be written."""
        facts = {
            "version": VERSION,
            "title": self.title,
            "look": self.hint,
            "recipes": {label: recipe.to_json() for label, recipe in self.recipes.items()},
            "seeds": list(self.seeds),
            "target_cost": self.target_cost,
            "tuned": self.tuned,
            "started": self.started,
        }
        try:
            make_folder(self.folder)
            write_whole(self.folder / PLAN, json.dumps(facts, indent=1))
        except OSError as error:
            raise GradtuiError(
                f"cannot keep a comparison in {self.folder}: {error.strerror}; --dir names another place"
            ) from error


@dataclass(frozen=True)
class ComparisonSummary:
    """One line about a comparison: how many of its trainings have been begun, and whether they go on.

    `state` is live, finished, stopped (the same command goes on), or unreadable for the reason in `problem`.
    """

    folder: Path
    state: str
    title: str = ""
    begun: int = 0
    planned: int = 0
    started: float = 0.0
    problem: str = ""


def comparison_folder(runs_folder: Path, name: str) -> Path:
    """Where the comparison of that name lives."""
    return runs_folder / f"{safe(name)}{FOLDER_ENDING}"


def comparisons(runs_folder: Path) -> list[Path]:
    """The folders of all comparisons, the newest first."""
    found = [path.parent for path in runs_folder.glob(f"*{FOLDER_ENDING}/{PLAN}")]
    return sorted(found, key=lambda path: -changed(path / PLAN))


def summarise_comparison(folder: Path) -> ComparisonSummary:
    """What a list shows about a comparison."""
    try:
        plan = load_plan(folder)
    except RunFileError as error:
        return ComparisonSummary(folder, "unreadable", problem=str(error))
    cells = plan.cells()
    begun = sum(cell.path.exists() for cell in cells)
    state = "live" if running(folder) is not None else "finished" if begun == len(cells) else "stopped"
    return ComparisonSummary(folder, state, plan.title, begun, len(cells), plan.started)


def remove_comparison(folder: Path) -> None:
    """Delete a comparison with its runs; what else lies in its folder stays."""
    for part in (folder, folder / TUNING_FOLDER):
        for run in part.glob(f"*{ENDING}"):
            remove(run)
    for name in (PLAN, LOCK, LOG):
        (folder / name).unlink(missing_ok=True)
    for part in (folder / TUNING_FOLDER, folder):
        with suppress(OSError):  # not empty, or not there
            part.rmdir()


def load_plan(folder: Path) -> Plan:
    """Read a plan; raises `RunFileError` if it is not there or damaged."""
    path = folder / PLAN
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise RunFileError(f"{path} is not a file")
        facts = checked.mapping(checked.parsed(path.read_text(encoding="utf-8"), "it"), "it")
        if facts["version"] != VERSION:
            raise RunFileError(f"{path} is of version {checked.shown(facts['version'])}: a newer gradtui made it")
        recipes = {str(label): Recipe.from_json(recipe) for label, recipe in facts["recipes"].items()}
        seeds = checked.counts(facts["seeds"], "a seed")
        if not recipes or not seeds:
            raise RunFileError(f"{path} compares nothing")
        if len(recipes) * len(seeds) > MOST_CELLS:
            raise RunFileError(f"{path} compares {len(recipes) * len(seeds):,} trainings: that is no plan of ours")
        target = facts["target_cost"]
        return Plan(
            folder,
            checked.text(facts["title"], "its title"),
            checked.text(facts["look"], "its hint"),
            recipes,
            seeds,
            None if target is None else checked.any_float(target, "its target"),
            bool(facts["tuned"]),
            checked.moment(facts["started"], "its start"),
        )
    except OSError as error:
        raise RunFileError(f"no comparison in {folder}: {error.strerror}") from error
    except RunFileError:
        raise
    except DAMAGES as error:
        raise RunFileError(f"{path} is damaged: {printable(str(error), LONGEST_REASON)}") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a comparison while its trainings run; raises `GradtuiError` if another process does."""
    try:
        make_folder(folder)
        os.close(open_to_append(folder / LOCK))
    except OSError as error:
        raise GradtuiError(f"cannot keep a comparison in {folder}: {error.strerror}") from error
    with _open_lock(folder) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise GradtuiError(
                f"{folder.name} is being run by another process: `gradtui attach {folder}` shows it"
            ) from error
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def running(folder: Path) -> int | None:
    """The id of the process on this computer that runs a comparison; None if there is none."""
    try:
        with _open_lock(folder) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return int(lock.read() or 0) or None
    except (OSError, ValueError):
        pass
    return None


def _open_lock(folder: Path) -> TextIO:
    return os.fdopen(os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+")


def _digest(recipe: Recipe) -> str:
    return blake2b(recipe.same_training().encode(), digest_size=4).hexdigest()
