"""Names that nobody should have, through every output of every command: no character that a terminal obeys."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from gradtui import cli
from gradtui.errors import GradtuiError, say_on_stderr
from gradtui.format import printable
from gradtui.lab import compare_command
from gradtui.lab.plan import Plan
from gradtui.lab.recipe import Recipe
from gradtui.lab.results import results
from gradtui.report import report
from gradtui.runfile import open_run
from gradtui.tui.app import GradtuiApp
from tests.tui.driving import app_of, shows, text_of, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from fault_files import HOSTILE, write_run

NAMES = (*HOSTILE, "lone\udcffsurrogate")
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture
def hostile(runs_in_tmp: Path) -> Path:
    path = runs_in_tmp / "odd\x1b[31m\udcff\nname.gradtui"
    write_run(path, NAMES, 30)
    return path


def said_by(capsys: pytest.CaptureFixture[str], *words: str, fails: bool = False) -> str:
    assert bool(cli.main(words)) == fails
    said = capsys.readouterr()
    assert not OBEYED.search(said.out + said.err)
    return said.out or said.err


def test_the_names_come_back_as_they_were(hostile: Path) -> None:
    with open_run(hostile) as reader:
        names = [layer.name for layer in reader.layers()]
    assert names[: len(HOSTILE)] == list(HOSTILE)


def test_runs_and_report_print_nothing_that_a_terminal_obeys(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = said_by(capsys, "runs").splitlines()
    assert len(table) == 2 and len(table[1].split("\t")) == 8
    assert json.loads(said_by(capsys, "runs", "--json"))[0]["run"] == hostile.stem
    found = json.loads(said_by(capsys, "report", "--json"))
    assert [layer["name"] for layer in found["layers"]][: len(HOSTILE)] == list(HOSTILE)
    rows = [line.split("\t") for line in said_by(capsys, "report").splitlines()]
    layers = [row for row in rows if len(row) > 3 and row[1] == "3→4"]
    assert [row[0] for row in layers][: len(HOSTILE)] == list(map(printable, HOSTILE))
    on_a_terminal = report(hostile, as_json=False, terminal=True)
    assert not OBEYED.search(on_a_terminal) and max(map(len, on_a_terminal.splitlines())) < 1_000


@pytest.mark.parametrize("name", [name for name in NAMES if "\0" not in name])
def test_an_error_with_such_a_name_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said_by(capsys, "report", f"no-{name}", fails=True).count("\n") == 1
    assert said_by(capsys, "runs", "--dir", f"/no/such/{name}", fails=True).count("\n") == 1
    assert said_by(capsys, f"--{name}x", fails=True).count("\n") == 1
    say_on_stderr(str(GradtuiError(name)))
    assert not OBEYED.search(capsys.readouterr().err)


def test_a_comparison_prints_and_writes_nothing_that_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = {name: Recipe(epochs=1) for name in NAMES[:-1] if name.strip()}
    plan = Plan(tmp_path / "x.compare", NAMES[0], NAMES[2], recipes, (0,), 0.5)
    plan.save()
    write_run(plan.cells()[0].path, NAMES, 30)
    plan.cells()[1].path.write_bytes(b"damaged")
    out = {"csv": tmp_path / "a.csv", "html": tmp_path / "a.html"}
    options = argparse.Namespace(json=False, **out)
    compare_command._show(plan, results(plan), options)
    compare_command._show(plan, results(plan), argparse.Namespace(json=True, csv=None, html=None))
    printer = compare_command._LinePrinter(quiet=False)
    for cell, one in zip(plan.cells(), results(plan), strict=True):
        printer(cell, one)
    assert not OBEYED.search(capsys.readouterr().out)
    for path in out.values():
        assert not OBEYED.search(path.read_text("utf-8"))
    with out["csv"].open(encoding="utf-8", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == list(map(printable, recipes))
    page = out["html"].read_text("utf-8")
    assert "<script>" not in page and "alert(1)" in page


@pytest.mark.parametrize("size", [(120, 40), (60, 16)])
async def test_the_viewer_draws_such_names_as_text(hostile: Path, size: tuple[int, int]) -> None:
    app = app_of(hostile)
    async with app.run_test(size=size) as pilot:
        await shows(pilot, "[bold]") if size[1] > 30 else await shows(pilot, "failed")
        for key in ("down", "down", "m", "f", "escape", "n", "escape", "i", "escape", "question_mark", "escape", "p"):
            await pilot.press(key)
            await pilot.pause()
            assert not OBEYED.search(text_of(app.screen).replace("\n", "")), key


async def test_home_lists_a_run_of_such_a_name_and_one_that_is_damaged(hostile: Path) -> None:
    (hostile.parent / "[red]hurt.gradtui").write_bytes(b"SQLite format 3\0 and no more")
    app: Any = GradtuiApp(hostile.parent)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await shows(pilot, "odd␛[31m")
        await shows(pilot, "[red]hurt")
        assert "unreadable" in text_of(app.screen)
        app.notify(f"[red] {hostile} [/]", title="\x1b[31m")
        await shows(pilot, "[red] ")
        assert not OBEYED.search(text_of(app.screen).replace("\n", ""))


async def test_a_run_that_is_damaged_while_it_is_shown_is_said_to_be(runs_in_tmp: Path) -> None:
    path = runs_in_tmp / "live.gradtui"
    write_run(path, ("fc1", "fc2", "head"), 30, ended=False)
    app = app_of(path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await shows(pilot, "Neurons of fc1")
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE heartbeat SET time = 'noon'")
        connection.close()
        await wait_for(pilot, lambda: "heartbeat" in text_of(app.screen))
        await pilot.press("m", "f", "n", "left", "escape")
