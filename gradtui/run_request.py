"""How `gradtui run` tells the processes that it starts to record: a JSON object in one environment variable."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gradtui import run_notes
from gradtui.options import RecordOptions
from gradtui.runfile.liveness import machine_identity
from gradtui.runfile.private_files import ABANDONED_AFTER, is_gone, make_folder, write_mark
from gradtui.runfolder import STARTING, release

VARIABLE = "GRADTUI_RUN"
CLAIM = "-claim"  # ends the name of the file in which a process of the command says that it is the first one to train


@dataclass(frozen=True)
class RunRequest:
    """How to record, and where.

    Attributes:
        path: the run file of the first process that trains.
        options: how each process is to record.
        run_list: a file to which each recording process adds the path of its run, a line each, if anybody asks.
        attach: what `gradtui attach` needs to find the first run, which is told once it is recorded; "" if nobody asks.
    """

    path: Path
    options: RecordOptions
    run_list: Path | None = None
    attach: str = ""

    def environment(self) -> dict[str, str]:
        """As variables for the command."""
        run_list = None if self.run_list is None else str(self.run_list)
        facts = {
            "path": str(self.path), "options": self.options.to_json(), "run_list": run_list, "attach": self.attach
        }  # fmt: skip
        return {VARIABLE: json.dumps(facts)}

    @classmethod
    def given(cls, environment: Mapping[str, str] = os.environ) -> RunRequest | None:
        """From the environment; None if nobody asked for a recording."""
        text = environment.get(VARIABLE)
        if not text:
            return None
        facts = json.loads(text)
        run_list = None if facts["run_list"] is None else Path(facts["run_list"])
        return cls(Path(facts["path"]), RecordOptions.from_json(facts["options"]), run_list, facts["attach"])

    def acquire_path(self) -> Path | None:
        """The run file that was announced, for the first process to ask; None for the others, which take their own."""
        try:
            make_folder(self.path.parent)
            write_mark(self._lock)
        except OSError:
            return None
        if self.path.exists():
            with contextlib.suppress(OSError):
                self._lock.unlink()
            return None
        return self.path

    def note(self, kind: str, detail: str = "") -> None:
        """Note something that says at the end why nothing was recorded, if nothing is."""
        run_notes.add(str(self.path), kind, detail)

    def why_nothing(self) -> str:
        """Take back that there will be a run; why there was none, "" if there was or it has been told."""
        return run_notes.end(str(self.path))

    def register_run(self, path: Path) -> None:
        """Add a run to the list; it has its file now, so that no other process will take it."""
        if path == self.path:
            with contextlib.suppress(OSError):
                self._lock.unlink(missing_ok=True)
            release(path)
        if self.run_list is not None:
            with contextlib.suppress(OSError):  # the disk is full, the list was deleted: the run goes on all the same
                handle = os.open(self.run_list, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
                with os.fdopen(handle, "w", encoding="utf-8") as run_list:
                    run_list.write(f"{path}\n")

    def runs(self) -> list[Path]:
        """The runs in the list so far."""
        if self.run_list is None:
            return []
        try:
            return [Path(line) for line in self.run_list.read_text(encoding="utf-8").splitlines()]
        except OSError:
            return []

    def close(self) -> None:
        """The command has ended: delete what was only noted for it."""
        release(self.path)
        for left in (self._lock, self.run_list):
            if left is not None:
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        return Path(f"{self.path}{CLAIM}")


def newest_starting(folder: Path) -> tuple[float, Path] | None:
    """The newest training that has not made its step yet: when it began, the run that it is to write."""
    found: list[tuple[float, Path]] = []
    for mark in folder.glob(f"*{STARTING}"):
        with contextlib.suppress(OSError, ValueError):
            machine, began, gone = read_mark(mark)
            # whether it still runs on another machine cannot be known here
            if machine == machine_identity() and not gone:
                found.append((began, Path(str(mark).removesuffix(STARTING))))
    return max(found, default=None)


def clear_marks(folder: Path) -> None:
    """Delete what says that a run will be written by a process which has ended."""
    with contextlib.suppress(OSError):
        for mark in folder.iterdir():
            if mark.name.endswith((STARTING, CLAIM)):
                with contextlib.suppress(OSError, ValueError):
                    if read_mark(mark)[2]:
                        mark.unlink()


def read_mark(path: Path) -> tuple[str, float, bool]:
    """Of the process that a file names: its machine, since when the file is there, whether the process has ended.

    Raises `OSError` if it cannot be read, `ValueError` if it names none.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        changed, words = os.fstat(file.fileno()).st_mtime, file.read(2000).decode("utf-8").split("\n")
    silent = time.time() - changed
    if words == [""]:  # a file of gradtui up to 0.2
        return "", changed, silent > ABANDONED_AFTER
    machine, pid, *started = words
    return machine, changed, is_gone(machine, int(pid), started[0] if started else None, silent)
