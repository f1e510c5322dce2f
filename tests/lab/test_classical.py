"""The classical results on depth and time, each over seeds, with the tolerance that their spread asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gradtui.lab.costs import COSTS
from gradtui.lab.recipe import Recipe
from gradtui.lab.recurrent import Recurrent
from gradtui.lab.results import speed_ratio
from gradtui.lab.tensors import load
from gradtui.lab.train import Result, make_model, train
from gradtui.runfile import Rows, open_run
from gradtui.runfile.blocks import ThroughTime

SEEDS = range(5)
CHANCE = 0.2  # ten digits, 297 images: chance is 0.1 with a standard error of 0.017

TEN = Recipe(hidden=(30,) * 10, cost="softmax", momentum=0.9, batch_size=20, epochs=10)
EIGHT = Recipe(hidden=(64,) * 8, cost="softmax", momentum=0.9, batch_size=20, epochs=40, every=None)
ADDING = Recipe(
    data="adding", net="rnn", hidden=(64,), activation="tanh", init="uniform", cost="squared", optimizer="adam",
    clip_norm=1.0, batch_size=50, length=50, every=None,
)  # fmt: skip


def rows_of(result: Result, count: int = 100_000) -> Rows:
    assert result.path is not None
    with open_run(result.path) as reader:
        return reader.newer(0, count)


def speed_ratio_at_start(result: Result) -> float:
    found = speed_ratio(rows_of(result, 1).measures[:, :, 0])
    assert found is not None
    return found


@pytest.mark.parametrize("init", ["scaled", "lecun"])
def test_ten_sigmoid_layers_start_a_hundred_thousand_times_slower_in_front_and_stay_at_chance(
    init: str, runs_in_tmp: Path
) -> None:
    slower = []
    for seed in range(20):
        rows = rows_of(train(TEN.but(init=init, epochs=1, train_size=20, seed=seed), folder=runs_in_tmp))
        slower.append(rows.measures[0, -1, 0] / rows.measures[0, 0, 0])
    assert min(slower) > 1e5
    assert 5e5 < np.median(slower) < 2e7, "about two million"
    for seed in range(2):
        accuracy = train(TEN.but(init=init, seed=seed, learning_rate=0.1), folder=runs_in_tmp).accuracy
        assert accuracy is not None and accuracy < CHANCE


CURES = {
    "tanh": EIGHT.but(activation="tanh", init="xavier", learning_rate=0.01),
    "relu": EIGHT.but(activation="relu", init="he", learning_rate=0.01),
    "batch-norm": EIGHT.but(norm="batch", init="xavier", learning_rate=0.01),
    "residual": EIGHT.but(net="residual", activation="relu", init="he", norm="batch", learning_rate=0.01),
}


@pytest.mark.parametrize("cure", CURES)
def test_each_cure_levels_eight_layers_and_lets_them_learn(cure: str, runs_in_tmp: Path) -> None:
    for seed in range(2):
        result = train(CURES[cure].but(seed=seed), folder=runs_in_tmp)
        assert speed_ratio_at_start(result) < 100
        assert result.accuracy is not None and result.accuracy >= 0.95


@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0])
def test_without_a_cure_eight_sigmoid_layers_stay_at_chance_at_any_rate(rate: float, runs_in_tmp: Path) -> None:
    for seed in range(2):
        result = train(EIGHT.but(init="xavier", learning_rate=rate, seed=seed, epochs=15), folder=runs_in_tmp)
        assert speed_ratio_at_start(result) > 1e4
        assert result.accuracy is not None and result.accuracy < CHANCE


def backpropagated(recipe: Recipe) -> np.ndarray:
    """[hidden layers]: the standard deviation, over units and images, of the gradient by each layer's inputs z."""
    tensors = load(recipe)
    model = make_model(recipe, tensors, torch.Generator().manual_seed(recipe.seed))
    seen: list[torch.Tensor] = []
    for name, module in model.named_children():
        if name.startswith("fc"):
            module.register_forward_hook(lambda _, __, z: (z.retain_grad(), seen.append(z))[1])
    COSTS[recipe.cost](model(tensors.images[:300]), tensors.targets[:300]).backward()
    return np.array([float(z.grad.std()) for z in seen[:-1] if z.grad is not None])


@pytest.mark.parametrize(("init", "factor"), [("uniform", 3**-0.5), ("xavier-uniform", 1.0)])
def test_glorots_initialisation_keeps_gradients_level_where_the_old_one_lets_them_decay(
    init: str, factor: float
) -> None:
    # each layer multiplies the variance of the gradient by n·Var(W): 1/3 and 1 (Glorot & Bengio 2010, eq. 5 and 12);
    # the slope of tanh, a little under 1, takes something off
    factors = []
    for seed in SEEDS:
        recipe = Recipe(hidden=(300,) * 6, activation="tanh", init=init, cost="softmax", seed=seed)
        deviations = backpropagated(recipe)
        factors.append((deviations[0] / deviations[-1]) ** (1 / (len(deviations) - 1)))
    assert 0.85 * factor < np.mean(factors) < 1.05 * factor
    assert np.std(factors) < 0.05


@pytest.mark.parametrize("depth", [110, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_a_very_deep_residual_net_trains_while_its_plain_twin_does_not(depth: int, runs_in_tmp: Path) -> None:
    recipe = Recipe(
        net="residual", hidden=(32,) * depth, activation="relu", init="he", norm="batch", cost="softmax",
        momentum=0.9, learning_rate=0.01, batch_size=60, epochs=8, every=None,
    )  # fmt: skip
    deep, twin = (train(recipe.but(net=net), folder=runs_in_tmp) for net in ("residual", "plain"))
    assert deep.accuracy is not None and deep.accuracy > 0.85
    assert twin.detail.startswith("diverged") or (twin.accuracy is not None and twin.accuracy < CHANCE)


def through_time_at_start(recipe: Recipe) -> dict[str, np.ndarray]:
    tensors = load(recipe)
    model = make_model(recipe, tensors, torch.Generator().manual_seed(recipe.seed))
    assert isinstance(model, Recurrent)
    model.watched = True
    COSTS[recipe.cost](model(tensors.images[:50]), tensors.targets[:50]).backward()
    return {state: norms.numpy() for state, norms in model.through_time().items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_over_a_hundred_time_steps_an_rnn_forgets_and_an_open_gate_remembers(seed: int) -> None:
    far = ADDING.but(length=100, seed=seed, train_size=50)
    rnn = through_time_at_start(far)["h1"]
    assert rnn[0] < 1e-12 * rnn[-1] and rnn[-1] > 0
    for bias in (3.0, 5.0):
        carried = through_time_at_start(far.but(net="lstm", forget_bias=bias))["c1"]
        assert carried[0] > 1e-4 * carried[-1]
    shut = through_time_at_start(far.but(net="lstm"))
    assert shut["c1"][0] < 1e-12 * shut["c1"][-1], "with a forget gate that is half shut an LSTM forgets like an RNN"


def last_of(result: Result) -> tuple[float, ThroughTime]:
    """The validation cost at the end, and the gradient through time then."""
    assert result.path is not None
    with open_run(result.path) as reader:
        time = reader.through_time(2**62)
        assert time is not None
        return float(reader.scalars()[0]["val_cost"].value[-1]), time


# the rate of each is the best of a sweep, `gradtui compare memory --tune lr`
GATED = {
    "lstm": (ADDING.but(net="lstm", forget_bias=3.0, learning_rate=0.01), "c1"),
    "gru": (ADDING.but(net="gru", learning_rate=0.01), "h1"),
}


@pytest.mark.parametrize("net", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_gated_nets_solve_the_adding_problem_and_then_carry_a_level_gradient(net: str, runs_in_tmp: Path) -> None:
    recipe, state = GATED[net]
    cost, time = last_of(train(recipe.but(epochs=20), folder=runs_in_tmp))
    assert cost < 0.01, "always guessing 1 has 0.167"
    assert 0.1 < time.grad_norm[state][0] / time.grad_norm[state][-1] < 10


def test_an_rnn_does_not_solve_it_in_as_many_steps(runs_in_tmp: Path) -> None:
    cost, _ = last_of(train(ADDING.but(epochs=20, learning_rate=0.003), folder=runs_in_tmp))
    assert cost > 0.1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_over_a_hundred_time_steps_a_gru_solves_it_and_an_rnn_does_not(runs_in_tmp: Path) -> None:
    far = ADDING.but(length=100, epochs=40, learning_rate=0.01)
    cost, time = last_of(train(far.but(net="gru"), folder=runs_in_tmp))
    assert cost < 0.01 and 0.1 < time.grad_norm["h1"][0] / time.grad_norm["h1"][-1] < 10
    cost, _ = last_of(train(far, folder=runs_in_tmp))
    assert cost > 0.1


def test_a_clipped_rnn_survives_where_the_unclipped_one_ends_in_nan(runs_in_tmp: Path) -> None:
    unstable = ADDING.but(
        activation="relu", init="normal", sigma=0.18, optimizer="sgd", learning_rate=0.01, clip_norm=0.0, epochs=3
    )
    assert train(unstable, folder=runs_in_tmp).detail.startswith("diverged at step ")
    for clipped in (unstable.but(clip_norm=1.0), unstable.but(clip_value=0.1)):
        result = train(clipped, folder=runs_in_tmp)
        assert result.outcome == "finished" and result.loss is not None and result.loss < 1.0


def test_an_underflown_gradient_is_recorded_as_exactly_zero(runs_in_tmp: Path) -> None:
    # 0.58 to the 250th is below float32's smallest number
    result = train(ADDING.but(length=250, train_size=10, epochs=1), folder=runs_in_tmp)
    assert result.path is not None
    with open_run(result.path) as reader:
        time = reader.through_time(2**62)
    assert time is not None and time.grad_norm["h1"][0] == 0 and time.grad_norm["h1"][-1] > 0
