"""One file through every reader of gradtui or pretrain, and what they say about it.

A reader may show the file, or call it damaged in one line. Anything else is a `BrokenPromiseError`: a traceback,
several lines, a control character that reaches the terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

from fault_limits import BrokenPromiseError, bounded

from gradtui.commands.cli_runs import print_runs
from gradtui.errors import GradtuiError, say_on_stderr
from gradtui.lab import html_report, results
from gradtui.lab.plan import Cell, Plan, load_plan
from gradtui.lab.recipe import Recipe
from gradtui.report import report
from gradtui.runfolder import summarise
from gradtui.tui.compared_runs import ComparisonView, Source, aligned
from gradtui.tui.run_follower import RunFollower
from gradtui.tui.run_lines import describe, details
from gradtui.tui.run_view import RunView, Waiting
from gradtui.tui.text import clean
from gradtui.tui.widgets.run_header import RunHeader
from gradtui.view import Snapshot

SHOWN, DAMAGED = "shown", "called damaged"
UNFORESEEN = ("this run cannot be shown", "cannot be read (")
LONGEST_LINE = 2_000  # characters of an error: a path may have a thousand
LONGEST_OF_PRETRAIN = 300  # beside the path


def through_gradtui(path: Path) -> str:
    """A run file through `gradtui runs`, `report`, `compare` and the viewer's feed; SHOWN or DAMAGED."""
    outcomes = {_listed(path), _reported(path), _viewed(path), _compared(path)}
    return DAMAGED if DAMAGED in outcomes else SHOWN


def through_comparisons(folder: Path) -> str:
    """The folder of a comparison through `gradtui runs` and what opens it."""
    for as_json in (False, True):
        printed(lambda as_json=as_json: print_runs(argparse.Namespace(json=as_json, dir=folder.parent)))
    return _said(lambda: load_plan(folder).cells())[1]


def printed(command: Callable[[], object]) -> str:
    """What a command prints; checked."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), bounded():
        command()
    check_lines(text.getvalue())
    return text.getvalue()


def check_lines(text: str) -> None:
    """Raise `BrokenPromiseError` for a character that a terminal may obey; tabs stand between columns."""
    for line in text.split("\n"):
        for cell in line.split("\t"):
            if not cell.isprintable():
                raise BrokenPromiseError(f"a control character is printed: {ascii(cell)[:200]}")


def _said(command: Callable[[], object], known: type[Exception] = GradtuiError) -> tuple[object, str]:
    """What a command gives, and whether it called its file damaged, which must be one line."""
    try:
        with bounded():
            return command(), SHOWN
    except known as error:
        heard = io.StringIO()
        with contextlib.redirect_stderr(heard):
            say_on_stderr(str(error))
        if str(error).count("\n") or len(str(error)) > LONGEST_LINE:
            raise BrokenPromiseError(f"an error has {len(str(error))} characters: {ascii(str(error))[:300]}") from error
        check_lines(heard.getvalue().removesuffix("\n"))
        return None, DAMAGED


def _listed(path: Path) -> str:
    for as_json in (False, True):
        text = printed(lambda as_json=as_json: print_runs(argparse.Namespace(json=as_json, dir=path.parent)))
        if as_json:
            json.loads(text)
    one = summarise(path)
    check_lines(f"{describe(one, 120)}\n{details(one)}")
    return SHOWN if one.problem is None else DAMAGED


def _reported(path: Path) -> str:
    outcomes = set()
    for how in ({"as_json": True, "terminal": False}, {"as_json": False, "terminal": False},
                {"as_json": False, "terminal": True}):  # fmt: skip
        text, outcome = _said(lambda how=how: report(path, **how))
        check_lines(str(text))
        if how["as_json"] and outcome == SHOWN:
            json.loads(str(text))
        outcomes.add(outcome)
    return DAMAGED if DAMAGED in outcomes else SHOWN


@bounded()
def _viewed(path: Path) -> str:
    view = RunView(RunFollower(lambda: path))
    try:
        outcome = _look(view)
        view.want(measure=1, layer=1)
        view.jump(-0.5)
        _look(view)
        view.walk(-1)
        view.walk(2)
        view.toggle_pause()
        _look(view)
        return DAMAGED if view.follower.problem else outcome
    finally:
        view.close()


def _look(view: RunView) -> str:
    """One frame."""
    view.poll()
    shown = view.next(changed=True, ready=True)
    for said in (view.follower.problem, view.follower.findings_problem):
        if any(words in said for words in UNFORESEEN):
            raise BrokenPromiseError(f"unforeseen: {ascii(said)[:300]}")
    if isinstance(shown, Snapshot):
        lines = [*shown.lines, *(layer.name for layer in shown.layers), *(name for name, _ in shown.metrics)]
        lines += [fact for fact, _ in RunHeader._facts(shown)]
        check_lines("\n".join(map(clean, lines)))
    elif isinstance(shown, Waiting):
        check_lines(clean(shown.text))
    return DAMAGED if view.follower.problem else SHOWN


@bounded()
def _compared(path: Path) -> str:
    recipe = Recipe()
    plan = Plan(path.parent / "x.compare", "title", "hint", {"label": recipe}, (0,), 0.5)
    cell = Cell("label", recipe, path)
    one = results.result_of(cell, plan.target_cost)
    rows = results.table(plan, [one])
    check_lines("\n".join(["\t".join(results.as_cells(row)) for row in rows]))
    check_lines(results.as_csv(plan, [one]))
    json.loads(results.as_json(plan, [one]))
    for read in (html_report._ends, lambda cell: html_report._series(cell, "val_accuracy")):
        read(cell)
    html_report._states(cell, 2**62)
    view = ComparisonView([Source("label", path)])
    try:
        view.poll()
        newest = view.next(changed=True, ready=True)
        for run in aligned(newest.runs if newest else ()):
            if any(words in run.detail for words in UNFORESEEN):
                raise BrokenPromiseError(f"unforeseen: {ascii(run.detail)[:300]}")
            check_lines(clean(run.detail))
    finally:
        view.close()
    return DAMAGED if one.state == "damaged" else SHOWN
