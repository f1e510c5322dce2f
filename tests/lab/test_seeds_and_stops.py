"""What a training depends on, how it tells where it is, and how it is stopped from within its own process."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gradtui.lab.models import build
from gradtui.lab.recipe import Recipe
from gradtui.lab.train import Progress, train
from gradtui.runfile import open_run

SHORT = Recipe(train_size=200, epochs=3)


def test_a_seed_decides_the_weights_whatever_was_drawn_before() -> None:
    nets = []
    for seed in (3, 3, 4):
        torch.rand(7)  # the global generator moves on, and must not matter
        nets.append(build(SHORT, torch.Generator().manual_seed(seed)).state_dict())
    first, same, other = nets
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert all((first[name] != other[name]).all() for name in first)


def test_a_seed_decides_every_recorded_loss(runs_in_tmp: Path) -> None:
    losses = []
    for seed in (1, 1, 2):
        result = train(SHORT.but(seed=seed), folder=runs_in_tmp)
        assert result.path is not None
        with open_run(result.path) as reader:
            losses.append(reader.newer(0).loss)
    assert len(losses[0]) == 60 and np.isfinite(losses[0]).all()
    np.testing.assert_array_equal(losses[0], losses[1])
    assert (losses[0] != losses[2]).all()


def test_training_leaves_the_global_generator_alone(runs_in_tmp: Path) -> None:
    before = torch.random.get_rng_state()
    train(SHORT, folder=runs_in_tmp)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_training_stops_when_it_is_told_to_and_says_where(runs_in_tmp: Path) -> None:
    calls = iter(range(1000))
    result = train(SHORT.but(epochs=1000), folder=runs_in_tmp, should_stop=lambda: next(calls) >= 7)
    assert (result.outcome, result.steps) == ("stopped", 7)
    assert result.detail == "asked to stop at step 7 of 20,000"
    assert result.path is not None
    with open_run(result.path) as reader:
        assert (reader.status().state, reader.status().detail) == ("stopped", result.detail)
        assert reader.newer(0).step.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_progress_counts_up_to_the_last_step(runs_in_tmp: Path) -> None:
    told: list[Progress] = []
    result = train(SHORT, folder=runs_in_tmp, on_progress=told.append)
    assert [progress.step for progress in told] == sorted(progress.step for progress in told)
    assert (told[-1].step, told[-1].total_steps, told[-1].epoch, result.steps) == (60, 60, 3, 60)
    assert (told[-1].loss, told[-1].accuracy) == (result.loss, result.accuracy)
    assert result.test_accuracy is not None and 0 <= result.test_accuracy <= 1


@pytest.mark.parametrize(
    ("recipe", "threads"),
    [
        (Recipe(epochs=1, train_size=100), 1),
        (Recipe(epochs=1, train_size=64, batch_size=0, hidden=(1500,) * 2), 1),
        (Recipe(epochs=1, train_size=100, threads=2), 2),
    ],
)
def test_a_training_takes_one_thread_unless_told_otherwise(recipe: Recipe, threads: int, runs_in_tmp: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        train(recipe, folder=runs_in_tmp)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


# tanh's slope is 0 once it is saturated: what blows up there is the decay of the weights, with |1 − ηλ/n| > 1
@pytest.mark.parametrize(
    "wild",
    [
        Recipe(activation="relu", init="he", learning_rate=1e30, epochs=5),
        Recipe(activation="tanh", init="xavier", cost="softmax", learning_rate=1e6, l2=10.0, epochs=5),
    ],
    ids=["relu", "tanh"],
)
def test_an_absurd_rate_is_a_result_and_no_error(wild: Recipe, runs_in_tmp: Path) -> None:
    result = train(wild, folder=runs_in_tmp)
    assert result.outcome == "stopped"
    found = re.match(r"diverged at step ([0-9]+) in (fc[0-9]|the cost): the loss is not finite", result.detail)
    assert found, result.detail
    assert result.path is not None
    with open_run(result.path) as reader:
        assert (reader.status().state, reader.status().detail) == ("stopped", result.detail)
        since = int(found[1])
        rows = reader.newer(0)
        assert rows.step[np.flatnonzero(~np.isfinite(rows.loss))[0]] == since
        assert result.steps == since + 50, "the run shows a little of what came after"
