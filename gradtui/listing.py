"""`gradtui runs` and `gradtui remedies`: lists for a person, for a pipe, and as JSON."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradtui.runfolder import NONE_YET, RunSummary

if TYPE_CHECKING:
    from gradtui.lab.plan import ComparisonSummary

COLUMNS = ("run", "state", "step", "loss", "accuracy", "layers", "started")


def as_json(runs: Sequence[RunSummary], comparisons: Sequence[ComparisonSummary] = ()) -> str:
    """One JSON array; a number that JSON has no word for (NaN, ∞) is given as a string."""
    facts = [*(_facts_of_comparison(one) for one in comparisons), *(_facts(run) for run in runs)]
    return json.dumps(facts, indent=2, ensure_ascii=True)


def as_table(
    runs: Sequence[RunSummary], folder: Path, comparisons: Sequence[ComparisonSummary] = (), *, terminal: bool
) -> str:
    """Aligned columns for a terminal, tab-separated ones for a pipe; the first line names them."""
    if not runs and not comparisons and terminal:
        return NONE_YET.format(folder)
    table = [COLUMNS, *(_row_of_comparison(one, terminal) for one in comparisons), *(_row(run) for run in runs)]
    if not terminal:
        return "\n".join("\t".join(row) for row in table)
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def remedies_as_json(family: str | None) -> str:
    """The remedies of a family, or all, as one JSON array; raises `UsageError` if there is no such family."""
    from gradtui.remedies import of_family

    return json.dumps([remedy.to_json() for remedy in of_family(family)], indent=2, ensure_ascii=True)


def remedies_as_table(family: str | None, terminal: bool) -> str:
    """The same to be read: by family for a terminal, tab-separated for a pipe."""
    from gradtui.remedies import FAMILIES, of_family

    found = of_family(family)
    if not terminal:
        header = "remedy\tfamily\twhat\twhy\tsource"
        return "\n".join([header, *("\t".join((r.name, r.family, r.what, r.why, r.source)) for r in found)])
    lines = []
    for name in dict.fromkeys(remedy.family for remedy in found):
        lines.append(f"{name.upper()}  {FAMILIES.get(name, '')}")
        lines += [f"  {r.name:<20}{r.what}\n{'':22}{r.why} ({r.source})" for r in found if r.family == name]
        lines.append("")
    return "\n".join(lines).rstrip()


def _facts_of_comparison(one: ComparisonSummary) -> dict[str, Any]:
    return {
        "kind": "comparison",
        "run": one.folder.name,
        "path": str(one.folder),
        "name": one.title,
        "state": one.state,
        "detail": one.problem,
        "started": one.started,
        "runs": one.begun,
        "planned": one.planned,
    }


def _row_of_comparison(one: ComparisonSummary, terminal: bool) -> tuple[str, ...]:
    progress = f"{one.begun} of {one.planned} runs" if terminal else ""
    return (_printable(one.folder.name), one.state, progress, "", "", "", _moment(one.started))


def _facts(run: RunSummary) -> dict[str, Any]:
    return {
        "kind": "run",
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
        _moment(run.started),
    )


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
