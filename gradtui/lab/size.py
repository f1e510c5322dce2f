"""How large a recipe's net is, and about how long it trains: counted without building it."""

from __future__ import annotations

from itertools import accumulate, pairwise

from gradtui.lab.recipe_fields import RecipeFields

MAXOUT_PIECES = 2
_GATES = {"rnn": 1, "gru": 3, "lstm": 4}
_NORM_SIZE = {"none": 0, "batch": 2, "layer": 2, "rms": 1, "lrn": 0}


def fan_ins(recipe: RecipeFields) -> list[int]:
    """Numbers that each layer of a feed-forward net takes in, the output layer's last."""
    sizes = (recipe.inputs, *recipe.hidden)
    return list(accumulate(sizes)) if recipe.net == "dense" else list(sizes)


def is_low_rank(recipe: RecipeFields, fan_in: int, fan_out: int) -> bool:
    """Whether a hidden layer is factorised: where that makes it smaller."""
    return 0 < recipe.rank * (fan_in + fan_out) < fan_in * fan_out


def parameters(recipe: RecipeFields) -> int:
    """Numbers that the net of a recipe learns."""
    if recipe.recurrent:
        sizes = (recipe.inputs, *recipe.hidden)
        cells = sum(_GATES[recipe.net] * h * (x + h + 2) for x, h in pairwise(sizes))
        return cells + (recipe.hidden[-1] + 1) * recipe.outputs
    before = fan_ins(recipe)
    hidden = sum(_hidden_layer(recipe, index, fan_in) for index, fan_in in enumerate(before[:-1]))
    return hidden + (before[-1] + 1) * recipe.outputs + _shortcuts(recipe)


def _hidden_layer(recipe: RecipeFields, index: int, fan_in: int) -> int:
    units = recipe.hidden[index]
    sums = units * (MAXOUT_PIECES if recipe.activation == "maxout" else 1)
    rank = recipe.rank
    weights = rank * (fan_in + sums) if is_low_rank(recipe, fan_in, sums) else fan_in * sums
    biases = 0 if recipe.norm in ("batch", "layer") else sums
    slopes = units if recipe.activation == "prelu" else 0
    gate = (fan_in + 1) * units if recipe.net == "highway" and index and fan_in == units else 0
    return weights + biases + _NORM_SIZE[recipe.norm] * sums + slopes + gate


def blocks(hidden: tuple[int, ...]) -> list[tuple[int, int]]:
    """The blocks of a residual net: (first, last) of the hidden layers, from 0, that a shortcut leads around.

    The first layer stands alone, and two make a block (He et al. 2016); one that is left over is a block of its own.
    """
    return [(first, min(first + 1, len(hidden) - 1)) for first in range(1, len(hidden), 2)]


def _shortcuts(recipe: RecipeFields) -> int:
    """Weights of the projections where a residual net changes its width."""
    if recipe.net != "residual":
        return 0
    sums = [units * (MAXOUT_PIECES if recipe.activation == "maxout" else 1) for units in recipe.hidden]
    ends = [(sums[first - 1], sums[last]) for first, last in blocks(recipe.hidden)]
    return sum(before * after for before, after in ends if before != after)


# Seconds, measured on one core of a small server: what a layer, or a time step of a recurrent layer, costs in a step of
# training beside its multiplications
_STEP, _LAYER, _NORM, _GATE = 150e-6, 45e-6, 40e-6, 60e-6
_TIME_STEP = {"rnn": 80e-6, "gru": 210e-6, "lstm": 270e-6}
_ADAPTIVE = 25e-6  # a layer, for optimizers that keep averages
_MULTIPLICATIONS = 8e9  # a second
START = 2.5  # loading torch


def seconds_per_step(recipe: RecipeFields) -> float:
    """About how long a step takes, within a factor of two or so on common computers."""
    batch = min(recipe.batch_size or recipe.images, recipe.images)
    products = 3 * batch * parameters(recipe) / _MULTIPLICATIONS
    layers = len(recipe.hidden) + 1
    each = _LAYER + (_ADAPTIVE if recipe.optimizer.startswith(("ada", "rms")) else 0.0)
    if recipe.recurrent:
        steps = recipe.time_steps * len(recipe.hidden) * _TIME_STEP[recipe.net]
        return _STEP + steps + each * layers + products * recipe.time_steps
    extra = (_NORM if recipe.norm != "none" else 0.0) + (_GATE if recipe.net in ("highway", "dense") else 0.0)
    return _STEP + layers * (each + extra) + products


def seconds(recipe: RecipeFields) -> float:
    """About how long the training takes, from the key press to the end."""
    pretraining = _STEP * recipe.pretraining_steps
    return START + pretraining + seconds_per_step(recipe) * recipe.steps_an_epoch * recipe.epochs
