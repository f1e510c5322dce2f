"""What `gradtui run` asks of the processes that it starts: a JSON object in one environment variable."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "GRADTUI_RUN"


@dataclass(frozen=True)
class Orders:
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
    def given(cls, environment: Mapping[str, str] = os.environ) -> Orders | None:
        """From the environment; None if nobody asked for a recording."""
        text = environment.get(VARIABLE)
        if not text:
            return None
        orders = json.loads(text)
        return cls(**{**orders, "layers": tuple(orders["layers"])})

    def claim_path(self) -> Path | None:
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

    def enter(self, path: Path) -> None:
        """Add a run to the ledger; it has its file now, so that nobody else will claim it."""
        if path == Path(self.path):
            self._claim.unlink(missing_ok=True)
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
