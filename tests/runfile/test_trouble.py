"""Killed writers, full disks, deleted and locked files: said once, and the training goes on."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gradtui.errors import RunFileBusyError
from gradtui.runfile import Finding, RunWriter, creation, open_run
from gradtui.runfile import writer as writer_module
from gradtui.runfile.liveness import SILENT_AFTER, judge, machine_identity, process_start
from gradtui.runfile.private_files import create, draft_of, publish
from tests.forked_python import run
from tests.synthetic import MEASURES, header, layers, make_run, write_steps

WRITE_FOREVER = """
import sys, time
from pathlib import Path
from tests.synthetic import make_run, write_steps
writer = make_run(Path(sys.argv[1]), steps=10, close=False)
step = 10
while True:
    write_steps(writer, step + 1, step + 10, 4)
    step += 10
    print(step, time.time(), flush=True)
    time.sleep(0.01)
"""


def wait_until(condition, seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_a_killed_writer_leaves_a_run_that_died_with_all_but_the_last_second(tmp_path: Path) -> None:
    path = tmp_path / "killed.gradtui"
    script = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOREVER, str(path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None
    lines = [script.stdout.readline() for _ in range(150)]
    script.send_signal(signal.SIGKILL)
    # not reaped yet: a zombie is no live training either
    wait_until(lambda: (Path(f"/proc/{script.pid}/stat").read_text().rpartition(")")[2].split()[0]) == "Z")
    killed = float(lines[-1].split()[1])
    with open_run(path) as reader:
        assert reader.status().state == "died"
        assert "left no ending" in reader.status().detail
        span = reader.span()
        due = max(int(line.split()[0]) for line in lines if float(line.split()[1]) < killed - 1.0)
        assert span is not None and span[1] >= due
        assert len(reader.newer(0)) == span[1]
    script.wait()


def test_a_deleted_file_is_said_once_and_writing_goes_nowhere(tmp_path: Path) -> None:
    said: list[str] = []
    writer = RunWriter(tmp_path / "a.gradtui", header(), MEASURES, say=said.append)
    writer.set_layers(layers(4))
    write_steps(writer, 1, 100, 4)
    wait_until(lambda: (tmp_path / "a.gradtui").stat().st_size > 0)
    (tmp_path / "a.gradtui").unlink()
    wait_until(lambda: bool(said))
    write_steps(writer, 101, 200, 4)
    writer.close()
    assert len(said) == 1 and "\n" not in said[0]
    assert "was removed" in said[0] and "training goes on" in said[0]
    assert writer.dropped >= 100


def test_a_full_disk_is_said_once_and_what_was_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    connect = writer_module.connect

    def small(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 60")
        return connection

    monkeypatch.setattr(writer_module, "connect", small)
    monkeypatch.setattr(writer_module, "RETRY_EVERY", 0.1)
    writer = RunWriter(tmp_path / "a.gradtui", header(), MEASURES, say=said.append)
    writer.set_layers(layers(4))
    write_steps(writer, 1, 500, 4)
    with open_run(writer.path) as reader:
        wait_until(lambda: reader.span() == (1, 500))
    for first in range(501, 20_000, 500):
        write_steps(writer, first, first + 499, 4)
    wait_until(lambda: bool(said))
    time.sleep(0.5)
    writer.close()
    assert "full" in said[0] and "training goes on" in said[0]
    assert len(said) <= 2 and all("\n" not in line for line in said)
    with open_run(writer.path) as reader:
        span = reader.span()
        assert span is not None and span[1] >= 500


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small tmpfs needs root on Linux")
def test_a_small_tmpfs_that_fills_and_is_freed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        monkeypatch.setattr(writer_module, "RETRY_EVERY", 0.1)
        said: list[str] = []
        writer = RunWriter(mount / "a.gradtui", header(), MEASURES, say=said.append)
        writer.set_layers(layers(4))
        write_steps(writer, 1, 200, 4)
        time.sleep(0.6)
        ballast = mount / "ballast"
        with pytest.raises(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"x" * 65536)
                file.flush()
        for first in range(201, 4001, 200):
            write_steps(writer, first, first + 199, 4)
        wait_until(lambda: bool(said))
        assert "full" in said[0]
        ballast.unlink()
        with open_run(writer.path) as reader:
            wait_until(lambda: (reader.span() or (0, 0))[1] == 4000)
        writer.close()
        with open_run(writer.path) as reader:
            assert reader.status().state == "finished"
            assert len(reader.newer(0, 10_000)) == 4000, "rows that waited for room are not lost"
    finally:
        subprocess.run(["umount", str(mount)], check=False)


def test_a_locked_file_is_waited_for_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "TELL_LOCKED_AFTER", 0.1)
    connect = writer_module.connect

    def impatient(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA busy_timeout = 50")
        return connection

    monkeypatch.setattr(writer_module, "connect", impatient)
    said: list[str] = []
    writer = RunWriter(tmp_path / "a.gradtui", header(), MEASURES, say=said.append)
    writer.set_layers(layers(4))
    other = sqlite3.connect(writer.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    write_steps(writer, 1, 300, 4)
    wait_until(lambda: bool(said))
    assert "locked" in said[0]
    other.execute("ROLLBACK")
    other.close()
    writer.close()
    with open_run(writer.path) as reader:
        assert len(reader.newer(0)) == 300


def test_more_rows_than_the_queue_holds_are_dropped_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "QUEUE_BYTES", 100_000)
    writer = RunWriter(tmp_path / "a.gradtui", header(), MEASURES, say=lambda _: None)
    writer.set_layers(layers(4))
    write_steps(writer, 1, 5000, 4)
    assert writer.dropped > 0
    writer.close()
    with open_run(writer.path) as reader:
        assert [event.kind for event in reader.events()] == ["gap"]


def test_large_samples_count_for_what_they_weigh_in_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_EVERY", 60.0)
    monkeypatch.setattr(writer_module, "QUEUE_BYTES", 1_000_000)
    monkeypatch.setattr(writer_module, "BATCH_BYTES", 100_000)
    writer = RunWriter(tmp_path / "a.gradtui", header(), MEASURES, say=lambda _: None)
    writer.set_layers(layers(4))
    for step in range(1, 101):
        writer.neurons(step, {0: np.ones(10_000, np.float32)})
    assert 20 <= writer.waiting <= 30 and writer.dropped == 100 - writer.waiting
    writer.close()
    assert writer.waiting == 0
    with open_run(writer.path) as reader:
        sample = reader.neurons(100)
        assert sample is not None and 20 <= sample.step <= 30, "closing writes all parts of the queue"
        assert reader.status().state == "finished"


def test_closing_does_nothing_in_a_forked_child(tmp_path: Path) -> None:
    writer = make_run(tmp_path / "a.gradtui", close=False)
    child = os.fork()
    if child == 0:
        writer.close("failed", "by the child")
        os._exit(0)
    os.waitpid(child, 0)
    with open_run(writer.path) as reader:
        assert reader.status().live
    writer.close()
    with open_run(writer.path) as reader:
        assert reader.status().state == "finished"


def test_a_stranger_with_the_same_pid_is_not_the_training() -> None:
    pid, now = os.getpid(), 1000.0
    started = process_start(pid)
    assert started is not None
    assert judge(None, now, machine_identity(), pid, started, now).state == "live"
    assert judge(None, now, machine_identity(), pid, started + "1", now).state == "died"
    assert judge(("failed", "why"), now, machine_identity(), pid, started, now).state == "failed"


def test_a_run_on_another_machine_lives_by_its_heartbeat() -> None:
    assert judge(None, 1000.0, "elsewhere", 1, "1", 1000.0 + SILENT_AFTER - 1).state == "live"
    silent = judge(None, 1000.0, "elsewhere", 1, "1", 1000.0 + SILENT_AFTER + 1)
    assert silent.state == "died" and "no sign of life for 16 s" in silent.detail


def test_a_companion_file_that_is_cut_short_does_not_end_the_training(tmp_path: Path) -> None:
    """A write-ahead log is read through a map of `-shm`: cut short, the system ends whoever looks at it."""
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom tests.synthetic import make_run, write_steps\n"
        "path = Path(sys.argv[1])\nwriter = make_run(path, steps=100, close=False)\n"
        "for first in range(101, 601, 100):\n"
        "    time.sleep(0.1)\n"
        "    maps = Path('/proc/self/maps')\n"
        "    assert not maps.exists() or path.name not in maps.read_text()\n"
        "    for companion in path.parent.glob(f'{path.name}-*'):\n        os.truncate(companion, 0)\n"
        "    write_steps(writer, first, first + 99, 4)\n"
        "writer.close()\n"
    )
    done = run(["-c", code, str(tmp_path / "a.gradtui")], cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "")
    with open_run(tmp_path / "a.gradtui") as reader:
        assert len(reader.newer(0)) == 600 and reader.status().state == "finished"


def test_a_lock_that_is_held_for_ever_costs_the_end_of_a_training_little(tmp_path: Path) -> None:
    said: list[str] = []
    writer = make_run(tmp_path / "a.gradtui", steps=100, close=False)
    writer._say = said.append
    wait_until(lambda: not writer.waiting)
    other = sqlite3.connect(writer.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    write_steps(writer, 101, 150, 4)
    began = time.monotonic()
    writer.close()
    assert time.monotonic() - began < writer_module.LOCKED_AT_END + creation.LOCK_WAIT + 0.5
    assert len(said) == 1 and "locked" in said[0] and "the last 50 rows are lost" in said[0]
    other.close()
    with open_run(tmp_path / "a.gradtui") as reader:
        assert len(reader.newer(0)) == 100


def test_whatever_stands_in_a_name_is_recorded(tmp_path: Path) -> None:
    names = ["\ud83d", "\x1b[31m", "a\x00b", "ünïcode"]
    said: list[str] = []
    writer = RunWriter(tmp_path / "a.gradtui", header("\udc80"), MEASURES, say=said.append)
    writer.set_layers(layers(4, names))
    write_steps(writer, 1, 10, 4)
    for name in names:
        writer.scalar(1, 1.0, name, 1.0)
        writer.event("note", name, 1)
        writer.through_time(1, {name: np.ones(3, np.float32)})
    writer.finding(1, Finding("dead", (names[0],), 1, names[0]))
    writer.close()
    assert said == []
    wanted = ["\\ud83d", *names[1:]]
    with open_run(writer.path) as reader:
        assert reader.header.name == "\udc80"
        assert [layer.name for layer in reader.layers()] == wanted
        assert list(reader.scalars()[0]) == wanted and [event.text for event in reader.events()] == wanted
        assert len(reader.newer(0)) == 10 and reader.status().state == "finished"


def test_an_error_of_any_kind_in_the_thread_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    for number, (what, error) in enumerate([("_drain", MemoryError("no\nmore")), ("_beat", RuntimeError("odd"))]):
        said: list[str] = []
        writer = RunWriter(tmp_path / f"{number}.gradtui", header(), MEASURES, say=said.append)

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(writer, what, fail)
        wait_until(lambda told=said: bool(told))
        write_steps(writer, 1, 10, 4)
        writer.close()
        assert len(said) == 1 and "\n" not in said[0] and "training goes on unrecorded" in said[0], said
        with open_run(writer.path) as reader:
            assert [event.kind for event in reader.events()] == (["recorder"] if what == "_beat" else [])
    assert not seen


def test_a_child_that_is_forked_in_the_middle_of_a_commit_harms_nothing(tmp_path: Path) -> None:
    writer = make_run(tmp_path / "a.gradtui", close=False)
    for first in range(1001, 4001, 100):
        write_steps(writer, first, first + 99, 4)
        time.sleep(0.01)
        child = os.fork()
        if child == 0:
            gc.collect()
            make_run(tmp_path / f"{os.getpid()}.gradtui", steps=10)  # SQLite works in the child too
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.close()
    with open_run(writer.path) as reader:
        assert len(reader.newer(0)) == 4000


def test_a_run_is_its_owner_s_alone_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o022, 0o777):
        before = os.umask(umask)
        try:
            writer = make_run(tmp_path / f"new{umask}" / "runs" / "a.gradtui", close=False)
        finally:
            os.umask(before)
        assert writer.path.stat().st_mode & 0o777 == 0o600
        for folder in (writer.path.parent, writer.path.parent.parent):
            assert folder.stat().st_mode & 0o777 == 0o700
        writer.close()
    tmp_path.chmod(0o755)
    make_run(tmp_path / "a.gradtui")
    assert tmp_path.stat().st_mode & 0o777 == 0o755, "a folder of the user's stays as it is"


def test_a_run_is_never_made_through_a_link_or_over_a_file(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    path = tmp_path / "a.gradtui"
    path.symlink_to(victim)
    with pytest.raises(FileExistsError):
        make_run(path)
    draft_of(tmp_path / "b.gradtui").symlink_to(victim)
    with pytest.raises(FileExistsError):
        make_run(tmp_path / "b.gradtui")
    assert not victim.exists()
    journal = tmp_path / "c.gradtui-journal"
    journal.write_bytes(b"of a run that was deleted without it")
    make_run(tmp_path / "c.gradtui")
    assert not journal.exists()


def test_of_writers_that_want_one_name_one_gets_it(tmp_path: Path) -> None:
    path, made = tmp_path / "a.gradtui", []

    def make(number: int) -> None:
        draft = tmp_path / f"draft{number}"
        os.close(create(draft))
        together.wait()
        try:
            publish(draft, path)
            made.append(number)
        except FileExistsError:
            pass

    together = threading.Barrier(8)
    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_file_system_without_hard_links_takes_a_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", link)
    path = make_run(tmp_path / "a.gradtui").path
    with open_run(path) as reader:
        assert len(reader.newer(0)) == 1000
    with pytest.raises(FileExistsError):
        make_run(path)
    assert [one.name for one in tmp_path.iterdir() if one.name != "runs"] == ["a.gradtui"]


def test_a_run_that_an_older_version_left_in_a_write_ahead_log_is_read(tmp_path: Path) -> None:
    path = make_run(tmp_path / "old.gradtui").path
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE steps SET loss = 7.0 WHERE step = 1000")
    left = tmp_path / "left.gradtui"  # as a killed process leaves it
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{left}{end}")
    for one in (path, left):
        with open_run(one) as reader:
            assert len(reader.newer(0)) == 1000 and reader.last_loss() == 7.0
    writer.close()


def test_an_open_reader_does_not_take_the_writer_s_lock_away(tmp_path: Path) -> None:
    """POSIX drops all locks of a process on a file with the first descriptor that it closes."""
    path = make_run(tmp_path / "a.gradtui").path
    mine = sqlite3.connect(path, isolation_level=None)
    mine.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RunFileBusyError):
        open_run(path)
    ask = "import sqlite3, sys\nsqlite3.connect(sys.argv[1], timeout=0).execute('SELECT 1 FROM steps').fetchone()"
    assert "database is locked" in run(["-c", ask, str(path)]).stderr
    mine.close()
