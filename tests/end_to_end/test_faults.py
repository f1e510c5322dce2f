"""A small dose of `benchmarks/faults.py`: processes that are killed, disks and files in trouble."""

from __future__ import annotations

from pathlib import Path

from tests.forked_python import run

ROOT = Path(__file__).parents[2]


def test_what_is_killed_leaves_its_run_and_nothing_else() -> None:
    done = run([str(ROOT / "benchmarks" / "faults.py"), "--kills", "12", "--seed", "1"], cwd=ROOT)
    assert done.returncode == 0 and "BROKEN" not in done.stdout, done.stdout + done.stderr
    assert "training 3, parent 3, viewer 3, group 3" in done.stdout
