"""A damaged or forged run file: one line that says so, in every reader, and all others are shown."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gradtui import cli
from gradtui.errors import RunFileError
from gradtui.runfile import Finding, Pictures, open_run
from gradtui.runfile import summary as summary_module
from gradtui.runfile.schema import Origin
from gradtui.runfile.summary import RunMetadata, request
from tests.synthetic import make_run

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fault_readers import DAMAGED, SHOWN, through_gradtui


def whole_run(path: Path) -> Path:
    """A run with something in every table."""
    writer = make_run(path, count=3, steps=120, close=False)
    writer.through_time(10, {"h1": np.ones(4, np.float32)})
    writer.pictures(Pictures(10, "weights", "fc1", 2, 2, -1.0, 1.0, bytes(8)))
    writer.event("note", "something happened", 5)
    writer.origin(Origin(7, "forward", 1, "sqrt of a negative number"))
    writer.finding(1, Finding("vanishing", ("fc1",), 3, "slow", {"ratio": 0.1}, ("relu",)))
    writer.close()
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return whole_run(tmp_path_factory.mktemp("whole") / "whole.gradtui").read_bytes()


@pytest.fixture
def path(whole: bytes, tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "hurt.gradtui").write_bytes(whole)
    return folder / "hurt.gradtui"


def change(path: Path, *statements: str) -> None:
    with sqlite3.connect(path, isolation_level=None) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


DEEP = "[" * 5_000 + "]" * 5_000
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS layer, i AS step FROM n"
DAMAGE = {
    "a start at infinity": ["UPDATE header SET value = 'Infinity' WHERE key = 'started'"],
    "a start that is no number": ["UPDATE header SET value = 'NaN' WHERE key = 'started'"],
    "a start in the far future": ["UPDATE header SET value = '1e300' WHERE key = 'started'"],
    "a start before time": ["UPDATE header SET value = '-5' WHERE key = 'started'"],
    "a start in words": ["UPDATE header SET value = '\"noon\"' WHERE key = 'started'"],
    "a name that is a list": ["UPDATE header SET value = '[1]' WHERE key = 'name'"],
    "a header that is no JSON": ["UPDATE header SET value = '{' WHERE key = 'name'"],
    "a header that is deep": [f"UPDATE header SET value = '{DEEP}' WHERE key = 'recipe'"],
    "an endless integer": [f"UPDATE header SET value = '{'9' * 100_000}' WHERE key = 'pid'"],
    "a command of numbers": ["UPDATE header SET value = '[1, 2]' WHERE key = 'command'"],
    "a process that cannot be": ["UPDATE header SET value = '-7' WHERE key = 'pid'"],
    "a BLOB in the header": ["UPDATE header SET value = x'00ff' WHERE key = 'name'"],
    "no header": ["DELETE FROM header"],
    "shapes that are deep": [f"UPDATE layers SET shapes = '{DEEP}'"],
    "shapes that are a list": ["UPDATE layers SET shapes = '[]'"],
    "a shape of text": ["""UPDATE layers SET shapes = '{"weight": "ab"}'"""],
    "a shape below zero": ["""UPDATE layers SET shapes = '{"weight": [-1, 2]}'"""],
    "parameters in words": ["UPDATE layers SET parameters = 'many'"],
    "no layer names": ["UPDATE layers SET name = NULL"],
    "a step below zero": ["UPDATE steps SET step = -3 WHERE step = 3"],
    "a step beyond all": ["UPDATE steps SET step = 9223372036854775807 WHERE step = 120"],
    "a time in words": ["UPDATE steps SET time = 'noon'"],
    "a time at infinity": ["UPDATE steps SET time = 9e999"],
    "an epoch at infinity": ["UPDATE steps SET epoch = 9e999"],
    "a loss that is a BLOB": ["UPDATE steps SET loss = x'31'"],
    "measures of text": ["UPDATE steps SET measures = 'abcdefgh'"],
    "measures of a wrong length": ["UPDATE steps SET measures = x'010203'"],
    "half a layer": ["UPDATE steps SET measures = zeroblob(4)"],
    "huge measures": ["UPDATE steps SET measures = zeroblob(40000003) WHERE step = 5"],
    "a metric of text": ["UPDATE scalars SET value = 'high'"],
    "a metric without a name": ["UPDATE scalars SET name = NULL"],
    "a metric at no step": ["UPDATE scalars SET step = NULL"],
    "neurons of text": ["UPDATE neurons SET bias_grad = 'abcd'"],
    "neurons of a wrong length": ["UPDATE neurons SET bias_grad = x'01'"],
    "a state that is a number": ["UPDATE through_time SET grad_norm = 3"],
    "pictures of a wrong length": ["UPDATE pictures SET rows = 3"],
    "pictures below zero": ["UPDATE pictures SET rows = -2, columns = -2"],
    "pictures in words": ["UPDATE pictures SET columns = 'wide'"],
    "an event of a BLOB": ["UPDATE events SET text = x'ff'"],
    "an event at a time in words": ["UPDATE events SET time = 'noon'"],
    "a heartbeat in words": ["UPDATE heartbeat SET time = 'noon'"],
    "a heartbeat without rows": ["UPDATE heartbeat SET rows = -1"],
    "an ending in numbers": ["UPDATE ending SET outcome = 5, detail = x'00'"],
    "findings that are deep": [f"UPDATE findings SET layers = '{DEEP}'"],
    "a finding of numbers": ["UPDATE findings SET layers = '[1]'"],
    "a finding without a step": ["UPDATE findings SET first_step = 'first'"],
    "a finding's numbers in words": ["""UPDATE findings SET numbers = '{"ratio": "low"}'"""],
    "layers that are a view": ["DROP TABLE layers", f"CREATE VIEW layers AS {ENDLESS}"],
    "steps that are a view": ["DROP TABLE steps", f"CREATE VIEW steps AS {ENDLESS}"],
    "no events": ["DROP TABLE events"],
    "a column that is computed": [
        "DROP TABLE events",
        "CREATE TABLE events (event INTEGER PRIMARY KEY, time REAL, step INTEGER, kind TEXT,"
        " text TEXT AS (hex(zeroblob(100000000))))",
    ],
    "a table of another program": [
        "DROP TABLE events", "CREATE VIRTUAL TABLE events USING fts5(event, time, step, kind, text)"
    ],
    "a trigger": ["CREATE TRIGGER evil AFTER INSERT ON commands BEGIN DELETE FROM steps; END"],
    "schema 0": ["PRAGMA user_version = 0"],
    "schema below zero": ["PRAGMA user_version = -1"],
}  # fmt: skip


def test_a_whole_run_is_shown(path: Path) -> None:
    assert through_gradtui(path) == SHOWN


@pytest.mark.parametrize("what", DAMAGE)
def test_values_of_the_wrong_kind_are_called_damaged_in_one_line_by_every_reader(what: str, path: Path) -> None:
    change(path, *DAMAGE[what])
    begin = time.thread_time()
    assert through_gradtui(path) == DAMAGED
    assert time.thread_time() - begin < 2.0


ODD = {
    "a finding of a newer version": [
        """UPDATE findings SET kind = 'grokking', remedies = '["wait"]', numbers = '{"x": "inf"}'"""
    ],
    "a table of somebody else": ["CREATE TABLE notes (x)", "CREATE VIEW mine AS SELECT * FROM notes"],
    "a metric that is not finite": ["UPDATE scalars SET value = 'nan' WHERE scalar = 1"],
    "a loss that is not finite": ["UPDATE steps SET loss = 9e999"],
    "text that is not UTF-8": ["UPDATE layers SET name = CAST(x'66ff31' AS TEXT) WHERE layer = 1"],
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_but_right_is_shown(what: str, path: Path) -> None:
    change(path, *ODD[what])
    assert through_gradtui(path) == SHOWN


def test_a_finding_of_a_newer_version_is_shown_plainly(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(path, *ODD["a finding of a newer version"])
    assert cli.main(["report", str(path)]) == 0
    said = capsys.readouterr().out
    assert "GROKKING  fc1: slow, since step 3" in said and "try wait\n" in said


def test_one_damaged_file_ends_nothing(path: Path, whole: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (path.parent / "good.gradtui").write_bytes(whole)
    change(path, *DAMAGE["a start at infinity"])
    (path.parent / "pipe.gradtui").mkdir()
    os.mkfifo(path.parent / "fifo.gradtui")
    (path.parent / "link.gradtui").symlink_to("/dev/zero")
    Path(os.fsdecode(os.fsencode(path.parent) + b"/odd\xff\x1b[31m.gradtui")).write_bytes(whole)
    assert cli.main(["runs", "--dir", str(path.parent)]) == 0
    said = capsys.readouterr().out.splitlines()
    rows = {row[0]: row for row in (line.split("\t") for line in said[1:])}
    assert len(said) == 7 and all(len(row) == 8 for row in rows.values())
    assert rows["good"][1] == "finished" and rows["odd\N{REPLACEMENT CHARACTER}␛[31m"][1] == "finished"
    assert {rows[name][1] for name in ("hurt", "pipe", "fifo", "link")} == {"unreadable"}
    assert "is damaged or cut short (the start is inf)" in rows["hurt"][-1]
    assert cli.main(["report", "--dir", str(path.parent)]) == 0, "the newest that can be read"
    assert cli.main(["report", "hurt", "--dir", str(path.parent)]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_a_request_sets_off_no_trigger(path: Path) -> None:
    change(path, *DAMAGE["a trigger"])
    with pytest.raises(RunFileError, match="it has a trigger, 'evil'"):
        request(path, "stop")


def test_a_page_that_points_to_itself_is_read_for_a_second_at_most(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a view is refused before it is read, so that here the clock alone stands between the reader and an endless query
    monkeypatch.setattr(summary_module, "check_tables", lambda rows: None)
    change(path, *DAMAGE["layers that are a view"])
    with RunMetadata(path) as reader:
        begin = time.thread_time()
        with pytest.raises(RunFileError, match="reading it takes too long"):
            reader.layer_count()
        assert time.thread_time() - begin < 2.0


def test_more_than_a_file_of_its_size_can_hold_is_not_read_into_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary_module, "check_tables", lambda rows: None)
    again = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000)"
    columns = "i AS event, 0.0 AS time, NULL AS step, 'note' AS kind, hex(zeroblob(500000)) AS text"
    change(path, "DROP TABLE events", f"CREATE VIEW events AS {again} SELECT {columns} FROM n")
    too_much = pytest.raises(RunFileError, match="bytes are asked for at once")
    with open_run(path) as reader, too_much, reader._reading():
        reader._all("SELECT text FROM events")
