"""A small dose of `benchmarks/faults.py`: processes that are killed, disks and files in trouble."""

from __future__ import annotations

from pathlib import Path

from tests.forked_python import run

ROOT = Path(__file__).parents[2]


def test_what_is_killed_leaves_its_run_and_nothing_else() -> None:
    done = run([str(ROOT / "benchmarks" / "faults.py"), "--kills", "8", "--seed", "1"], cwd=ROOT)
    assert done.returncode == 0 and "BROKEN" not in done.stdout, done.stdout + done.stderr
    assert "training 2, parent 2, viewer 2, group 2" in done.stdout


def test_a_training_does_not_notice_trouble_with_the_disk_and_its_file() -> None:
    done = run([str(ROOT / "benchmarks" / "faults.py"), "--disk", "30"], cwd=ROOT)
    assert done.returncode == 0 and "30 of 30 kinds" in done.stdout, done.stdout + done.stderr
