"""Killed writers, full disks, deleted and locked files: said once, and the training goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gradtui.runfile import RunWriter, creation, open_run
from gradtui.runfile import writer as writer_module
from gradtui.runfile.creation import choose_journal, filesystem_of
from gradtui.runfile.liveness import SILENT_AFTER, judge, machine_identity, process_start
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

    def small(path: Path, mode: str = "rw") -> sqlite3.Connection:
        connection = connect(path, mode)
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
    monkeypatch.setattr(writer_module, "RETRY_EVERY", 0.1)
    connect = writer_module.connect

    def impatient(path: Path, mode: str = "rw") -> sqlite3.Connection:
        connection = connect(path, mode)
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


def test_a_network_file_system_gets_a_rollback_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
    assert filesystem_of(tmp_path / "a", mounts) == "nfs4"
    assert filesystem_of(Path("/"), mounts) == "ext4"
    monkeypatch.setattr(creation, "filesystem_of", lambda _: "nfs4")
    writer = make_run(tmp_path / "a.gradtui", close=False)
    assert not Path(f"{writer.path}-wal").exists()
    with open_run(writer.path) as reader:
        wait_until(lambda: (reader.span() or (0, 0))[1] == 1000)
        assert any("rollback journal" in event.text for event in reader.events())
    writer.close()
    connection = sqlite3.connect(":memory:")
    assert choose_journal(connection, tmp_path) == "memory"
