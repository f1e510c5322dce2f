"""Every choice is offered, taken and trained; what makes no sense is one line."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gradtui.errors import DataMissingError, UsageError
from gradtui.lab.background import check_data
from gradtui.lab.data_sets import DATA
from gradtui.lab.experiments import EXPERIMENTS
from gradtui.lab.field import parse_hidden
from gradtui.lab.flags import add_recipe_flags, recipe_from_flags
from gradtui.lab.recipe import Recipe
from gradtui.lab.train import train
from gradtui.remedies import choices
from gradtui.runfile import open_run


def parse(*words: str) -> Recipe:
    parser = argparse.ArgumentParser()
    add_recipe_flags(parser)
    return recipe_from_flags(parser.parse_args(words))


# what a choice does not make sense without
NEEDS = {
    "chain": ("--data", "point", "--hidden", "1,1"), "point": ("--hidden", "4,3"), "adding": (),
    "identity": ("--net", "rnn"), "squared": ("--data", "adding"), "rnn": (), "lstm": (), "gru": (),
}  # fmt: skip
CHOICES = [
    (field, value)
    for field, values in (
        ("data", DATA), *((field, choices(field)) for field in (
            "net", "activation", "init", "norm", "cost", "optimizer", "schedule", "input_scale")),
        ("dtype", ("float32", "float64")),
    )
    for value in values
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), CHOICES)
def test_every_choice_lands_in_the_recipe_and_trains(
    field: str, value: str, request: pytest.FixtureRequest, runs_in_tmp: Path
) -> None:
    words = (f"--{field.replace('_', '-')}", value, "--epochs", "1", *NEEDS.get(value, ("--hidden", "4,3")))
    if "point" not in words:
        words += ("--train-size", "20")
    recipe = parse(*words)
    assert getattr(recipe, field) == value
    if value == "mnist":
        request.getfixturevalue("mnist_folder")
    result = train(recipe, folder=runs_in_tmp)
    assert result.outcome == "finished" and result.path is not None
    with open_run(result.path) as reader:
        assert reader.header.recipe == json.loads(json.dumps(recipe.to_json()))
        assert sum(layer.parameters for layer in reader.layers()) == recipe.parameters


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_offered_as_it_stands(name: str) -> None:
    assert parse("--experiment", name) == EXPERIMENTS[name].recipe
    for label, recipe in EXPERIMENTS[name].recipes.items():
        assert parse("--experiment", f"{name}/{label}") == recipe
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    "text", ["30x0", "30x0,4", "4,30x0", "0", "0x3", "30,", ",", "-3", "1e3", "3.0", "9999x9999999"]
)
def test_hidden_layers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--hidden"):
        parse_hidden(text)


@pytest.mark.parametrize("text", ["none", "None", "", " "])
def test_no_hidden_layers_can_be_asked_for(text: str) -> None:
    assert parse_hidden(text) == ()


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@example({"epochs": 10**400})
@example({"batch_size": 10**400})
@example({"hidden": [10**400]})
@given(st.dictionaries(st.sampled_from(sorted(Recipe.__dataclass_fields__)), anything, min_size=1, max_size=3))
def test_any_json_is_a_recipe_or_a_usage_error(facts: dict[str, object]) -> None:
    try:
        recipe = Recipe.from_json(facts)
    except UsageError:
        return
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert isinstance(recipe.summary, str) and recipe.parameters > 0


@pytest.mark.parametrize("folder", ["~nobody-of-this-name/mnist", "a" * 300, "/dev/null", "."])
def test_a_folder_that_cannot_hold_mnist_is_one_line(folder: str) -> None:
    with pytest.raises(DataMissingError, match="MNIST") as caught:
        check_data(EXPERIMENTS["mnist"].recipe.but(data_dir=folder))
    assert "\n" not in str(caught.value) and folder in str(caught.value)


def run_headless(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gradtui", "train", "--headless", *words], capture_output=True, text=True, timeout=60
    )


def test_damaged_data_are_one_line_and_an_exit_code(tmp_path: Path) -> None:
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(b"\x1f\x8b\x08\0 no gzip")
    done = run_headless("--data", "mnist", "--data-dir", str(tmp_path))
    (line,) = done.stderr.splitlines()
    assert done.returncode == 4
    assert line.startswith("gradtui: ") and str(tmp_path) in line


def test_sigterm_ends_the_process_that_a_viewer_starts_with_a_stopped_run(tmp_path: Path) -> None:
    path, recipe = tmp_path / "run.gradtui", json.dumps(Recipe(epochs=100_000).to_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "gradtui.lab.train", "--file", str(path), "--recipe", recipe],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 40
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert out.startswith("stopped after ")
    with open_run(path) as reader:
        assert reader.status().state == "stopped"


@pytest.mark.parametrize("words", [["--recipe", "{}"], ["--file", "x", "--recipe", '{"depth": 3}']])
def test_the_training_process_refuses_what_it_does_not_know(words: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "gradtui.lab.train", *words], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert not list(folder.iterdir())
