"""How `gradtui run` tells the processes that it starts to record: a JSON object in one environment variable."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gradtui.options import RecordOptions
from gradtui.runfile.liveness import machine_identity, process_start

VARIABLE = "GRADTUI_RUN"
STARTING = "-starting"  # ends the name of the file in which a command says that it will write a run


@dataclass(frozen=True)
class RunRequest:
    """How to record, and where.

    Attributes:
        path: the run file of the first process that trains.
        options: how each process is to record.
        run_list: a file to which each recording process adds the path of its run, a line each, if anybody asks.
    """

    path: Path
    options: RecordOptions
    run_list: Path | None = None

    def environment(self) -> dict[str, str]:
        """As variables for the command."""
        run_list = None if self.run_list is None else str(self.run_list)
        facts = {"path": str(self.path), "options": self.options.to_json(), "run_list": run_list}
        return {VARIABLE: json.dumps(facts)}

    @classmethod
    def given(cls, environment: Mapping[str, str] = os.environ) -> RunRequest | None:
        """From the environment; None if nobody asked for a recording."""
        text = environment.get(VARIABLE)
        if not text:
            return None
        facts = json.loads(text)
        run_list = None if facts["run_list"] is None else Path(facts["run_list"])
        return cls(Path(facts["path"]), RecordOptions.from_json(facts["options"]), run_list)

    def acquire_path(self) -> Path | None:
        """The run file that was announced, for the first process to ask; None for the others, which take their own."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except OSError:
            return None
        if self.path.exists():
            self._lock.unlink()
            return None
        return self.path

    def mark_pending(self) -> None:
        """Note beside the run that this process, or what it becomes, will write it; trouble is told later."""
        with contextlib.suppress(OSError):
            self._starting.parent.mkdir(parents=True, exist_ok=True)
            self._starting.write_text(f"{machine_identity()}\n{os.getpid()}", encoding="utf-8")

    def register_run(self, path: Path) -> None:
        """Add a run to the list; it has its file now, so that no other process will take it."""
        if path == self.path:
            self._lock.unlink(missing_ok=True)
            self._starting.unlink(missing_ok=True)
        if self.run_list is not None:
            with self.run_list.open("a", encoding="utf-8") as run_list:
                run_list.write(f"{path}\n")

    def runs(self) -> list[Path]:
        """The runs in the list so far."""
        if self.run_list is None:
            return []
        try:
            return [Path(line) for line in self.run_list.read_text(encoding="utf-8").splitlines()]
        except OSError:
            return []

    @property
    def _lock(self) -> Path:
        return Path(f"{self.path}-claim")

    @property
    def _starting(self) -> Path:
        return Path(f"{self.path}{STARTING}")


def newest_starting(folder: Path) -> tuple[float, Path] | None:
    """The newest command under `gradtui run` that has not trained yet: when it began, the run that it is to write."""
    found: list[tuple[float, Path]] = []
    for word in folder.glob(f"*{STARTING}"):
        with contextlib.suppress(OSError, ValueError):
            machine, pid = word.read_text(encoding="utf-8").splitlines()
            if machine != machine_identity():
                continue  # whether it still runs cannot be known here
            if process_start(int(pid)) is not None:
                found.append((word.stat().st_mtime, Path(str(word).removesuffix(STARTING))))
            else:
                word.unlink()  # it ended without having trained
    return max(found, default=None)
