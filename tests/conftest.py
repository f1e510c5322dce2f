"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# `from tests.synthetic import …` works from wherever pytest is started
sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture(autouse=True)
def runs_in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes into the user's own runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("GRADTUI_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder with MNIST's IDX files; the test is skipped where there is none."""
    folder = os.environ.get("GRADTUI_DATA")
    if not folder:
        pytest.skip("needs MNIST: set GRADTUI_DATA to the folder with its four IDX files")
    return Path(folder)
