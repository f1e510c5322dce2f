"""Flags and recipes: everything that makes sense is taken, everything else is one clear line."""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradtui.errors import UsageError
from gradtui.lab.data_sets import DATA
from gradtui.lab.experiments import EXPERIMENTS
from gradtui.lab.field import Field, parse_hidden
from gradtui.lab.flags import add_recipe_flags, recipe_from_flags
from gradtui.lab.recipe import FIELDS, Recipe
from gradtui.remedies import choices


def parse(*words: str) -> Recipe:
    parser = argparse.ArgumentParser()
    add_recipe_flags(parser)
    return recipe_from_flags(parser.parse_args(words))


@given(st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 20)), min_size=1, max_size=12))
def test_hidden_layers_by_commas_and_by_times(groups: list[tuple[int, int]]) -> None:
    expected = tuple(units for units, times in groups for _ in range(times))
    assert parse_hidden(",".join(f"{units}x{times}" for units, times in groups)) == expected
    assert parse_hidden(" , ".join(map(str, expected))) == expected


@given(st.text(st.characters(codec="utf-8"), max_size=12) | st.text("0123456789x,×* -", max_size=12))
def test_any_other_text_is_a_usage_error(text: str) -> None:
    try:
        units = parse_hidden(text)
    except UsageError as error:
        assert str(error).startswith("--hidden") and "\n" not in str(error).replace(repr(text), "")
    else:
        assert all(unit >= 1 for unit in units)


def test_every_flag_lands_in_the_recipe() -> None:
    recipe = parse(
        *[
            "--data",
            "mnist",
            "--data-dir",
            "/x",
            "--train-size",
            "1,000",
            "--hidden",
            "30x3",
            "--activation",
            "tanh",
            "--init",
            "xavier",
            "--cost",
            "softmax",
            "--learning-rate",
            "0.3",
            "--momentum",
            "0.5",
            "--l2",
            "2",
            "--batch-size",
            "20",
            "--epochs",
            "7",
            "--seed",
            "9",
            "--every",
            "2",
            "--dtype",
            "float64",
            "--threads",
            "2",
            "--point",
            "0.1",
            "--budget",
            "0.02",
            "--name",
            "x",
        ]
    )
    assert recipe == Recipe(
        data="mnist", data_dir="/x", train_size=1000, hidden=(30, 30, 30), activation="tanh", init="xavier",
        cost="softmax", learning_rate=0.3, momentum=0.5, l2=2.0, batch_size=20, epochs=7, seed=9, every=2,
        dtype="float64", threads=2, point=0.1, budget=0.02, name="x",
    )  # fmt: skip


NUMBERS = [field for field in FIELDS.values() if math.isfinite(field.least)]


def test_every_field_of_a_recipe_has_a_flag_and_says_what_it_is() -> None:
    parser = argparse.ArgumentParser()
    add_recipe_flags(parser)
    flags = {flag: action for action in parser._actions for flag in action.option_strings}
    for name, field in FIELDS.items():
        assert field.name == name and len(flags[field.flag].help or "") > 0
        assert field.default is None or name == "hidden" or "(default: " in field.flag_help
    assert flags["--lr"] is flags["--learning-rate"]
    assert {"clip_norm", "dropout", "momentum", "seed"} <= {field.name for field in NUMBERS} and len(NUMBERS) > 25


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_limits_hold_for_flags_json_and_the_form_alike(field: Field) -> None:
    below = field.least - 1
    says = f"{field.flag} {below:g}: give "
    text = str(int(below)) if "int" in field.kinds else str(below)
    with pytest.raises(UsageError, match=re.escape(says)):
        Recipe.from_json({field.name: int(below) if "int" in field.kinds else below})
    with pytest.raises(UsageError, match=re.escape(says)):
        Recipe().adapted({field.name: field.parse(text)})
    if math.isfinite(field.most):
        with pytest.raises(UsageError, match=re.escape(f"to {field.most:g}")):
            Recipe(**{field.name: field.parse(str(int(field.most) + 1))})


def test_flags_change_an_experiment_and_leave_the_rest() -> None:
    book = EXPERIMENTS["nielsen"].recipe
    recipe = parse("--experiment", "nielsen", "--hidden", "30,30,30,30")
    assert recipe == book.but(hidden=(30, 30, 30, 30), name="nielsen-4")
    assert (recipe.train_size, recipe.learning_rate, recipe.l2, recipe.batch_size, recipe.epochs) == (
        1000,
        0.1,
        5.0,
        0,
        500,
    )


def test_another_activation_takes_its_own_rate() -> None:
    assert parse("--activation", "relu").rate != parse("--activation", "sigmoid").rate
    assert parse("--activation", "relu", "--learning-rate", "0.5").rate == 0.5


@given(
    st.builds(
        Recipe,
        hidden=st.lists(st.integers(1, 50), max_size=5).map(tuple),
        activation=st.sampled_from(sorted(choices("activation"))),
        init=st.sampled_from(sorted(set(choices("init")) - {"chain", "identity"})),
        cost=st.sampled_from(sorted(set(choices("cost")) - {"squared"})),
        learning_rate=st.none() | st.floats(0, 10),
        seed=st.integers(0, 2**40),
    )
)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_recipe_with_unknown_keys_is_refused() -> None:
    with pytest.raises(UsageError, match="'depth'"):
        Recipe.from_json({"depth": 3})


@pytest.mark.parametrize(
    "facts",
    [
        {"epochs": 2.5}, {"epochs": "3"}, {"epochs": None}, {"seed": True}, {"hidden": [30.0]}, {"hidden": "30"},
        {"hidden": 30}, {"name": 5}, {"data": ["digits"]}, {"learning_rate": "0.1"}, {"l2": float("nan")},
    ],
)  # fmt: skip
def test_a_recipe_with_values_of_the_wrong_kind_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.from_json(facts)
    assert "\n" not in str(caught.value)


def test_sizes_that_the_recipe_knows_are_those_of_the_data() -> None:
    from gradtui.lab.background import MNIST_NAMES
    from pretrain.data import DIGITS_TRAINING, MNIST_FILES, MNIST_TRAINING

    assert (DATA["digits"].images, DATA["mnist"].images) == (DIGITS_TRAINING, MNIST_TRAINING)
    assert set(MNIST_NAMES) == {name for part in MNIST_FILES.values() for name in part}


def test_parameters_are_counted_as_torch_counts_them() -> None:
    import torch

    from gradtui.lab.models import build

    recipe = Recipe(hidden=(7, 5))
    model = build(recipe, torch.Generator())
    assert recipe.parameters == sum(p.numel() for p in model.parameters()) == 65 * 7 + 8 * 5 + 6 * 10


@pytest.mark.parametrize(
    ("init", "weight", "bias"),
    [("normal", 1.0, 1.0), ("scaled", 1 / 20, 1.0), ("xavier", (2 / 700) ** 0.5, 0.0), ("he", (2 / 400) ** 0.5, 0.0)],
)
def test_initialisations_have_the_deviations_of_their_papers(init: str, weight: float, bias: float) -> None:
    import torch

    from gradtui.lab.models import build

    model = build(Recipe(hidden=(400, 300), init=init), torch.Generator().manual_seed(0))
    layer = model.fc2
    assert float(layer.weight.detach().std()) == pytest.approx(weight, rel=0.02)  # type: ignore[union-attr, operator]
    assert abs(float(layer.bias.detach().std()) - bias) < 0.15  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("--hidden 30,x", 2, "--hidden '30,x'"),
        ("--hidden 30,0", 2, "at least one unit"),
        ("--learning-rate nan", 2, "--learning-rate nan"),
        ("--learning-rate=-1", 2, "--learning-rate -1"),
        ("--epochs 0", 2, "--epochs 0"),
        ("--epochs many", 2, "--epochs"),
        ("--train-size 5000", 2, "digits has 1,200 training images"),
        ("--hidden 500000x2", 2, "weights and biases"),
        ("--epochs 1 --dir /dev/null/runs", 1, "/dev/null/runs"),
        ("--experiment nonsense", 2, "nonsense"),
        ("--init chain", 2, "--data point"),
        ("--data point --cost softmax", 2, "--cost softmax"),
        ("--data mnist --data-dir /nowhere", 4, "/nowhere"),
        ("--detach", 2, "--headless"),
        ("--frobnicate", 2, "--frobnicate"),
    ],
)
def test_bad_flags_are_one_line_and_an_exit_code(words: str, code: int, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gradtui", "train", "--headless", *words.split()], capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("gradtui") and says in line
