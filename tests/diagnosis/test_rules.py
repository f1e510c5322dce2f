"""What each rule finds in a run, from which step on, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradtui.diagnosis import FINDINGS, Kind, Thresholds
from gradtui.diagnosis import find as diagnose
from gradtui.diagnosis.rules.step_size import CAUSES
from gradtui.remedies import REMEDIES
from gradtui.runfile import NOT_MEASURED
from gradtui.runfile.schema import Origin
from tests.diagnosis.made_up import FALLING, FLAT, MEASURES, ROWS, evidence, healthy, kinds, only, put

LIMITS = Thresholds()


def test_nothing_is_said_of_a_net_that_learns() -> None:
    assert diagnose(evidence(*healthy())) == []


def test_nothing_is_said_of_a_net_whose_loss_is_at_its_floor() -> None:
    loss = np.concatenate([np.geomspace(2.3, 0.1, 30), 0.1 + 0.01 * np.sin(np.arange(70))])
    block, _ = healthy()
    put(block, "saturated", 0.7, [0, 1])
    assert diagnose(evidence(block, loss)) == []


def test_every_kind_has_a_meaning_and_remedies_of_the_table() -> None:
    assert len(FINDINGS) == 10
    assert all(isinstance(kind, Kind) and kind.meaning and kind.remedies for kind in FINDINGS.values())
    named = {name for kind in FINDINGS.values() for name in kind.remedies}
    named |= {name for _, remedies in CAUSES.values() for name in remedies}
    assert named <= set(REMEDIES)


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


def test_without_an_origin_a_broken_loss_of_whole_parameters_is_of_the_forward_pass() -> None:
    block, loss = healthy()
    loss[40:] = np.nan
    put(block, "grad_norm", np.nan, since=41)
    put(block, "param_norm", np.nan, since=42)
    found = only(diagnose(evidence(block, loss)), "nan")
    assert (found.layers, found.begin) == ((), 41)
    assert "forward pass of step 41" in found.evidence


def test_a_step_with_whole_gradients_did_not_break_in_its_backward_pass() -> None:
    block, loss = healthy()
    loss[50:] = np.nan
    put(block, "grad_norm", np.nan, since=51)
    told = Origin(50, "backward", 3, "its gradient was NaN or infinite")
    found = only(diagnose(evidence(block, loss, [told])), "nan")
    assert (found.layers, found.begin) == (("fc4",), 50)
    assert found.evidence.startswith("first in the optimizer's step 50: its parameters became NaN")


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
    rows = evidence(*healthy(few, loss=FLAT[:few])).aggregates
    assert diagnose(replace(evidence(block, FLAT), aggregates=replace(rows, last_step=100 * rows.last_step))) == []


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


def test_a_layer_that_stopped_does_not_update_from_there_on() -> None:
    block, loss = healthy()
    put(block, "update_ratio", 0.0, 2, since=41)
    assert 35 <= only(diagnose(evidence(block, loss)), "not-updating").begin <= 41
