"""Pretraining in the lab: it cures what depth alone keeps at chance, and every layer is seen while it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gradtui.errors import UsageError
from gradtui.lab.layer_kinds import pretraining_kinds
from gradtui.lab.plan import Cell
from gradtui.lab.recipe import Recipe
from gradtui.lab.results import result_of, speed_ratio
from gradtui.lab.train import train
from gradtui.runfile import is_measured, open_run
from pretrain.layers import register_layer, unregister_layer
from pretrain.rbm import RBM

TEN = Recipe(
    hidden=(30,) * 10, init="xavier", batch_size=20, epochs=40, every=None, momentum=0.9, cost="softmax",
    learning_rate=0.05,
)  # fmt: skip
SMALL = Recipe(hidden=(8, 6, 5), train_size=40, batch_size=20, epochs=2, pretrain_epochs=2, init="xavier")


@pytest.mark.parametrize("way", ["rbm", pytest.param("autoencoder", marks=pytest.mark.slow), "supervised"])
def test_ten_sigmoid_layers_that_stay_at_chance_learn_once_they_are_pretrained(way: str, runs_in_tmp: Path) -> None:
    result = train(TEN.but(pretrain=way), folder=runs_in_tmp)
    assert result.accuracy is not None and result.accuracy >= 0.93


def test_without_pretraining_they_do_stay_there(runs_in_tmp: Path) -> None:
    result = train(TEN, folder=runs_in_tmp)
    assert result.accuracy is not None and result.accuracy < 0.2


@pytest.mark.parametrize("way", ["rbm", "autoencoder", "denoising", "supervised"])
def test_each_layer_is_recorded_while_it_is_trained_alone(way: str, runs_in_tmp: Path) -> None:
    recipe = SMALL.but(pretrain=way)
    result = train(recipe, folder=runs_in_tmp)
    assert result.steps == recipe.total_steps == 3 * 2 * 2 + 2 * 2
    assert result.path is not None
    with open_run(result.path) as reader:
        rows, events, scalars = reader.newer(0), reader.events(), reader.scalars()[0]
    measured = is_measured(rows.measures[:, :, 0])
    for step in range(12):
        assert measured[step].nonzero()[0].tolist() == [step // 4], "four steps a layer, from the input up"
    assert measured[12:].all()
    assert [(event.kind, event.step) for event in events if event.kind in ("pretraining", "fine-tuning")] == [
        ("pretraining", 0), ("pretraining", 4), ("pretraining", 8), ("fine-tuning", 12),
    ]  # fmt: skip
    told = scalars["label_cost" if way == "supervised" else "reconstruction_error"]
    assert len(told.value) == 6 and np.isfinite(told.value).all()


def test_the_speed_ratio_at_the_start_is_that_of_the_whole_net(runs_in_tmp: Path) -> None:
    recipe = SMALL.but(pretrain="rbm")
    path = train(recipe, folder=runs_in_tmp).path
    assert path is not None
    with open_run(path) as reader:
        rows = reader.newer(0)
    assert result_of(Cell("a", recipe, path), None).speed_ratio_start == speed_ratio(rows.measures[12:13, :, 0])


def test_the_same_seed_gives_the_same_pretraining(runs_in_tmp: Path) -> None:
    blocks = []
    for seed in (1, 1, 2):
        path = train(SMALL.but(pretrain="rbm", seed=seed), folder=runs_in_tmp).path
        assert path is not None
        with open_run(path) as reader:
            blocks.append(reader.newer(0).measures[:, :, :3])
    np.testing.assert_array_equal(blocks[0], blocks[1])
    assert not np.array_equal(blocks[0], blocks[2], equal_nan=True)


def test_a_pretraining_stops_when_it_is_told_to(runs_in_tmp: Path) -> None:
    calls = iter(range(100))
    result = train(SMALL.but(pretrain="rbm"), folder=runs_in_tmp, should_stop=lambda: next(calls) >= 5)
    assert (result.outcome, result.steps, result.detail) == ("stopped", 6, "asked to stop at step 6 of 16")


def test_a_layer_that_somebody_registers_is_taken_by_its_name(runs_in_tmp: Path) -> None:
    made: list[int] = []

    @register_layer("counted", activations=("sigmoid",))
    class Counted(RBM):
        def fill_gradient(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            made.append(len(x))
            return super().fill_gradient(x, generator)

    try:
        assert "counted" in pretraining_kinds()
        result = train(SMALL.but(pretrain="counted"), folder=runs_in_tmp)
        with pytest.raises(UsageError, match="--pretrain counted takes --activation sigmoid, not relu"):
            SMALL.but(pretrain="counted", activation="relu")
    finally:
        unregister_layer("counted")
    assert result.outcome == "finished" and made == [20] * 12
    with pytest.raises(UsageError, match="counted"):
        SMALL.but(pretrain="counted")
