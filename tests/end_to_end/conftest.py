"""What the tests in a real terminal share."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradtui.errors import RunFileError
from gradtui.runfile import RunMetadata


@pytest.fixture(autouse=True)
def no_training_is_left(runs_in_tmp: Path) -> Iterator[None]:
    """A test that fails half-way leaves no training that would slow down all others."""
    yield
    for path in runs_in_tmp.rglob("*.gradtui"):
        with contextlib.suppress(RunFileError, OSError), RunMetadata(path) as run:
            if str(path).encode() in Path(f"/proc/{run.header.pid}/cmdline").read_bytes():
                os.kill(run.header.pid, signal.SIGKILL)
