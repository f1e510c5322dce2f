"""One set of recording options, wherever it is given."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtui
from gradtui.errors import UsageError
from gradtui.lab.recipe import Recipe
from gradtui.options import RecordKeywords, RecordOptions, add_record_flags, flag_of, options_from_flags, record_options
from gradtui.run_request import RunRequest

NO_FLAG = {"folder", "on_finding", "measures"}  # `--dir`, and what only Python has
GIVEN: dict[str, Any] = {"every": 3, "budget": 0.02, "update_every": 6, "layers": ("*", "!1"), "name": "mine"}
CHANGED = {"dead": 0.9}
FLAGS = ("--every", "3", "--budget", "0.02", "--update-every", "6", "--layers", "*", "--layers", "!1", "--name", "mine",
         "--threshold", "dead=0.9")  # fmt: skip
SCRIPT = """
import torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1), torch.nn.Linear(1, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(12):
    optimizer.zero_grad()
    net(torch.randn(16, 4)).square().mean().backward()
    optimizer.step()
"""

options_strategy = st.builds(
    RecordOptions,
    every=st.none() | st.integers(1, 10**9),
    budget=st.floats(0, 1, exclude_min=True),
    update_every=st.none() | st.integers(1, 10**9),
    layers=st.text() | st.lists(st.text()),
    name=st.none() | st.text(),
    folder=st.none() | st.text(),
    thresholds=st.dictionaries(st.sampled_from(["dead", "saturated", "vanishing"]), st.floats(allow_nan=False)),
)


@settings(deadline=None)
@given(options_strategy)
def test_json_gives_the_same_options_back(options: RecordOptions) -> None:
    text = json.dumps(options.to_json(), allow_nan=False)
    assert RecordOptions.from_json(json.loads(text)) == options


def test_keywords_are_the_fields() -> None:
    types = {name: kind.__forward_arg__ for name, kind in RecordKeywords.__annotations__.items()}
    assert types == RecordOptions.__annotations__
    assert {*RecordOptions().to_json()} == {*types} - {"on_finding"}


def test_each_option_has_a_flag_but_those_of_python() -> None:
    parser = argparse.ArgumentParser()
    add_record_flags(parser)
    assert {action.dest for action in parser._actions} - {"help"} == {*RecordKeywords.__annotations__} - NO_FLAG
    assert all(flag_of(one) in parser.format_help() for one in fields(RecordOptions) if one.name not in NO_FLAG)
    found = options_from_flags(parser.parse_args(FLAGS), Path("runs"))
    assert found == RecordOptions(**GIVEN, thresholds=CHANGED, folder=Path("runs"))
    assert options_from_flags(parser.parse_args([]), Path("runs")) == RecordOptions(folder=Path("runs"))


@pytest.mark.parametrize(
    "words", [("--every", "0"), ("--update-every", "-1"), ("--budget", "2"), ("--threshold", "ded=1"),
              ("--threshold", "dead=nan"), ("--threshold", "dead")]
)  # fmt: skip
def test_an_error_names_the_flag(words: tuple[str, str]) -> None:
    parser = argparse.ArgumentParser()
    add_record_flags(parser)
    with pytest.raises(UsageError, match=f"^{words[0]}"):
        options_from_flags(parser.parse_args(words), Path("runs"))


def test_changes_win_over_options() -> None:
    options = RecordOptions(every=2, name="a")
    assert record_options(options, {"name": "b"}) == RecordOptions(every=2, name="b")
    assert record_options(None, {}) == RecordOptions()
    with pytest.raises(TypeError, match="evry"):
        record_options(options, {"evry": 1})


def test_thresholds_are_taken_as_an_object_too() -> None:
    from gradtui import Thresholds

    assert RecordOptions(thresholds=Thresholds(dead=0.9)).thresholds == CHANGED
    assert RecordOptions(thresholds=Thresholds()) == RecordOptions()


def stored(folder: Path) -> tuple[dict[str, Any], float, list[str]]:
    (run,) = gradtui.runs(folder)
    with gradtui.open_run(run.path) as reader:
        header = reader.header
        return header.options, header.thresholds["dead"], [layer.name for layer in reader.layers()]


def fit_with(options: RecordOptions, record: Any) -> None:
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1), torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    recorder = record(net, optimizer, options)
    for _ in range(12):
        optimizer.zero_grad()
        net(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
    recorder.close()


def record_as_callbacks_do(net: Any, optimizer: Any, options: RecordOptions) -> Any:
    from gradtui.callbacks.base import RecordsFits

    callback = RecordsFits(options)
    callback._recording.begin(net, [optimizer])
    return callback.recorder


@pytest.mark.parametrize("record", [gradtui.watch, record_as_callbacks_do], ids=["watch", "callback"])
def test_options_are_stored_in_the_run(record: Any, tmp_path: Path) -> None:
    options = RecordOptions(**GIVEN, thresholds=CHANGED, folder=tmp_path)
    fit_with(options, record)
    assert stored(tmp_path) == (options.to_json(), 0.9, ["0", "2"])


def test_gradtui_run_stores_the_same(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    words = [sys.executable, "-m", "gradtui", "run", "--dir", str(tmp_path), *FLAGS, sys.executable, "train.py"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    options = RecordOptions(**GIVEN, thresholds=CHANGED, folder=tmp_path)
    found, dead, layers = stored(tmp_path)
    assert (found, dead) == (options.to_json(), 0.9) and len(layers) == 2


def test_the_lab_stores_the_same(tmp_path: Path) -> None:
    from gradtui.lab.train import train

    recipe = Recipe(data="point", epochs=4, every=3, budget=0.02)
    train(recipe, folder=tmp_path)
    (run,) = gradtui.runs(tmp_path)
    options = RecordOptions(every=3, budget=0.02, name=recipe.title, folder=tmp_path)
    assert gradtui.open_run(run.path).header.options == options.to_json()


@pytest.mark.parametrize("framework", ["lightning", "transformers", "accelerate", "skorch"])
def test_each_callback_takes_the_same(framework: str) -> None:
    from gradtui import callbacks

    pytest.importorskip(framework)
    module = getattr(callbacks, framework)
    kind = getattr(module, "GradtuiCallback", None) or module.GradtuiTracker
    options = RecordOptions(**GIVEN, thresholds=CHANGED)
    for callback in (kind(options), kind(**GIVEN, thresholds=CHANGED), kind(RecordOptions(every=3), **GIVEN,
                                                                           thresholds=CHANGED)):  # fmt: skip
        assert callback._recording._options == options


def test_a_command_gets_the_options_and_its_run_by_the_environment(tmp_path: Path) -> None:
    options = RecordOptions(**GIVEN, thresholds=CHANGED, folder=str(tmp_path))
    for run_list in (None, tmp_path / "list"):
        request = RunRequest(tmp_path / "a.gradtui", options, run_list)
        assert RunRequest.given(request.environment()) == request
    assert RunRequest.given({}) is None


def test_thresholds_of_a_run_decide_what_its_report_says(tmp_path: Path) -> None:
    import torch

    def report_of(name: str, **changes: float) -> list[str]:
        torch.manual_seed(0)
        net = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        options = RecordOptions(every=1, update_every=1, name=name, folder=tmp_path, thresholds=changes)
        with gradtui.watch(net, optimizer, options) as recorder:
            for _ in range(60):
                optimizer.zero_grad()
                net(torch.ones(4, 4)).square().mean().backward()
                optimizer.step()
        words = [sys.executable, "-m", "gradtui", "report", "--json", str(recorder.path)]
        facts = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        return [finding["kind"] for finding in facts["findings"]]

    assert "update-too-large" not in report_of("usual")
    assert "update-too-large" in report_of("strict", too_large=0.0, progress=1.1)


def test_a_threshold_that_the_command_does_not_know_stops_no_training(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT + "print('trained')")
    options = RecordOptions(folder=tmp_path)
    asked = json.loads(RunRequest(tmp_path / "a.gradtui", options).environment()["GRADTUI_RUN"])
    asked["options"]["thresholds"] = {"of_another_package": 1.0}
    from gradtui.recorded_command import STARTUP

    env = {**os.environ, "GRADTUI_RUN": json.dumps(asked), "PYTHONPATH": str(STARTUP)}
    words = [sys.executable, str(tmp_path / "train.py")]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    assert "of_another_package" in done.stderr and len(done.stderr.splitlines()) == 1
