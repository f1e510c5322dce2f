"""Where runs live, and finding one: `$GRADTUI_DIR`, the user data folder, or a folder that is named."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gradtui.errors import GradtuiError, RunFileError, UsageError
from gradtui.runfile.liveness import machine_identity, process_start
from gradtui.runfile.private_files import make_folder, write_mark, write_whole

if TYPE_CHECKING:
    from gradtui.runfile.liveness import Status

ENDING = ".gradtui"
STARTING = "-starting"  # ends the name of the file in which a process says that it will write a run
MOST_TRIES = 1000  # to reserve a name, while others reserve theirs
NO_RUNS = "no runs in {} yet; start one with `gradtui train` or `gradtui run python train.py`"


@dataclass(frozen=True)
class RunSummary:
    """One line about a run; `loss` and `accuracy` are the last known ones, `problem` why it cannot be read.

    `loss_mean` is the mean of the last losses.

    `changed` is when its file changed last, in nanoseconds.
    """

    path: Path
    run_id: str
    name: str = ""
    status: Status | None = None
    started: float = 0.0
    duration: float = 0.0
    step: int = 0
    layers: int = 0
    loss: float | None = None
    loss_mean: float | None = None
    accuracy: float | None = None
    problem: str | None = None
    changed: int = 0

    @property
    def live(self) -> bool:
        """True while the training can still add to the run."""
        return self.status is not None and self.status.live


def runs_folder(folder: str | Path | None = None) -> Path:
    """The folder that is named, or `$GRADTUI_DIR`, or the user data folder; it need not exist."""
    named = folder if folder is not None else os.environ.get("GRADTUI_DIR")
    if named:
        try:
            return Path(named).expanduser()
        except RuntimeError as error:  # ~name of an unknown user
            raise UsageError(
                f"{named}: there is no such home folder; set --dir or GRADTUI_DIR to another one"
            ) from error
    from platformdirs import user_data_path

    return user_data_path("gradtui", appauthor=False) / "runs"


def new_run_path(name: str, folder: Path, *, clock: Callable[[], float] = time.time) -> Path:
    """A path for a new run that no other run has: the name made safe, date and time, a number if need be."""
    safe = re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:60] or "run"
    stamp = time.strftime("%m%d-%H%M%S", time.localtime(clock()))
    path = folder / f"{safe}-{stamp}{ENDING}"
    number = 2
    while _is_taken(path) or os.path.lexists(starting_mark(path)):
        path = folder / f"{safe}-{stamp}-{number}{ENDING}"
        number += 1
    return path


def reserve(name: str, folder: Path) -> Path:
    """As `new_run_path`, and nobody else is given that path until this process ends or calls `release`.

    Raises `OSError` if the folder cannot be written.
    """
    make_folder(folder)
    for _ in range(MOST_TRIES):
        path = new_run_path(name, folder)
        try:
            mark_starting(path)
        except FileExistsError:  # another process was as fast: the next number
            continue
        if not _is_taken(path):
            return path
        release(path)
    raise FileExistsError(errno.EEXIST, "no name for a run is free", str(folder))


def mark_starting(path: Path) -> None:
    """Note beside a run that this process, or what it becomes, will write it.

    Raises `FileExistsError` if another process said so before.
    """
    write_mark(starting_mark(path))


def hand_over(path: Path, pid: int) -> None:
    """Note that it is a child of this process which will write the run."""
    machine, started = machine_identity(), process_start(pid) or ""
    with suppress(OSError):
        write_whole(starting_mark(path), f"{machine}\n{pid}\n{started}")
        if path.exists():  # it was faster than we are
            release(path)


def release(path: Path) -> None:
    """The run is there, or will not be."""
    with suppress(OSError):
        starting_mark(path).unlink(missing_ok=True)


def starting_mark(path: Path) -> Path:
    """The file in which a process says that it will write the run."""
    return Path(f"{path}{STARTING}")


def _is_taken(path: Path) -> bool:
    """Whether a run has this name, or one that ended before it began: its log is kept."""
    return os.path.lexists(path) or os.path.lexists(path.with_suffix(".log"))


def runs(folder: str | Path | None = None) -> list[RunSummary]:
    """All runs of a folder: live ones first, then the newest; a file that cannot be read is listed with its problem."""
    return list_again(runs_folder(folder), ())


def summarise(path: Path) -> RunSummary:
    """What a list shows about a run."""
    from gradtui.runfile.summary import RunMetadata

    changed_at = changed(path)
    try:
        with RunMetadata(path) as run:
            span, recent = run.span(), run.recent_loss()
            return RunSummary(
                path=path,
                run_id=run.run_id,
                name=run.header.name,
                status=run.status(),
                started=run.header.started,
                duration=run.duration(),
                step=span[1] if span else 0,
                layers=run.layer_count(),
                loss=run.last_loss(),
                loss_mean=None if recent is None else recent.mean,
                accuracy=run.last_accuracy(),
                changed=changed_at,
            )
    except RunFileError as error:
        return RunSummary(path=path, run_id=path.stem, started=changed_at / 1e9, problem=str(error), changed=changed_at)


def check_folder(folder: Path) -> None:
    """Make the folder of runs; raises `GradtuiError` where no run can be kept: better now than after the training."""
    try:
        make_folder(folder)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "it is read-only"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise GradtuiError(f"cannot keep a run in {folder}: {reason}; --dir names another place")


def any_run(folder: Path) -> None:
    """Raise `UsageError` if a folder holds no run at all; reads none."""
    if next(folder.glob(f"*{ENDING}"), None) is None:
        raise UsageError(NO_RUNS.format(folder))


def find_run(name: str | None, folder: str | Path | None = None) -> Path:
    """The run that is meant: a path, an id, the start of one; with None the newest live run, or else the newest.

    Raises `UsageError` if there is none, or more than one.
    """
    where = runs_folder(folder)
    if name is None:
        any_run(where)
        found = runs(where)
        return next((run for run in found if run.problem is None), found[0]).path
    if os.sep in name or name.endswith(ENDING):
        for candidate in (Path(name).expanduser(), where / name):
            if candidate.exists():
                return candidate
        raise RunFileError(f"no such run file: {name}")
    paths = sorted(where.glob(f"*{ENDING}"))
    exact = [path for path in paths if path.stem == name]
    similar = exact or [path for path in paths if path.stem.startswith(name)]
    if not similar:
        raise UsageError(f"no run named {name!r} in {where}: `gradtui runs` lists them")
    if len(similar) > 1:
        names = ", ".join(path.stem for path in similar[:4])
        raise UsageError(f"{name!r} could be any of {len(similar)} runs ({names} …): give more of the name")
    return similar[0]


def list_again(folder: Path, known: Iterable[RunSummary]) -> list[RunSummary]:
    """As `runs`, but ended runs whose files did not change since `known` are not read again."""
    by_path = {run.path: run for run in known if run.changed and not run.live}
    found = []
    for path in folder.glob(f"*{ENDING}"):
        before = by_path.get(path)
        found.append(before if before is not None and before.changed == changed(path) else summarise(path))
    return sorted(found, key=_order)


def remove(path: Path) -> None:
    """Delete a run: its file, SQLite's companions of it, and its log."""
    for companion in (
        path,
        Path(f"{path}-wal"),
        Path(f"{path}-shm"),
        Path(f"{path}-journal"),
        path.with_suffix(".log"),
    ):
        companion.unlink(missing_ok=True)


def _order(run: RunSummary) -> tuple[bool, float, str]:
    return not run.live, -run.started, run.run_id


def changed(path: Path) -> int:
    """When a file changed last, in nanoseconds; 0 if it is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
