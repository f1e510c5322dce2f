"""Clipping, penalties, decay, bounds, optimizers and schedules against their formulas, in NumPy and float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from gradtui.lab.descent import Descent, rate_factor
from gradtui.lab.models import build
from gradtui.lab.recipe import Recipe
from gradtui.lab.recurrent import build_recurrent

Array = np.ndarray
IMAGES = 1_000
RATE = 0.05
NET = Recipe(hidden=(6, 5), dtype="float64", init="xavier", learning_rate=RATE, activation="tanh")


def made(recipe: Recipe, steep: float = 1.0) -> tuple[nn.Module, Descent]:
    """A net with gradients of its own, `steep` times N(0, 1), and its descent."""
    model = build(recipe, torch.Generator().manual_seed(0))
    descent = Descent(recipe, model, IMAGES, 100)
    fill(model, 1, steep)
    return model, descent


def fill(model: nn.Module, seed: int, steep: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.grad = (steep * noise).to(parameter.dtype)


def values(model: nn.Module) -> dict[str, Array]:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def grads(model: nn.Module) -> dict[str, Array]:
    return {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}


def steps_of(recipe: Recipe, steep: float = 1.0) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Parameters before a step, their gradients, and the parameters after it."""
    model, descent = made(recipe, steep)
    before, gradients = values(model), grads(model)
    descent.step()
    return before, gradients, values(model)


def taken(before: dict[str, Array], after: dict[str, Array]) -> dict[str, Array]:
    """The gradient that plain SGD must have seen."""
    return {name: (before[name] - after[name]) / RATE for name in before}


def length(parts: dict[str, Array]) -> float:
    return math.sqrt(sum(float((part**2).sum()) for part in parts.values()))


@pytest.mark.parametrize("steep", [0.001, 1.0, 1e6])
def test_clipping_by_norm_keeps_the_direction_and_bounds_the_length(steep: float) -> None:
    before, gradients, after = steps_of(NET.but(clip_norm=2.0), steep)
    seen = taken(before, after)
    scale = min(1.0, 2.0 / length(gradients))
    assert length(seen) == pytest.approx(min(2.0, length(gradients)), rel=1e-5)
    for name in seen:
        np.testing.assert_allclose(seen[name], scale * gradients[name], rtol=1e-4, atol=1e-9)


def test_clipping_by_value_bounds_each_component() -> None:
    before, gradients, after = steps_of(NET.but(clip_value=0.7))
    for name, seen in taken(before, after).items():
        np.testing.assert_allclose(seen, np.clip(gradients[name], -0.7, 0.7), rtol=1e-9, atol=1e-12)


def test_agc_bounds_each_units_gradient_by_its_weights_and_spares_the_output_layer() -> None:
    before, gradients, after = steps_of(NET.but(agc=0.1))
    for name, seen in taken(before, after).items():
        gradient, weight = gradients[name], before[name]
        if not name.startswith("fc3"):  # Brock et al. 2021, eq. 3, with ‖W‖* = max(‖W‖, 0.001)
            axis = 1 if weight.ndim > 1 else None
            steep = np.sqrt((gradient**2).sum(axis=axis, keepdims=True))
            allowed = 0.1 * np.maximum(np.sqrt((weight**2).sum(axis=axis, keepdims=True)), 1e-3)
            gradient = gradient * np.where(steep > allowed, allowed / steep, 1.0)
        np.testing.assert_allclose(seen, gradient, rtol=1e-7, atol=1e-12)


def test_agc_takes_a_gradient_of_zero() -> None:
    model, descent = made(NET.but(agc=0.1), steep=0.0)
    before = values(model)
    descent.step()
    for name, after in values(model).items():
        np.testing.assert_array_equal(after, before[name])


def test_l1_adds_the_sign_of_the_weights_and_l2_the_weights_both_over_n_and_not_to_biases() -> None:
    for changes, extra in (
        ({"l1": 3.0}, lambda w: 3.0 / IMAGES * np.sign(w)),
        ({"l2": 5.0}, lambda w: 5.0 / IMAGES * w),
    ):
        before, gradients, after = steps_of(NET.but(**changes))
        for name, seen in taken(before, after).items():
            wanted = gradients[name] + (extra(before[name]) if name.endswith("weight") else 0.0)
            np.testing.assert_allclose(seen, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw"])
def test_decoupled_decay_shrinks_weights_by_the_rate_whatever_the_optimizer_does(optimizer: str) -> None:
    base = NET.but(optimizer=optimizer)
    start, _, plain = steps_of(base)
    _, _, decayed = steps_of(base.but(decay=0.3))
    for name in plain:
        shrunk = RATE * 0.3 * start[name] if name.endswith("weight") else 0.0
        np.testing.assert_allclose(decayed[name], plain[name] - shrunk, rtol=1e-9, atol=1e-12)


def test_coupled_and_decoupled_decay_differ_under_adam() -> None:
    _, _, coupled = steps_of(NET.but(optimizer="adam", l2=0.3 * IMAGES))
    _, _, decoupled = steps_of(NET.but(optimizer="adam", decay=0.3))
    assert np.abs(coupled["fc1.weight"] - decoupled["fc1.weight"]).max() > 1e-3


def test_max_norm_bounds_the_incoming_weights_of_each_unit_and_leaves_shorter_ones() -> None:
    _, _, free = steps_of(NET)
    _, _, bound = steps_of(NET.but(max_norm=0.9))
    some = 0
    for name in bound:
        if not name.endswith("weight"):
            np.testing.assert_array_equal(bound[name], free[name])
            continue
        rows = np.linalg.norm(free[name], axis=1, keepdims=True)
        np.testing.assert_allclose(bound[name], free[name] * np.minimum(1, 0.9 / rows), rtol=1e-6)
        assert (np.linalg.norm(bound[name], axis=1) <= 0.9).all()
        some += int((rows < 0.9).sum())
    assert some, "some rows were short enough"


def test_max_norm_of_a_low_rank_layer_bounds_the_rows_of_the_product() -> None:
    model, descent = made(NET.but(hidden=(20, 20), rank=3, max_norm=0.5))
    descent.step()
    for layer in (model.fc1, model.fc2):
        product = (layer.wide_weight @ layer.narrow_weight).detach().numpy()  # type: ignore[union-attr, operator]
        assert np.linalg.norm(product, axis=1).max() == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize("recurrent", [False, True])
def test_weight_clipping_bounds_every_weight_and_no_bias(recurrent: bool) -> None:
    recipe = NET.but(weight_clip=0.05)
    if recurrent:
        recipe = recipe.but(net="gru", weight_clip=0.05)
        model: nn.Module = build_recurrent(recipe, torch.Generator().manual_seed(0))
        descent = Descent(recipe, model, IMAGES, 100)
        fill(model, 1)
    else:
        model, descent = made(recipe)
    descent.step()
    for name, value in values(model).items():
        if value.ndim > 1:
            assert np.abs(value).max() == 0.05
        else:
            assert np.abs(value).max() > 0.05, name


# -- optimizers -----------------------------------------------------------------------------------------------------


def sgd(theta: Array, gradients: list[Array], momentum: float = 0.0, nesterov: bool = False) -> Array:
    velocity = np.zeros_like(theta)
    for g in gradients:
        velocity = momentum * velocity + g
        theta = theta - RATE * (g + momentum * velocity if nesterov else velocity)
    return theta


def adagrad(theta: Array, gradients: list[Array]) -> Array:
    total = np.zeros_like(theta)
    for g in gradients:  # Duchi et al. 2011
        total = total + g**2
        theta = theta - RATE * g / (np.sqrt(total) + 1e-10)
    return theta


def adadelta(theta: Array, gradients: list[Array]) -> Array:
    squares, steps = np.zeros_like(theta), np.zeros_like(theta)
    for g in gradients:  # Zeiler 2012, algorithm 1, ρ = 0.9, ε = 1e-6
        squares = 0.9 * squares + 0.1 * g**2
        step = np.sqrt(steps + 1e-6) / np.sqrt(squares + 1e-6) * g
        steps = 0.9 * steps + 0.1 * step**2
        theta = theta - RATE * step
    return theta


def rmsprop(theta: Array, gradients: list[Array]) -> Array:
    squares = np.zeros_like(theta)
    for g in gradients:  # Tieleman & Hinton 2012; torch's share of the past is 0.99
        squares = 0.99 * squares + 0.01 * g**2
        theta = theta - RATE * g / (np.sqrt(squares) + 1e-8)
    return theta


def adam(theta: Array, gradients: list[Array]) -> Array:
    mean, squares = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(gradients, 1):  # Kingma & Ba 2015, algorithm 1
        mean, squares = 0.9 * mean + 0.1 * g, 0.999 * squares + 0.001 * g**2
        theta = theta - RATE * (mean / (1 - 0.9**t)) / (np.sqrt(squares / (1 - 0.999**t)) + 1e-8)
    return theta


OPTIMIZERS: dict[str, tuple[dict[str, object], Callable[[Array, list[Array]], Array]]] = {
    "sgd": ({}, sgd),
    "momentum": ({"momentum": 0.9}, lambda theta, g: sgd(theta, g, 0.9)),
    "nesterov": ({"optimizer": "nesterov", "momentum": 0.9}, lambda theta, g: sgd(theta, g, 0.9, True)),
    "adagrad": ({"optimizer": "adagrad"}, adagrad),
    "adadelta": ({"optimizer": "adadelta"}, adadelta),
    "rmsprop": ({"optimizer": "rmsprop"}, rmsprop),
    "adam": ({"optimizer": "adam"}, adam),
    "adamw": ({"optimizer": "adamw"}, adam),  # without decay they are the same
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps_of_each_optimizer_are_those_of_its_paper(name: str) -> None:
    changes, formula = OPTIMIZERS[name]
    model, descent = made(NET.but(**changes))
    start, history = values(model), []
    for seed in (1, 2, 3):
        fill(model, seed)
        history.append(grads(model))
        descent.step()
    for key, after in values(model).items():
        np.testing.assert_allclose(after, formula(start[key], [g[key] for g in history]), rtol=1e-6, atol=1e-9)


# -- schedules ------------------------------------------------------------------------------------------------------


def test_a_warm_up_grows_in_a_line_and_the_schedule_starts_after_it() -> None:
    factors = [rate_factor("constant", 4, step, 10) for step in range(10)]
    assert factors == [0.25, 0.5, 0.75, 1.0] + [1.0] * 6
    assert rate_factor("linear", 4, 4, 10) == 1.0 and rate_factor("linear", 4, 7, 10) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("schedule", "quarter", "half", "end"),
    [
        ("constant", 1.0, 1.0, 1.0),
        ("step", 1.0, 0.1, 0.01),
        ("exponential", 0.01**0.25, 0.1, 0.01),
        ("linear", 0.75, 0.5, 0.0),
        ("cosine", (1 + math.sqrt(0.5)) / 2, 0.5, 0.0),
    ],
)
def test_each_schedule_has_the_values_of_its_formula(schedule: str, quarter: float, half: float, end: float) -> None:
    found = [rate_factor(schedule, 0, step, 1000) for step in (0, 250, 500, 1000)]
    assert found == pytest.approx([1.0, quarter, half, end], abs=1e-12)


def test_the_optimizer_takes_the_scheduled_rate_at_each_step() -> None:
    recipe = NET.but(schedule="cosine", warmup=3)
    _, descent = made(recipe)
    rates = []
    for _ in range(100):
        rates.append(descent.optimizer.param_groups[0]["lr"])
        descent.step()
    assert rates == pytest.approx([RATE * rate_factor("cosine", 3, step, 100) for step in range(100)])
    assert [group["lr"] for group in descent.optimizer.param_groups] == pytest.approx([0.0, 0.0], abs=1e-4)
