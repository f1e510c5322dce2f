"""Each threshold decides where it says: a run just inside has the finding, one just outside has not.

The numbers here are the defaults themselves, so that none of them changes by a fifth without a failing test.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gradtui.diagnosis import Evidence, Series, Thresholds, find, thresholds_table
from gradtui.diagnosis.kinds import ThresholdError
from gradtui.errors import UsageError
from gradtui.runfile import NOT_MEASURED
from tests.diagnosis.made_up import FLAT, ROWS, evidence, healthy, only, put

LIMITS = Thresholds()
ONE = np.ones(ROWS)


def shaped(loss: np.ndarray | None = None, rows: int = ROWS, **values: float) -> Evidence:
    """A run of constant measures: `dead=0.72` for the second layer, the update ratio and the norms for all."""
    block, _ = healthy(rows)
    for measure, value in values.items():
        put(block, measure, value, 1 if measure in ("dead", "saturated") else slice(None))
    return evidence(block, FLAT[:rows] if loss is None else loss)


def spread(steps: int, rows: int, loss: np.ndarray | None = None, **values: float) -> Evidence:
    """So many rows, evenly over the steps 1 to `steps`."""
    run = shaped(FLAT[:rows] if loss is None else loss, rows, **values)
    at = np.linspace(1, steps, rows).round().astype(np.int64)
    return replace(run, aggregates=replace(run.aggregates, first_step=at, last_step=at))


def stepped(fall: float) -> np.ndarray:
    """A loss that has fallen by a share of its first value, and falls no more."""
    return np.where(np.arange(ROWS) < ROWS // 2, 1.0, 1.0 - fall) + 1e-4 * np.sin(np.arange(ROWS))


def sloping(errors: float) -> np.ndarray:
    """A loss whose newest quarter falls by so many standard errors, and by next to nothing in all."""
    x = np.arange(25) - 12.0
    noise = np.where(np.arange(25) % 2, 1.0, -1.0)
    noise -= noise.mean()
    noise -= x * (x @ noise) / (x @ x)
    error = np.sqrt(noise @ noise / 23 / (x @ x))
    return 2.3 + 1e-4 * np.concatenate([np.zeros(75), noise - errors * error * x])


def layer_with(measure: str, value: float, loss: np.ndarray, layer: int = 0, **others: float) -> Evidence:
    block, _ = healthy()
    put(block, measure, value, layer)
    for name, number in others.items():
        put(block, name, number, layer)
    return evidence(block, loss)


def blown_up(growth: float) -> Evidence:
    block, _ = healthy()
    put(block, "param_norm", 5 * growth, since=2)
    return evidence(block, FLAT)


def growing(growth: float) -> Evidence:
    block, _ = healthy()
    put(block, "grad_norm", 0.3 * growth, since=50)
    return evidence(block, np.where(np.arange(ROWS) < 50, 2.3, 2.5))


def crowded(share: float) -> Evidence:
    """A net that learns, whose layers have 40 % dead units, and one of them more."""
    block, loss = healthy()
    put(block, "dead", 0.4)
    put(block, "dead", share, 1)
    return evidence(block, loss)


def dipping(depth: float) -> np.ndarray:
    loss = ONE.copy()
    loss[40:60] -= depth
    return loss


def fastest(share: float) -> Evidence:
    """Steps that are far too small, but in one layer, which moves by a share in all steps."""
    block, _ = healthy()
    put(block, "update_ratio", 1e-7)
    put(block, "update_ratio", share / ROWS, 0)
    return evidence(block, FLAT)


# threshold -> a run for a number, the number just inside and just outside, and the finding
CASES: dict[str, tuple[Callable[[float], Evidence], float, float, str]] = {
    "least_rows": (lambda rows: spread(30, int(rows), np.geomspace(1, 1e3, int(rows))), 2, 1, "exploding"),
    "least_steps": (lambda steps: shaped(rows=int(steps), dead=0.9), 25, 24, "dead"),
    "patience": (lambda steps: spread(int(steps), 50, update_ratio=1e-9), 100, 99, "update-too-small"),
    "slope": (lambda errors: shaped(sloping(errors)), 2.7, 3.3, "plateau"),
    "progress": (lambda fall: layer_with("grad_norm", 300.0, stepped(fall)), 0.091, 0.109, "exploding"),
    "learnt": (lambda fall: shaped(stepped(fall), update_ratio=0.2), 0.55, 0.65, "update-too-large"),
    "vanishing": (lambda share: layer_with("grad_norm", 0.3 * share, FLAT), 4.5e-3, 5.5e-3, "vanishing"),
    "vanishing_update": (
        lambda share: layer_with("grad_norm", 3e-4, healthy()[1], update_ratio=1e-3 * share),
        0.018,
        0.022,
        "vanishing",
    ),
    "exploding_layers": (lambda times: layer_with("grad_norm", 0.3 * times, FLAT), 110, 90, "exploding"),
    "exploding_growth": (growing, 110, 90, "exploding"),
    "exploding_loss": (lambda times: shaped(np.where(np.arange(ROWS) < 50, 1.0, times)), 11, 9, "exploding"),
    "dead": (lambda share: shaped(dead=share), 0.72, 0.68, "dead"),
    "dead_above_others": (crowded, 0.85, 0.75, "dead"),
    "saturated": (lambda share: shaped(saturated=share), 0.62, 0.58, "saturated"),
    "too_large": (lambda ratio: shaped(update_ratio=ratio), 0.11, 0.09, "update-too-large"),
    "too_large_growth": (blown_up, 13, 11, "update-too-large"),
    "too_small": (lambda share: shaped(update_ratio=share / ROWS), 0.009, 0.011, "update-too-small"),
    "too_small_fastest": (fastest, 0.09, 0.11, "update-too-small"),
    "plateau": (lambda fall: shaped(stepped(fall)), 0.027, 0.033, "plateau"),
    "plateau_lower": (lambda depth: shaped(dipping(depth)), 0.09, 0.11, "plateau"),
    "plateau_rows": (lambda rows: spread(500, int(rows)), 10, 9, "plateau"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_threshold_decides_just_inside_and_just_outside(name: str) -> None:
    run, inside, outside, kind = CASES[name]
    assert kind in {finding.kind for finding in find(run(inside))}
    assert kind not in {finding.kind for finding in find(run(outside))}


@pytest.mark.parametrize("share, words", [(0.9e-6, "rounding"), (1.1e-6, "not in the optimizer")])
def test_a_gradient_is_negligible_below_a_millionth_of_the_parameters(share: float, words: str) -> None:
    found = find(layer_with("update_ratio", 0.0, healthy()[1], 1, grad_norm=5 * share))
    assert words in only(found, "not-updating").evidence


def series(column: np.ndarray) -> tuple[Series, np.ndarray]:
    run = shaped()
    return Series(run, LIMITS), np.repeat(column[:, None], 4, axis=1)


@pytest.mark.parametrize("zeros, median", [(3, 0.0), (2, 1.0)])
def test_the_beginning_is_a_twentieth_of_the_run(zeros: int, median: float) -> None:
    run, values = series(np.where(np.arange(ROWS) < zeros, 0.0, 1.0))
    assert run.at_first(values).tolist() == [median] * 4


@pytest.mark.parametrize("ones, median", [(13, 1.0), (12, 0.0)])
def test_now_is_the_newest_quarter_of_the_run(ones: int, median: float) -> None:
    run, values = series(np.where(np.arange(ROWS) >= ROWS - ones, 1.0, 0.0))
    assert run.recent(values).tolist() == [median] * 4


@pytest.mark.parametrize("there, turns", [(91, False), (89, True)])
def test_layers_that_miss_a_tenth_of_the_steps_take_turns(there: int, turns: bool) -> None:
    block, loss = healthy()
    block[there:, :2] = NOT_MEASURED
    block[: ROWS - there, 2:] = NOT_MEASURED
    assert Series(evidence(block, loss), LIMITS).takes_turns is turns


@pytest.mark.parametrize("exceptions, begin", [(4, 51), (6, 61)])
def test_a_tenth_of_exceptions_is_left_out_of_account(exceptions: int, begin: int) -> None:
    holds = np.arange(ROWS) >= 50
    holds[60 - exceptions : 60] = False
    assert Series(shaped(), LIMITS).since(holds, np.ones(ROWS, np.bool_)) == begin


def test_every_threshold_is_tested_has_a_meaning_and_a_default_as_promised() -> None:
    table = thresholds_table()
    others = {"negligible", "begin", "recent", "exceptions"}
    assert set(CASES) | others == set(table)
    assert all(one.meaning for one in table.values())
    assert {name: one.default for name, one in table.items()} == LIMITS


# -- the mapping ------------------------------------------------------------------------------------------------------


def test_thresholds_are_a_frozen_mapping_with_attributes() -> None:
    limits = Thresholds(dead=0.9, patience=50)
    assert (limits.dead, limits["patience"], limits.slope) == (0.9, 50.0, 3.0)
    assert dict(limits)["dead"] == 0.9 and len(limits) == len(list(limits))
    assert limits == Thresholds(**limits) and hash(limits) == hash(Thresholds(dead=0.9, patience=50))
    assert limits != LIMITS and repr(limits) == "Thresholds(patience=50, dead=0.9)" and repr(LIMITS) == "Thresholds()"
    with pytest.raises(AttributeError, match="frozen"):
        limits.dead = 0.5
    with pytest.raises(AttributeError):
        _ = limits.nothing
    assert copy.copy(limits) == limits == pickle.loads(pickle.dumps(limits))


def test_an_unknown_threshold_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ThresholdError, match="no threshold 'ded': did you mean dead"):
        Thresholds(ded=0.9)
    for wrong in ("much", float("nan"), True, None):
        with pytest.raises(UsageError, match=r"the threshold dead is .*: give a number"):
            Thresholds(dead=wrong)


def test_stored_thresholds_are_read_leniently() -> None:
    limits = Thresholds(dead=float("inf"), slope=2.0)
    stored = json.loads(json.dumps(limits.to_json(), allow_nan=False))
    assert stored["dead"] == "inf"
    assert Thresholds.from_json(stored) == limits
    assert Thresholds.from_json({"dead": 0.9, "unknown": 1, "slope": "steep", "begin": None}) == Thresholds(dead=0.9)


# -- what else decides ------------------------------------------------------------------------------------------------


def test_the_beginning_of_a_short_run_is_its_first_row() -> None:
    values = np.repeat(np.array([5.0, 1, 1, 1, 1, 1, 1, 1, 1, 1])[:, None], 4, axis=1)
    assert Series(shaped(rows=10), LIMITS).at_first(values).tolist() == [5.0] * 4


@pytest.mark.parametrize("rows, found", [(12, False), (4, True)])
def test_a_loss_that_was_low_in_few_steps_counts_as_unchanged(rows: int, found: bool) -> None:
    loss = ONE.copy()
    loss[40 : 40 + rows] = 0.7
    assert ("plateau" in {finding.kind for finding in find(shaped(loss))}) is found


def test_parameters_that_begin_at_0_grow_from_where_they_are_not() -> None:
    block, _ = healthy()
    put(block, "param_norm", 0.5)
    block[0, :, 1] = 0.0
    put(block, "param_norm", 0.5 * 13, since=50)
    assert Series(evidence(block, FLAT), LIMITS).growth_of_parameters() == pytest.approx(13)
    assert "update-too-large" in {finding.kind for finding in find(evidence(block, FLAT))}


def test_a_net_that_no_step_moves_at_all_has_no_steps_that_are_too_small() -> None:
    assert "update-too-small" not in {finding.kind for finding in find(shaped(update_ratio=0.0))}


def test_the_last_layer_of_a_net_that_learns_may_be_saturated_and_no_other() -> None:
    block, _ = healthy()
    put(block, "saturated", 0.9)
    slow = np.linspace(10, 5, ROWS)
    assert only(find(evidence(block, slow)), "saturated").layers == ("fc1", "fc2", "fc3")


def test_two_layers_neither_vanish_nor_explode_from_layer_to_layer() -> None:
    for layers, found in ((2, False), (3, True)):
        for value, kind in ((1e-9, "vanishing"), (1e9, "exploding")):
            block, _ = healthy(layers=layers)
            put(block, "grad_norm", value, 0)
            assert (kind in {finding.kind for finding in find(evidence(block, FLAT))}) is found


@pytest.mark.parametrize("rows, found", [(slice(70, None), True), (slice(0, 30), True), (slice(40, 60), False)])
def test_steps_are_too_large_at_first_or_now(rows: slice, found: bool) -> None:
    block, _ = healthy()
    block[rows, :, 2] = 0.3
    assert ("update-too-large" in {finding.kind for finding in find(evidence(block, FLAT))}) is found
