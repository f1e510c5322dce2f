"""What `gradtui run` asks of the processes that it starts: a JSON object in one environment variable."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from gradtui.runfile.liveness import machine_identity, process_start

VARIABLE = "GRADTUI_RUN"
STARTING = "-starting"  # ends the name of the file in which a command says that it will write a run


@dataclass(frozen=True)
class RunRequest:
    """How to record, and where.

    `path` is the run file of the first process that trains; `ledger` a file to which each recording process adds the
    path of its run, a line each, if anybody wants to know.
    """

    folder: str
    path: str
    ledger: str | None = None
    every: int | None = None
    budget: float = 0.01
    layers: tuple[str, ...] = ("*",)
    name: str | None = None

    def environment(self) -> dict[str, str]:
        """As variables for the command."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def given(cls, environment: Mapping[str, str] = os.environ) -> RunRequest | None:
        """From the environment; None if nobody asked for a recording."""
        text = environment.get(VARIABLE)
        if not text:
            return None
        request = json.loads(text)
        return cls(**{**request, "layers": tuple(request["layers"])})

    def acquire_path(self) -> Path | None:
        """The run file that was promised, for the first process to ask; None for the others, which take their own."""
        path = Path(self.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except OSError:
            return None
        if path.exists():
            self._claim.unlink()
            return None
        return path

    def mark_pending(self) -> None:
        """Leave word that this process, or what it becomes, is to write the run; a folder's trouble is told later."""
        with contextlib.suppress(OSError):
            self._starting.parent.mkdir(parents=True, exist_ok=True)
            self._starting.write_text(f"{machine_identity()}\n{os.getpid()}", encoding="utf-8")

    def register_run(self, path: Path) -> None:
        """Add a run to the ledger; it has its file now, so that nobody else will claim it."""
        if path == Path(self.path):
            self._claim.unlink(missing_ok=True)
            self._starting.unlink(missing_ok=True)
        if self.ledger is not None:
            with Path(self.ledger).open("a", encoding="utf-8") as ledger:
                ledger.write(f"{path}\n")

    def runs(self) -> list[Path]:
        """The runs in the ledger so far."""
        if self.ledger is None:
            return []
        try:
            return [Path(line) for line in Path(self.ledger).read_text(encoding="utf-8").splitlines()]
        except OSError:
            return []

    @property
    def _claim(self) -> Path:
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
