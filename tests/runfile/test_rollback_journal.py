"""The rollback journal of a run file: readers and the writer lock each other out for moments only."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradtui.errors import RunFileBusyError, RunFileError
from gradtui.leftovers import clear_leftovers
from gradtui.runfile import RunWriter, open_run, summary
from gradtui.runfile import writer as writer_module
from gradtui.tui.run_view import Waiting
from gradtui.view import Snapshot
from tests.synthetic import MEASURES, header, layers, write_steps
from tests.tui.following import follow


def wait_until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@pytest.fixture
def busy_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RunWriter, list[str]]]:
    """A writer that writes far more often than it would, and what it said."""
    monkeypatch.setattr(writer_module, "FLUSH_EVERY", 0.01)
    said: list[str] = []
    writer = RunWriter(tmp_path / "a.gradtui", header(), MEASURES, say=said.append)
    writer.set_layers(layers(4))
    yield writer, said
    writer.close()


def journal_of(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
    finally:
        connection.close()


def test_viewers_follow_while_the_writer_writes_and_nothing_is_lost(busy_writer: tuple[RunWriter, list[str]]) -> None:
    writer, said = busy_writer
    assert not Path(f"{writer.path}-wal").exists() and journal_of(writer.path) in ("delete", "truncate")
    delivered: list[Snapshot | Waiting] = []
    following = [follow(writer.path, delivered.append, frames_per_second=60)[1] for _ in range(3)]
    began = time.monotonic()
    for first in itertools.count(1, 10):
        write_steps(writer, first, first + 9, 4)
        time.sleep(0.01)
        if time.monotonic() - began > 3:
            break
    last = first + 9
    wait_until(lambda: isinstance(delivered[-1], Snapshot) and delivered[-1].last_step == last)
    for thread in following:
        thread.stop()
        thread.join()
    shown = [one.last_step for one in delivered if isinstance(one, Snapshot)]
    assert len(set(shown)) > 10, "followed while it was written"
    assert not [one for one in delivered if isinstance(one, Waiting) and one.failed]
    assert said == []
    writer.close()
    with open_run(writer.path) as reader:
        assert len(reader.newer(0, 1 << 20)) == last


def test_a_lock_that_lasts_is_waited_for_without_a_word(
    busy_writer: tuple[RunWriter, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "READ_TIMEOUT", 0.05)
    writer, _ = busy_writer
    write_steps(writer, 1, 100, 4)
    delivered: list[Snapshot | Waiting] = []
    view, thread = follow(writer.path, delivered.append, frames_per_second=60)
    wait_until(lambda: delivered and isinstance(delivered[-1], Snapshot) and delivered[-1].last_step == 100)
    other = sqlite3.connect(writer.path, isolation_level=None, timeout=5.0)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RunFileBusyError, match="try again"):
        open_run(writer.path)
    write_steps(writer, 101, 200, 4)
    thread.ask(lambda: view.want(measure=1))
    time.sleep(0.5)
    other.execute("ROLLBACK")
    other.close()
    wait_until(lambda: isinstance(delivered[-1], Snapshot) and delivered[-1].last_step == 200)
    assert isinstance(delivered[-1], Snapshot) and delivered[-1].measure == 1
    assert not any(isinstance(one, Waiting) and one.failed for one in delivered)
    thread.stop()
    thread.join()


def left_half_done(path: Path) -> Path:
    """A copy of the run as a writer leaves it that is killed in the middle of a commit."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 2")  # the transaction goes to the file before it is committed
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE steps SET loss = 7.0")
    left = path.with_name("left.gradtui")
    for end in ("", "-journal"):
        Path(f"{left}{end}").write_bytes(Path(f"{path}{end}").read_bytes())
    connection.execute("ROLLBACK")
    connection.close()
    return left


def test_a_commit_that_a_killed_writer_left_half_done_is_undone(busy_writer: tuple[RunWriter, list[str]]) -> None:
    writer, _ = busy_writer
    write_steps(writer, 1, 500, 4)
    writer.close()
    left = left_half_done(writer.path)
    with open_run(left) as reader:
        rows = reader.newer(0)
        assert len(rows) == 500 and not (rows.loss == 7.0).any()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_who_may_only_read_reads_what_is_there_of_a_commit_that_was_left_half_done(
    busy_writer: tuple[RunWriter, list[str]], tmp_path: Path
) -> None:
    writer, _ = busy_writer
    write_steps(writer, 1, 500, 4)
    writer.close()
    left = left_half_done(writer.path)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    for path in left.parent.glob("left*"):
        path.chmod(0o644)
    child = os.fork()
    if child == 0:
        os.setegid(65534)
        os.seteuid(65534)
        try:
            with open_run(left) as reader:
                os._exit(0 if len(reader.newer(0)) else 1)
        except RunFileError as error:
            os._exit(1 if "\n" in str(error) else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert Path(f"{left}-journal").exists()
    clear_leftovers(tmp_path)
    assert not Path(f"{left}-journal").exists()
    with open_run(left) as reader:
        assert not (reader.newer(0).loss == 7.0).any()


def test_a_reader_that_stays_does_not_starve_the_writer(busy_writer: tuple[RunWriter, list[str]]) -> None:
    writer, said = busy_writer
    write_steps(writer, 1, 10, 4)
    stop = threading.Event()
    longest = 0.0

    def read() -> None:
        nonlocal longest
        with open_run(writer.path) as reader:
            while not stop.is_set():
                began = time.monotonic()
                reader.newer(0, 1 << 20)
                longest = max(longest, time.monotonic() - began)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for first in range(11, 511, 50):
        write_steps(writer, first, first + 49, 4)
        time.sleep(0.1)
    with open_run(writer.path) as reader:
        wait_until(lambda: (reader.span() or (0, 0))[1] == 510)
    stop.set()
    for thread in threads:
        thread.join()
    assert said == [] and longest < summary.READ_TIMEOUT
