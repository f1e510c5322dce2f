"""Recipes drawn at random: each trains three steps, or is refused in one line before anything starts."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradtui.errors import UsageError
from gradtui.lab.layer_kinds import pretraining_kinds
from gradtui.lab.recipe import Recipe
from gradtui.lab.train import train
from gradtui.remedies import REMEDIES, choices


def sometimes(value: st.SearchStrategy[object], otherwise: object) -> st.SearchStrategy[object]:
    return st.just(otherwise) | st.just(otherwise) | value


FIELDS = {
    "data": st.sampled_from(["digits", "digits", "adding", "point"]),
    "batch_size": st.sampled_from([0, 1, 2, 3, 4]),
    "length": st.integers(2, 6),
    "input_scale": sometimes(st.sampled_from(list(choices("input_scale"))), "unit"),
    "net": st.sampled_from(list(choices("net"))),
    "hidden": st.lists(st.integers(1, 5), max_size=6).map(tuple) | st.just((4, 4, 4)),
    "activation": st.sampled_from(list(choices("activation"))),
    "slope": sometimes(st.floats(-0.5, 0.5), None),
    "init": st.sampled_from(list(choices("init"))),
    "sigma": sometimes(st.floats(0, 2), None),
    "norm": sometimes(st.sampled_from(list(choices("norm"))), "none"),
    "forget_bias": sometimes(st.floats(-1, 5), None),
    "rank": sometimes(st.integers(1, 4), 0),
    "dropout": sometimes(st.floats(0, 0.9), 0.0),
    "cost": st.sampled_from(list(choices("cost"))),
    "optimizer": st.sampled_from(list(choices("optimizer"))),
    "momentum": sometimes(st.floats(0, 0.99), 0.0),
    "schedule": st.sampled_from(list(choices("schedule"))),
    "warmup": sometimes(st.integers(0, 3), 0),
    "l1": sometimes(st.floats(0, 1), 0.0),
    "l2": sometimes(st.floats(0, 1), 0.0),
    "decay": sometimes(st.floats(0, 1), 0.0),
    "clip_norm": sometimes(st.floats(0, 2), 0.0),
    "clip_value": sometimes(st.floats(0, 2), 0.0),
    "agc": sometimes(st.floats(0, 1), 0.0),
    "max_norm": sometimes(st.floats(0, 3), 0.0),
    "weight_clip": sometimes(st.floats(0, 3), 0.0),
    "patience": sometimes(st.integers(1, 3), 0),
    "pretrain": sometimes(st.sampled_from(list(pretraining_kinds())), "none"),
    "dtype": st.sampled_from(["float32", "float64"]),
}


def trains_or_is_refused(facts: dict[str, object]) -> None:
    try:
        facts = {**facts, "pretrain_epochs": 1, "train_size": None if facts["data"] == "point" else 6}
        recipe = Recipe(**facts)  # type: ignore[arg-type]
        recipe = recipe.but(epochs=-(-3 // recipe.steps_an_epoch))
    except UsageError as error:
        assert "\n" not in str(error) and len(str(error)) < 250
        return
    with tempfile.TemporaryDirectory() as folder:
        result = train(recipe, folder=Path(folder))
        assert result.steps >= 3 or recipe.patience
        assert result.outcome == "finished" or result.detail.startswith("diverged"), result.detail
        assert result.test_accuracy is None or 0 <= result.test_accuracy <= 1 or math.isnan(result.test_accuracy)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.fixed_dictionaries(FIELDS).map(lambda facts: {**facts, "train_size": None if facts["data"] == "point" else 6})
)
def test_any_recipe_trains_three_steps_or_is_refused(facts: dict[str, object]) -> None:
    trains_or_is_refused(facts)


# most recipes above are refused for one clash or another; these start from a net that makes sense
SENSIBLE = [
    {"data": "digits", "net": "plain", "cost": "softmax", "hidden": (4, 4, 4), "init": "xavier", "activation": "relu"},
    {"data": "digits", "net": "residual", "cost": "softmax", "hidden": (4, 3, 4, 5), "init": "he", "activation": "elu"},
    {"data": "adding", "net": "lstm", "cost": "squared", "hidden": (3,), "init": "uniform", "activation": "tanh"},
    {"data": "digits", "net": "gru", "cost": "softmax", "hidden": (3, 4), "init": "orthogonal", "activation": "tanh"},
]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(SENSIBLE),
    st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
    ),
)
def test_a_sensible_recipe_with_anything_changed_trains_or_is_refused(
    base: dict[str, object], changes: dict[str, object]
) -> None:
    facts = {"batch_size": 3, **base, **changes}
    trains_or_is_refused(facts)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(sorted(REMEDIES)), min_size=1, max_size=3))
def test_any_remedies_together_train_or_are_refused(names: list[str]) -> None:
    base = Recipe(hidden=(4, 4, 4), train_size=6, batch_size=3, every=None)
    try:
        facts = base.with_remedies(*names).to_json()
    except UsageError as error:
        assert "\n" not in str(error)
        return
    trains_or_is_refused({**facts, "hidden": tuple(facts["hidden"])})
