"""`gradtui runs`: the list of runs for a person, for a pipe, and as JSON."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradtui.runfolder import RunSummary

COLUMNS = ("run", "state", "step", "loss", "accuracy", "layers", "started")


def as_json(runs: Sequence[RunSummary]) -> str:
    """One JSON array; a number that JSON has no word for (NaN, ∞) is given as a string."""
    return json.dumps([_facts(run) for run in runs], indent=2, ensure_ascii=True)


def as_table(runs: Sequence[RunSummary], folder: Path, *, terminal: bool) -> str:
    """Aligned columns for a terminal, tab-separated ones for a pipe; the first line names them."""
    if not runs and terminal:
        return f"no runs in {folder} yet: `gradtui train` starts one"
    table = [COLUMNS, *(_row(run) for run in runs)]
    if not terminal:
        return "\n".join("\t".join(row) for row in table)
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def _facts(run: RunSummary) -> dict[str, Any]:
    return {
        "run": run.run_id,
        "path": str(run.path),
        "name": run.name,
        "state": run.status.state if run.status else "unreadable",
        "detail": run.problem or (run.status.detail if run.status else ""),
        "started": run.started,
        "seconds": round(run.duration, 3),
        "step": run.step,
        "layers": run.layers,
        "loss": _number(run.loss),
        "accuracy": _number(run.accuracy),
    }


def _row(run: RunSummary) -> tuple[str, ...]:
    return (
        _printable(run.run_id),
        run.status.state if run.status else "unreadable",
        str(run.step),
        "" if run.loss is None else f"{run.loss:.4g}",
        "" if run.accuracy is None else f"{run.accuracy:.4f}",
        str(run.layers),
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started)),
    )


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
