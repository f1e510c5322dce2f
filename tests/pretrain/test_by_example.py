"""Every example of `pretrain/README.md`, run as it stands there, in order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.__main__ import main

PAGE = (Path(__file__).parents[2] / "pretrain" / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_do_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = 0
    for language, block in BLOCKS:
        if language == "toml":
            Path("belief.toml").write_text(block)
        for line in block.splitlines() if language == "sh" else []:
            words = shlex.split(line)
            assert words[:3] == ["python", "-m", "pretrain"]
            assert main(words[3:]) == 0, line
            ran += 1
    assert ran == 7
    assert np.load("threes.npy").shape == (9, 8, 8) and np.load("features.npy").shape == (1200, 100)
    assert Path("samples.png").stat().st_size > 500


def test_the_examples_run_in_order_and_learn(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for language, block in BLOCKS:
        if language == "python":
            exec(block, names)
    said = capsys.readouterr().out

    def number(after: str) -> float:
        found = re.search(re.escape(after) + r" ?(-?[\d.]+)", said)
        assert found, after
        return float(found.group(1))

    assert number("test error") < 8
    assert -40 < number("test log-probability") < -15, "digits as probabilities; the RBM of the page learns briefly"
    assert number("squared error") < 2.5
    assert float(str(said.splitlines()[-1])) > 0.85
    right, threes = names["right"], names["threes"]
    assert isinstance(right, torch.Tensor) and float(right) > 0.8
    assert isinstance(threes, torch.Tensor) and threes.shape == (9, 64)
