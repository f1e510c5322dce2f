"""Starts trainings as processes of their own, which go on after their parent has ended. Standard library only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gradtui.errors import DataMissingError, GradtuiError
from gradtui.lab import check_installed
from gradtui.lab.recipe import Recipe
from gradtui.runfile.private_files import open_to_append

if TYPE_CHECKING:
    from gradtui.lab.plan import Plan

LOG_LINES = 12
MNIST_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class Launch:
    """A training that was started; it makes the run file `path` once torch is loaded."""

    path: Path
    log: Path
    process: subprocess.Popen[bytes]

    def trouble(self) -> str | None:
        """None while the training is starting or running; otherwise one line on how it ended without a run."""
        code = self.process.poll()
        if code is None or self.path.exists():
            return None
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"The training ended before its first step ({how}); {self.log} says:"

    def stop(self) -> None:
        """Stop it: by its run file if that is there, and by a signal while it is still starting."""
        if self.path.exists():
            from gradtui.runfile import request

            request(self.path, "stop")
        elif self.process.poll() is None:
            self.process.terminate()

    def log_tail(self) -> tuple[str, ...]:
        """The last lines that the training printed."""
        try:
            return tuple(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        except OSError:
            return ()


def launch_in(folder: Path, recipe: Recipe) -> Launch:
    """Start a recipe; its run and its log go into `folder`.

    Raises `DataMissingError` if its data are not there, `GradtuiError` if the folder cannot be written.
    """
    from gradtui.runfolder import hand_over, release, reserve

    check_installed()
    check_data(recipe)
    try:
        path = reserve(recipe.title, folder)
        log = path.with_suffix(".log")
        try:
            process = _start(["gradtui.lab.train", "--file", str(path), "--recipe", json.dumps(recipe.to_json())], log)
        except OSError:
            release(path)
            raise
    except OSError as error:
        raise GradtuiError(
            f"cannot start a training in {folder}: {error.strerror}; --dir names another place"
        ) from error
    hand_over(path, process.pid)
    return Launch(path, log, process)


def launch_comparison(plan: Plan, jobs: int = -1) -> subprocess.Popen[bytes]:
    """Start the trainings of a plan that are not done yet; raises as `launch_in`."""
    from gradtui.lab.plan import LOG, running

    check_installed()
    for recipe in plan.recipes.values():
        check_data(recipe)
    if running(plan.folder) is not None:
        raise GradtuiError(f"{plan.name} is being trained already: `gradtui attach {plan.folder}` shows it")
    plan.save()
    try:
        return _start(["gradtui.lab.run_plan", str(plan.folder), "--jobs", str(jobs)], plan.folder / LOG)
    except OSError as error:
        raise GradtuiError(f"cannot start a comparison in {plan.folder}: {error.strerror}") from error


def _start(module: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a module in a session of its own, which outlives the terminal."""
    with os.fdopen(open_to_append(log), "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # the folder that the user stands in must not shadow modules
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )


def data_folder(recipe: Recipe) -> Path | None:
    """Where MNIST's files are looked for; None if no folder is named."""
    folder = recipe.data_dir or os.environ.get("GRADTUI_DATA")
    if not folder:
        return None
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:  # ~name, where there is no such user
        raise DataMissingError(f"MNIST is not there: {folder} is in a home folder that cannot be found") from error


def check_data(recipe: Recipe) -> None:
    """Raise `DataMissingError` if the recipe's data are not there; called before a process is started."""
    if recipe.data != "mnist":
        return
    where = data_folder(recipe)
    try:
        missing = [
            name
            for name in MNIST_NAMES
            if where is None or not any((where / f"{name}{end}").exists() for end in ("", ".gz"))
        ]
    except OSError as error:  # a folder that may not be entered, or a name that is too long
        raise DataMissingError(f"cannot look for MNIST in {where}: {error.strerror}") from error
    if missing:
        looked = "no folder is named" if where is None else f"{missing[0]}[.gz] is not in {where}"
        raise DataMissingError(
            f"MNIST is not there ({looked}): put the four IDX files of the MNIST database of LeCun, Cortes and Burges"
            f" ({', '.join(MNIST_NAMES)}; .gz or not) into a folder, and name it by --data-dir or GRADTUI_DATA"
        )
