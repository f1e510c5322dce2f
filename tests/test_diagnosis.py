"""The diagnosis on runs made up by hand: what it finds, from when on, and what it leaves alone."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradtui.diagnosis import FINDINGS, Evidence, Finding, Kind, Thresholds
from gradtui.diagnosis import find as diagnose
from gradtui.runfile import NOT_MEASURED, Layer
from gradtui.runfile.blocks import Aggregates
from gradtui.runfile.schema import Origin
from tests.test_imports import import_all, loaded_after

MEASURES = ("grad_norm", "param_norm", "update_ratio", "saturated", "dead")
ROWS, LAYERS = 100, 4
LIMITS = Thresholds()
FALLING = np.geomspace(2.3, 0.1, ROWS)
FLAT = 2.3 + 0.02 * np.sin(np.arange(ROWS))


def healthy(rows: int = ROWS, layers: int = LAYERS, loss: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Measures [rows, layers, measures] and losses [rows] of a net that learns, or has the losses given."""
    block = np.empty((rows, layers, len(MEASURES)), np.float32)
    block[...] = np.array([0.3, 5.0, 1e-3, 0.1, 0.05], np.float32)
    return block, np.geomspace(2.3, 0.1, rows) if loss is None else np.asarray(loss, np.float64)


def evidence(block: np.ndarray, loss: np.ndarray, origins: Sequence[Origin] = (), first: int = 1) -> Evidence:
    rows, count, _ = block.shape
    steps = np.arange(first, first + rows, dtype=np.int64)
    layers = [Layer(f"fc{i + 1}", "Linear", {"weight": (10, 9), "bias": (10,)}, 100) for i in range(count)]
    worst = np.where(np.isnan(loss), np.inf, loss)
    times = np.linspace(0, 1, rows)
    ones = np.ones(rows, np.int64)
    parts = Aggregates(steps, steps, ones, times, times, loss, worst, loss, block, block, block)
    return Evidence(layers, MEASURES, parts, origins)


def put(block: np.ndarray, measure: str, value: Any, layer: Any = slice(None), since: int = 1) -> None:
    """Set a measure of a layer from a step on."""
    block[since - 1 :, layer, MEASURES.index(measure)] = value


def kinds(findings: Sequence[Finding]) -> set[str]:
    return {finding.kind for finding in findings}


def only(findings: Sequence[Finding], kind: str) -> Finding:
    """The one finding of a kind."""
    (found,) = [finding for finding in findings if finding.kind == kind]
    return found


def test_nothing_is_said_of_a_net_that_learns() -> None:
    assert diagnose(evidence(*healthy())) == []


def test_nothing_is_said_of_a_net_whose_loss_is_at_its_floor() -> None:
    loss = np.concatenate([np.geomspace(2.3, 0.1, 30), 0.1 + 0.01 * np.sin(np.arange(70))])
    block, _ = healthy()
    put(block, "saturated", 0.7, [0, 1])
    assert diagnose(evidence(block, loss)) == []


def test_every_kind_has_a_meaning_and_remedies() -> None:
    assert len(FINDINGS) == 10
    assert all(isinstance(kind, Kind) and kind.meaning and kind.remedies for kind in FINDINGS.values())


# -- NaN --------------------------------------------------------------------------------------------------------------


def test_where_a_nan_began_is_what_the_recorder_saw() -> None:
    block, loss = healthy()
    loss[50:] = np.nan
    found = diagnose(evidence(block, loss, [Origin(51, "forward", 2, "exp made it NaN or infinite")]))[0]
    assert (found.kind, found.layers, found.begin) == ("nan", ("fc3",), 51)
    assert "exp made it NaN or infinite" in found.evidence


def test_a_nan_of_the_input_names_no_layer() -> None:
    found = diagnose(evidence(*healthy(), [Origin(7, "forward", None, "the input of the model was NaN")]))[0]
    assert (found.layers, found.begin) == ((), 7)


def test_without_an_origin_the_rows_tell_of_a_nan_and_the_last_broken_layer_is_named() -> None:
    block, loss = healthy()
    put(block, "grad_norm", np.nan, [0, 1], since=40)
    found = only(diagnose(evidence(block, loss)), "nan")
    assert (found.layers, found.begin) == (("fc2",), 40)


def test_an_infinite_gradient_is_found_too() -> None:
    block, loss = healthy()
    block[10, 0, 0] = np.inf
    assert only(diagnose(evidence(block, loss)), "nan").begin == 11


def test_a_gradient_that_broke_before_the_loss_showed_it_is_where_it_began() -> None:
    block, loss = healthy()
    put(block, "grad_norm", np.nan, [0, 1], since=40)
    put(block, "grad_norm", np.nan, since=50)
    loss[50:] = np.nan
    found = only(diagnose(evidence(block, loss, [Origin(50, "backward", 3, "its gradient was NaN")])), "nan")
    assert (found.layers, found.begin) == (("fc2",), 40)


def test_a_broken_gradient_from_which_the_training_recovered_is_not_where_a_later_nan_began() -> None:
    block, loss = healthy()
    block[10, :, 0] = np.nan
    found = only(diagnose(evidence(block, loss, [Origin(50, "backward", 3, "its gradient was NaN")])), "nan")
    assert (found.layers, found.begin) == (("fc4",), 50)


def test_what_was_not_measured_is_no_nan() -> None:
    block, loss = healthy()
    block[:, 1] = NOT_MEASURED
    assert "nan" not in kinds(diagnose(evidence(block, loss)))


def test_a_nan_is_spoken_of_from_the_first_row_on() -> None:
    block, loss = healthy(rows=1)
    loss[0] = np.nan
    assert kinds(diagnose(evidence(block, loss))) == {"nan"}


# -- gradients across layers ------------------------------------------------------------------------------------------


def test_vanishing_is_found_and_names_the_layers_and_the_step() -> None:
    block, loss = healthy(loss=FLAT)
    put(block, "grad_norm", 0.3 * LIMITS.vanishing / 2, [0, 1], since=21)
    found = only(diagnose(evidence(block, loss)), "vanishing")
    assert found.layers == ("fc1", "fc2")
    assert found.numbers["ratio"] == pytest.approx(LIMITS.vanishing / 2, rel=1e-3)
    assert abs(found.begin - 21) <= 10  # a tenth of what followed is forgiven


def test_vanishing_is_not_found_just_above_the_threshold_nor_where_the_layers_move_and_the_loss_falls() -> None:
    block, _ = healthy()
    put(block, "grad_norm", 0.3 * LIMITS.vanishing * 1.1, 0)
    assert "vanishing" not in kinds(diagnose(evidence(block, FLAT)))
    put(block, "grad_norm", 0.3 * LIMITS.vanishing / 10, 0)
    assert "vanishing" not in kinds(diagnose(evidence(block, FALLING)))


def test_vanishing_is_found_where_the_loss_falls_if_the_layer_hardly_moves() -> None:
    block, loss = healthy()
    put(block, "grad_norm", 0.3 * LIMITS.vanishing / 10, 0)
    put(block, "update_ratio", 1e-3 * LIMITS.vanishing_update / 2, 0)
    assert only(diagnose(evidence(block, loss)), "vanishing").layers == ("fc1",)


@pytest.mark.parametrize("share, found", [(1.1, True), (0.9, False)])
def test_exploding_from_layer_to_layer_needs_a_factor_and_a_loss_that_does_not_fall(share: float, found: bool) -> None:
    block, _ = healthy()
    put(block, "grad_norm", 0.3 * LIMITS.exploding_layers * share, 0)
    findings = diagnose(evidence(block, FLAT))
    assert ("exploding" in kinds(findings)) == found
    assert not found or only(findings, "exploding").layers == ("fc1",)
    assert "exploding" not in kinds(diagnose(evidence(block, FALLING)))


def test_exploding_from_step_to_step_is_found_from_where_it_had_grown() -> None:
    block, _ = healthy(loss=FLAT)
    growing = np.geomspace(1, 10 * LIMITS.exploding_growth, ROWS)
    block[:, :, 0] *= growing[:, None].astype(np.float32)
    found = only(diagnose(evidence(block, FLAT * np.sqrt(growing))), "exploding")
    assert found.layers == () and 30 <= found.begin <= 60
    assert found.numbers["growth"] > LIMITS.exploding_growth


def test_a_gradient_that_grows_while_the_loss_falls_does_not_explode() -> None:
    block, _ = healthy()
    block[:, :, 0] *= np.geomspace(1, 1e4, ROWS)[:, None].astype(np.float32)
    assert "exploding" not in kinds(diagnose(evidence(block, FALLING)))


@pytest.mark.parametrize("share, found", [(1.1, True), (0.9, False)])
def test_a_loss_that_rises_tenfold_explodes(share: float, found: bool) -> None:
    block, _ = healthy()
    loss = np.geomspace(1, 1, ROWS)
    loss[50:] = LIMITS.exploding_loss * share
    assert ("exploding" in kinds(diagnose(evidence(block, loss)))) == found


# -- activations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share, found", [(0.01, True), (-0.01, False)])
def test_dead_units_are_found_where_there_are_more_than_usual(share: float, found: bool) -> None:
    block, loss = healthy()
    put(block, "dead", LIMITS.dead + share, 1, since=31)
    findings = diagnose(evidence(block, loss))
    assert ("dead" in kinds(findings)) == found
    if found:
        dead = only(findings, "dead")
        assert dead.layers == ("fc2",) and 20 <= dead.begin <= 31


def test_units_that_are_seldom_sampled_are_dead_from_the_first_sample_on() -> None:
    block, loss = healthy()
    put(block, "dead", NOT_MEASURED)
    block[9::10, 1, MEASURES.index("dead")] = 0.9
    assert only(diagnose(evidence(block, loss)), "dead").begin == 1


@pytest.mark.parametrize("share, found", [(0.01, True), (-0.01, False)])
def test_saturation_is_found_in_a_net_that_is_stuck(share: float, found: bool) -> None:
    block, _ = healthy()
    put(block, "saturated", LIMITS.saturated + share, 2, since=11)
    findings = diagnose(evidence(block, FLAT))
    assert ("saturated" in kinds(findings)) == found
    if found:
        saturated = only(findings, "saturated")
        assert saturated.layers == ("fc3",) and saturated.begin <= 11
    assert "saturated" not in kinds(diagnose(evidence(block, FALLING)))


SLOW = np.linspace(10, 10 * (1 - LIMITS.learnt * 0.9), ROWS)


@pytest.mark.parametrize(
    "since, loss, found", [(1, SLOW, True), (41, SLOW, False), (41, FLAT, True), (1, FALLING, False)]
)
def test_saturation_that_came_while_the_loss_fell_was_learnt(since: int, loss: np.ndarray, found: bool) -> None:
    block, _ = healthy()
    put(block, "saturated", 0.8, 1, since=since)
    findings = diagnose(evidence(block, loss))
    assert ("saturated" in kinds(findings)) == found
    assert not found or only(findings, "saturated").evidence.endswith("falls by little" if loss is SLOW else "not fall")


# -- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share, found", [(1.1, True), (0.9, False)])
def test_steps_are_too_large_if_nothing_is_learnt_by_them(share: float, found: bool) -> None:
    block, _ = healthy()
    put(block, "update_ratio", LIMITS.too_large * share)
    assert ("update-too-large" in kinds(diagnose(evidence(block, FLAT)))) == found
    assert "update-too-large" not in kinds(diagnose(evidence(block, FALLING)))


@pytest.mark.parametrize("share, found", [(1.1, True), (0.9, False)])
def test_parameters_that_have_been_blown_up_are_a_sign_of_steps_that_were_too_large(share: float, found: bool) -> None:
    block, _ = healthy()
    put(block, "param_norm", 5 * LIMITS.too_large_growth * share, since=5)
    assert ("update-too-large" in kinds(diagnose(evidence(block, FLAT)))) == found


@pytest.mark.parametrize("share, found", [(1.1, False), (0.9, True)])
def test_steps_are_too_small_if_all_together_change_nothing(share: float, found: bool) -> None:
    block, _ = healthy()
    put(block, "update_ratio", LIMITS.too_small / ROWS * share)
    findings = diagnose(evidence(block, FLAT))
    assert ("update-too-small" in kinds(findings)) == found
    assert not found or only(findings, "update-too-small").begin == 1
    assert "update-too-small" not in kinds(diagnose(evidence(block, FALLING)))


def test_steps_that_blew_the_parameters_up_and_then_died_are_not_too_small() -> None:
    block, _ = healthy()
    put(block, "update_ratio", 7.0, since=1)
    put(block, "update_ratio", 1e-30, since=3)
    put(block, "param_norm", 5e20, since=2)
    found = kinds(diagnose(evidence(block, FLAT)))
    assert "update-too-large" in found and "update-too-small" not in found


def test_causes_come_before_what_they_lead_to() -> None:
    block, _ = healthy()
    put(block, "update_ratio", 2.0)
    put(block, "grad_norm", 1e-6, 0)
    put(block, "dead", 0.95, 1)
    order = [finding.kind for finding in diagnose(evidence(block, FLAT))]
    assert order.index("update-too-large") < order.index("dead") < order.index("vanishing")
    assert len({kind.order for kind in FINDINGS.values()}) == len(FINDINGS)


def test_a_loss_that_stands_where_it_began_is_a_plateau() -> None:
    block, _ = healthy()
    assert kinds(diagnose(evidence(block, FLAT))) == {"plateau"}
    assert diagnose(evidence(block, np.linspace(2.3, 2.3 * (1 - 1.5 * LIMITS.plateau), ROWS))) == []
    few = int(LIMITS.plateau_rows) - 1
    parts = evidence(*healthy(few, loss=FLAT[:few])).parts
    assert diagnose(replace(evidence(block, FLAT), parts=replace(parts, last_step=100 * parts.last_step))) == []


def test_a_loss_is_waited_for() -> None:
    early = int(LIMITS.patience) - 1
    block, _ = healthy(early)
    put(block, "update_ratio", 1e-9)
    assert diagnose(evidence(block, FLAT[:early])) == []


def test_few_steps_tell_of_an_explosion_and_of_nothing_else() -> None:
    early = int(LIMITS.least_steps) - 1
    block, _ = healthy(early)
    put(block, "dead", 1.0, 1)
    put(block, "update_ratio", 0.0, 2)
    assert diagnose(evidence(block, FLAT[:early])) == []
    assert kinds(diagnose(evidence(block, np.geomspace(1, 1e3, early)))) == {"exploding"}


def test_a_loss_that_was_lower_before_does_not_stand_still() -> None:
    block, _ = healthy()
    loss = FLAT.copy()
    loss[40:60] = 1.5
    assert "plateau" not in kinds(diagnose(evidence(block, loss)))


# -- layers that do not move ------------------------------------------------------------------------------------------


def test_a_layer_with_a_gradient_that_no_step_moves_was_forgotten() -> None:
    block, loss = healthy()
    put(block, "update_ratio", 0.0, 1)
    found = only(diagnose(evidence(block, loss)), "not-updating")
    assert found.layers == ("fc2",) and found.begin == 1 and not found.note
    assert "optimizer" in found.evidence


def test_a_layer_without_a_gradient_is_detached() -> None:
    block, loss = healthy()
    put(block, "update_ratio", 0.0, 1)
    put(block, "grad_norm", NOT_MEASURED, 1)
    found = only(diagnose(evidence(block, loss)), "not-updating")
    assert "detached" in found.evidence and not found.note


def test_a_gradient_of_exactly_zero_is_told_apart() -> None:
    block, loss = healthy()
    put(block, "update_ratio", 0.0, 3)
    put(block, "grad_norm", 0.0, 3)
    assert "exactly 0" in only(diagnose(evidence(block, loss)), "not-updating").evidence


def test_a_step_that_rounding_undoes_is_told_apart_from_one_that_is_not_taken() -> None:
    block, loss = healthy()
    put(block, "update_ratio", 0.0, 1)
    put(block, "grad_norm", 5.0 * LIMITS.negligible / 2, 1)
    assert "rounding" in only(diagnose(evidence(block, loss)), "not-updating").evidence


def test_a_frozen_layer_is_a_note_and_comes_last() -> None:
    block, loss = healthy()
    block[:, 0] = NOT_MEASURED
    put(block, "saturated", 0.9, 1)
    findings = diagnose(evidence(block, FLAT))
    assert findings[-1].note and findings[-1].layers == ("fc1",) and not findings[0].note
    assert kinds(diagnose(evidence(block, loss))) == {"not-updating"}


def test_a_layer_that_stopped_is_still_from_there_on() -> None:
    block, loss = healthy()
    put(block, "update_ratio", 0.0, 2, since=41)
    assert 35 <= only(diagnose(evidence(block, loss)), "not-updating").begin <= 41


# -- what there may be ------------------------------------------------------------------------------------------------


def test_no_rows_no_findings() -> None:
    assert diagnose(evidence(*healthy(rows=0))) == []


def test_one_layer_is_enough_for_what_is_not_about_several() -> None:
    block, _ = healthy(layers=1)
    put(block, "update_ratio", 1.0)
    assert "update-too-large" in kinds(diagnose(evidence(block, FLAT)))


def test_a_run_without_any_measures_is_judged_by_its_loss() -> None:
    block, _ = healthy()
    block[...] = NOT_MEASURED
    assert kinds(diagnose(evidence(block, FLAT))) <= {"plateau"}
    bare = evidence(block, FLAT)
    assert kinds(diagnose(replace(bare, measures=["something else"] * len(MEASURES)))) <= {"plateau"}


def test_a_finding_says_what_where_and_since_when() -> None:
    finding = Finding("dead", ("fc1", "fc2"), 1200, "93 % of the units are zero on whole batches", {"share": 0.93})
    assert str(finding) == "DEAD  fc1, fc2: 93 % of the units are zero on whole batches, since step 1,200"
    assert json.loads(json.dumps(finding.to_json()))["layers"] == ["fc1", "fc2"]


@pytest.mark.parametrize(
    "finding, text",
    [
        (Finding("nan", (), 7, "the input was NaN"), "NAN  the input was NaN, since step 7"),
        (Finding("dead", tuple("abcdef"), 1, "90 % of it"), "DEAD  a, b, c, d and 2 more: 90 % of it, since step 1"),
    ],
)  # fmt: skip
def test_a_finding_about_the_whole_net_names_no_layer_and_one_about_many_a_few(finding: Finding, text: str) -> None:
    assert str(finding) == text


def test_what_vanishes_is_told_in_numbers_and_a_gradient_of_0_as_such() -> None:
    block, loss = healthy(loss=FLAT)
    put(block, "grad_norm", 0.3 / 95_000, [0, 1], since=1)
    assert str(only(diagnose(evidence(block, loss)), "vanishing")) == (
        "VANISHING  fc1, fc2: gradient per parameter 95,000× below that of fc3, since step 1"
    )
    put(block, "grad_norm", 0.0, [0, 1])
    assert only(diagnose(evidence(block, loss)), "vanishing").evidence == "gradient of exactly 0 beside that of fc3"
    put(block, "grad_norm", 0.3 / 400, 1)
    assert only(diagnose(evidence(block, loss)), "vanishing").evidence == (
        "gradient per parameter 400× below that of fc3, or exactly 0"
    )


def test_a_gradient_beside_an_infinite_one_does_not_vanish() -> None:
    block, _ = healthy(loss=FLAT)
    block[60:, 3, 0] = np.inf
    block[60:, :2, 0] = 1e-9
    assert "vanishing" not in kinds(diagnose(evidence(block, FLAT)))
    growing = np.geomspace(1, 1e12, 60).astype(np.float32)
    block[:60, 3, 0] *= growing
    loss = np.concatenate([2.3 * growing.astype(np.float64), np.full(40, np.nan)])
    assert kinds(diagnose(evidence(block, loss))) >= {"nan", "exploding"}
    assert "vanishing" not in kinds(diagnose(evidence(block, loss)))


def in_turns() -> Evidence:
    """A GAN's two groups of layers, each measured in every second row alone."""
    block, _ = healthy()
    block[::2, :2] = NOT_MEASURED
    block[1::2, 2:] = NOT_MEASURED
    return evidence(block, np.where(np.arange(ROWS) % 2, 0.7, 1.39))


def broken() -> Evidence:
    block, _ = healthy()
    block[...] = np.nan
    return evidence(block, np.full(ROWS, np.nan))


AWKWARD = {
    "no rows": lambda: evidence(*healthy(rows=0)),
    "one row": lambda: evidence(*healthy(rows=1)),
    "two rows, far apart": lambda: replace(
        evidence(*healthy(rows=2)), parts=replace(evidence(*healthy(rows=2)).parts, last_step=np.array([1, 900]))
    ),
    "all NaN": broken,
    "no layers": lambda: evidence(*healthy(layers=0, loss=FLAT)),
    "no measures": lambda: replace(evidence(*healthy(loss=FLAT)), measures=[]),
    "in turns": in_turns,
    "no losses": lambda: evidence(healthy()[0], np.full(ROWS, np.nan)),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_runs_are_diagnosed_without_a_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        findings = diagnose(AWKWARD[name]())
    assert all(finding.note or finding.kind in ("nan", "plateau") for finding in findings)


def test_players_in_turns_are_not_taken_for_ill() -> None:
    together = replace(in_turns(), parts=evidence(*healthy(loss=np.full(ROWS, 1.39))).parts)
    assert kinds(diagnose(together)) == {"plateau"}
    turns = replace(in_turns().parts, loss_mean=np.full(ROWS, 1.39))
    assert diagnose(replace(in_turns(), parts=turns)) == diagnose(in_turns()) == []


NUMBERS = st.one_of(
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 1.0, 1e-30, 1e30, math.nan, math.inf, -math.inf]),
)
LOSSES = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 5e-324, math.nan, math.inf, -math.inf]))


@given(st.data())
def test_whatever_is_recorded_there_is_an_answer_that_json_can_say(data: st.DataObject) -> None:
    rows, count = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 5))
    measures = data.draw(st.lists(st.sampled_from(MEASURES), unique=True) | st.just(list(MEASURES)))

    def block() -> np.ndarray:
        shape = (rows, count, len(measures))
        drawn = data.draw(arrays.arrays(np.float32, shape, elements=NUMBERS, fill=NUMBERS))
        return np.where(data.draw(arrays.arrays(np.bool_, shape)), NOT_MEASURED, drawn)

    def loss() -> np.ndarray:
        return data.draw(arrays.arrays(np.float64, rows, elements=LOSSES, fill=LOSSES))

    steps = np.cumsum(data.draw(arrays.arrays(np.int64, rows, elements=st.integers(1, 1000))), dtype=np.int64)
    times = np.zeros(rows)
    mean = block()
    parts = Aggregates(steps, steps, steps, times, times, loss(), loss(), loss(), mean, block(), block())
    names = data.draw(st.integers(0, 7))  # of layers: more or fewer than have a column
    layers = [Layer(f"fc{i + 1}", "Linear", {}, data.draw(st.integers(0, 10**9))) for i in range(names)]
    layer = data.draw(st.none() | st.integers(0, 7))
    origins = data.draw(st.sampled_from([(), (Origin(3, "backward", layer, "it"),)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        findings = diagnose(Evidence(layers, measures, parts, origins))
    for finding in findings:
        told = json.loads(json.dumps(finding.to_json(), allow_nan=False))
        assert told["kind"] in FINDINGS and told["remedies"]
        assert str(finding)


def test_the_diagnosis_needs_numpy_and_the_standard_library_only() -> None:
    import sys

    bare = loaded_after("import numpy, sqlite3, json")
    loaded = loaded_after(import_all("gradtui.diagnosis"))
    assert loaded - bare - set(sys.stdlib_module_names) <= {"gradtui"}
