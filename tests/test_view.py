"""History in bounded room, and the picture at one step, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradtui.format import factor
from gradtui.runfile import NOT_MEASURED, Layer, Measure, Rows, is_measured
from gradtui.runfile.history import History
from gradtui.tui.braille import draw
from gradtui.view import LayerFacts, curves, describe_values, facts, known, newest_known, update_known

SPEED = Measure("bias_grad_norm", "‖∂C/∂b‖", "cost per unit bias", "")


def rows(first: int, measures: np.ndarray) -> Rows:
    step = np.arange(first, first + len(measures))
    number = step.astype(float)
    known, optimizers = np.ones(len(step), bool), np.ones(len(step), np.int64)
    return Rows(step, number, number, number, number, measures, known, optimizers)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_history_keeps_every_extreme_in_bounded_room(batches: list[int], seed: int) -> None:
    total = sum(batches)
    values = np.random.default_rng(seed).random((total, 3, 2), dtype=np.float32)
    history = History(3, 2, buckets=64)
    first = 0
    for batch in batches:
        history.add_rows(rows(first, values[first : first + batch]))
        first += batch
    drawn = curves(history.aggregates(), 1)
    assert len(drawn.first_step) <= 65
    assert drawn.first_step[0] == 0 and drawn.last_step[-1] == total - 1
    assert (drawn.first_step[1:] == drawn.last_step[:-1] + 1).all()
    for i in range(len(drawn.first_step)):
        bucket = values[drawn.first_step[i] : drawn.last_step[i] + 1, :, 1]
        np.testing.assert_allclose(drawn.mean[i], bucket.mean(axis=0), rtol=1e-5)
        assert drawn.loss[i] == pytest.approx((drawn.first_step[i] + drawn.last_step[i]) / 2)
    assert not drawn.broken.any()


def test_history_remembers_a_single_nan_among_many_steps() -> None:
    values = np.ones((100_000, 2, 1), np.float32)
    values[54_321, 1, 0] = np.nan
    history = History(2, 1)
    for first in range(0, 100_000, 1000):
        history.add_rows(rows(first, values[first : first + 1000]))
    drawn = curves(history.aggregates(), 0)
    (bucket,) = drawn.broken.nonzero()[0]
    assert drawn.first_step[bucket] <= 54_321 <= drawn.last_step[bucket]


def test_history_covers_all_steps_evenly() -> None:
    history = History(1, 1, buckets=64)
    for first in range(0, 100_000, 1000):
        history.add_rows(rows(first, np.zeros((1000, 1, 1), np.float32)))
    drawn = curves(history.aggregates(), 0)
    lengths = drawn.last_step - drawn.first_step + 1
    assert len(set(lengths[:-1].tolist())) == 1


def test_the_newest_known_value_of_each_measure() -> None:
    block = np.full((3, 2, 2), NOT_MEASURED)
    block[0, 0, 0] = 1  # newest first
    block[1, 0, 0] = 2
    block[2, 1, 1] = np.nan
    newest = newest_known(block)
    assert known(newest[:, 0]) == (1.0, None)
    assert newest[0, 0] == 1 and np.isnan(newest[1, 1]) and is_measured(newest)[1, 1]
    later = update_known(newest, np.full((1, 2, 2), NOT_MEASURED))
    np.testing.assert_array_equal(later.view(np.uint32), newest.view(np.uint32))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Layer("fc", "Linear", {"weight": (30, 784), "bias": (30,)}, 1), "784→30"),
        (Layer("conv", "Conv2d", {"weight": (16, 3, 5, 5)}, 1), "3→16 5×5"),
        (Layer("norm", "LayerNorm", {"weight": (64,), "bias": (64,)}, 1), "64"),
        (Layer("words", "Embedding", {"weight": (1000, 32)}, 1), "1000→32"),
        (Layer("empty", "Module", {}, 0), ""),
        # what is not known is not guessed
        (Layer("up", "ConvTranspose2d", {"weight": (8, 3, 4, 4), "bias": (3,)}, 1), "8→3 4×4"),
        (Layer("c_attn", "Conv1D", {"weight": (20, 60), "bias": (60,)}, 1), "20→60"),
        (Layer("cell", "LSTMCell", {"weight_ih": (204, 1), "weight_hh": (204, 51)}, 1), "1→51"),
        (Layer("normed", "Linear", {"original0": (32, 1), "original1": (32, 7)}, 256), "256 parameters"),
        (Layer("graph", "Attention", {"W": (512, 60), "a": (120, 1)}, 30840), "30,840 parameters"),
        (Layer("w", "Tensor", {"w": (784, 30)}, 1), "784×30"),
        (Layer("hidden", "Tensor", {"weight": (20, 30), "bias": (30,)}, 1), "20→30"),
        (Layer("told", "Anything", {"W": (2, 3)}, 6, size="3→2 heads"), "3→2 heads"),
    ],
)
def test_the_shape_of_a_layer_describe_values(layer: Layer, shape: str) -> None:
    assert facts(layer).shape == shape


def layer_facts(*names: str) -> list[LayerFacts]:
    return [LayerFacts(name, "Linear", "", 1) for name in names]


def test_words_say_how_far_apart_the_layers_are() -> None:
    assert describe_values(layer_facts("a", "b"), [0.003, 0.285], SPEED) == ["a learns 95× slower than b."]
    assert describe_values(layer_facts("a", "b"), [1.0, 1.5], SPEED) == ["All layers within a factor of 1.5."]
    assert describe_values(layer_facts("a", "b"), [None, None], SPEED) == []


def test_words_are_loud_about_nan_and_zero() -> None:
    lines = describe_values(layer_facts("a", "b", "c"), [float("nan"), 0.0, 1.0], SPEED)
    assert lines[0].startswith("NOT FINITE  a") and lines[1].startswith("ZERO  b")


@pytest.mark.parametrize(
    ("times", "text"), [(95_123, "95,000×"), (118, "120×"), (4.23, "4.2×"), (1e12, "1e+12×"), (10, "10×")]
)
def test_factors_as_people_say_them(times: float, text: str) -> None:
    assert factor(times) == text


def dots(character: str) -> int:
    return (ord(character) - 0x2800).bit_count() if character != " " else 0


def test_a_braille_curve_runs_from_corner_to_corner() -> None:
    steps = np.arange(100)
    line = steps[:, None].astype(float)
    plot = draw(steps, line, 10, 5, log=False)
    assert plot.rows[4][0] == "⡠" or dots(plot.rows[4][0]) >= 1
    assert dots(plot.rows[0][9]) >= 1
    assert plot.rows[0][0] == " " and plot.rows[4][9] == " "
    assert (plot.low, plot.high) == (0, 99)
    assert plot.ends == [0]


@given(st.integers(1, 80), st.integers(1, 30), st.integers(1, 200), st.integers(0, 1000))
def test_a_plot_has_exactly_its_size_whatever_the_values(width: int, height: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = 10.0 ** rng.uniform(-40, 30, (count, 3))
    values[rng.random(values.shape) < 0.2] = rng.choice([np.nan, np.inf, 0.0, -1.0])
    plot = draw(np.arange(count), values, width, height, log=True)
    assert [len(row) for row in plot.rows] == [width] * height
    assert [len(row) for row in plot.owner] == [width] * height


def test_a_spike_of_one_step_in_a_hundred_thousand_is_drawn() -> None:
    values = np.ones((100_000, 1, 1), np.float32)
    values[54_321] = 1e9
    history = History(1, 1)
    history.add_rows(rows(0, values))
    drawn = curves(history.aggregates(), 0)
    plot = draw(drawn.last_step, drawn.mean, 40, 8, log=True)
    assert any(character != " " for character in plot.rows[0])
