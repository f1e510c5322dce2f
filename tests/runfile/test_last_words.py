"""What a list says of a run: whether its numbers are NaN, the loss at its end, how many steps were measured."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from gradtui.commands.cli_runs import print_runs
from gradtui.diagnosis import Finding
from gradtui.measures import MEASURES
from gradtui.report import report
from gradtui.runfile import RunMetadata, RunWriter
from gradtui.runfolder import summarise
from gradtui.tui.run_lines import describe
from gradtui.tui.states import shown
from tests.synthetic import header, layers


def make(path: Path, losses: list[float | None], nan_since: int | None = None, every: int = 1) -> Path:
    """A run with these losses, of which each `every`th row has measures."""
    writer = RunWriter(path, header(), list(MEASURES.values()))
    writer.set_layers(layers(2))
    block = np.ones((2, len(MEASURES)), np.float32).tobytes()
    for step, loss in enumerate(losses, 1):
        writer.step(step, None, step / 10, loss, 0.1, None if step % every else block)
    if nan_since is not None:
        writer.finding(1, Finding("nan", (), nan_since, "the loss is NaN or infinite"))
    writer.close()
    return path


def test_a_run_that_ends_in_nan_is_not_merely_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make(tmp_path / "bad.gradtui", [1.0] * 10 + [math.nan] * 20, nan_since=11)
    run = summarise(path)
    assert run.status is not None and (run.status.state, run.status.nan_since) == ("finished", 11)
    assert shown(run.status) == ("✗", "finished, NaN since step 11", "error")
    assert "✗ finished, NaN since step 11" in describe(run, 120)
    assert describe(run, 58).startswith(f"✗ NaN        {run.run_id}")
    assert print_runs(Namespace(json=False, dir=tmp_path)) == 0
    assert "\tfinished, NaN since step 11\t" in capsys.readouterr().out
    assert print_runs(Namespace(json=True, dir=tmp_path)) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert (facts["state"], facts["nan_since"], facts["loss_mean"]) == ("finished", 11, "nan")
    assert "finished, NaN since step 11, 30 steps, loss nan" in report(path, as_json=False, terminal=False)


def test_a_loss_that_was_nan_for_a_while_and_is_none_now(tmp_path: Path) -> None:
    run = summarise(make(tmp_path / "ok.gradtui", [1.0, math.nan] + [0.5] * 20, nan_since=2))
    assert run.status is not None and run.status.nan_since is None and shown(run.status)[2] == "primary"


def test_the_loss_at_the_end_is_a_mean_that_says_of_which_steps(tmp_path: Path) -> None:
    losses: list[float | None] = [10.0] * 250 + [1.0, 3.0] * 25
    path = make(tmp_path / "a.gradtui", losses)
    text = report(path, as_json=False, terminal=False)
    assert "loss 2 (mean of 20, steps 281 to 300)" in text
    found = json.loads(report(path, as_json=True, terminal=False))
    assert (found["loss"], found["loss_step"], found["loss_mean"]["mean"]) == (3.0, 300, 2.0)
    assert summarise(path).loss_mean == 2.0
    # of a short run a tenth, so that its beginning is not in it
    assert "loss 0.5 in step 4;" in report(
        make(tmp_path / "b.gradtui", [9.0, 8.0, 7.0, 0.5, None]), as_json=False, terminal=False
    )


@pytest.mark.parametrize("schema", [1, 4])
def test_rows_with_a_loss_alone_are_not_measured_ones(schema: int, tmp_path: Path) -> None:
    path = make(tmp_path / "a.gradtui", [1.0] * 40, every=4)
    with RunMetadata(path) as run:
        run.version = schema
        assert run.measured() == 10 and run.recorded() == 40
    assert json.loads(report(path, as_json=True, terminal=False))["recorded"] == 10
