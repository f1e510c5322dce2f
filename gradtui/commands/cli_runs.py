"""`gradtui runs`: comparisons and runs, for a person, for a pipe, and as JSON."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradtui.commands.open_viewer import add_folder_flag, folder_of
from gradtui.errors import UsageError
from gradtui.format import as_json, printable
from gradtui.runfolder import NO_RUNS, RunSummary

if TYPE_CHECKING:
    from gradtui.lab.plan import ComparisonSummary

COLUMNS = ("run", "state", "step", "loss", "accuracy", "layers", "started", "problem")


def add_parser(commands: Any, is_given: bool) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "runs",
        help="list comparisons and runs: live ones first",
        description="List comparisons, then runs, live ones first; tab-separated in a pipe.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON array, for scripts")
    add_folder_flag(parser)
    parser.set_defaults(run=print_runs)


def print_runs(options: argparse.Namespace) -> int:
    """Print what is in the folder of runs; returns the exit code."""
    from gradtui.lab.plan import comparisons, summarise_comparison
    from gradtui.runfolder import runs

    folder = folder_of(options)
    if getattr(options, "dir", None) is not None and not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    found, compared = runs(folder), [summarise_comparison(path) for path in comparisons(folder)]
    if options.json:
        facts = [*(_facts_of_comparison(one) for one in compared), *(_facts(run) for run in found)]
        print(as_json(facts, indent=2))
    else:
        print(as_table(found, folder, compared, terminal=sys.stdout.isatty()))
    return 0


def as_table(
    runs: Sequence[RunSummary], folder: Path, comparisons: Sequence[ComparisonSummary] = (), *, terminal: bool
) -> str:
    """Aligned columns for a terminal, tab-separated ones for a pipe; the first line names them.

    `problem` is why a file cannot be read; a terminal has that column only where there is one.
    """
    if not runs and not comparisons and terminal:
        return NO_RUNS.format(folder)
    table = [COLUMNS, *(_row_of_comparison(one, terminal) for one in comparisons), *(_row(run) for run in runs)]
    if not terminal:
        return "\n".join("\t".join(row) for row in table)
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    kept = table if any(row[-1] for row in table[1:]) else [row[:-1] for row in table]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in kept
    )


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
    name, problem = printable(one.folder.name), printable(one.problem)
    return (name, one.state, progress, "", "", "", _moment(one.started), problem)


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
        "loss": run.loss,
        "loss_mean": run.loss_mean,
        "nan_since": run.status.nan_since if run.status else None,
        "accuracy": run.accuracy,
    }


def _row(run: RunSummary) -> tuple[str, ...]:
    return (
        printable(run.run_id),
        run.status.words if run.status else "unreadable",
        str(run.step),
        "" if run.loss_mean is None else f"{run.loss_mean:.4g}",
        "" if run.accuracy is None else f"{run.accuracy:.4f}",
        str(run.layers),
        _moment(run.started),
        printable(run.problem or ""),
    )


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""
