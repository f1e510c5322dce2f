"""Runs of all kinds are diagnosed, and what is found can be told and stored."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradtui.diagnosis import FINDINGS, Evidence, Finding
from gradtui.diagnosis import find as diagnose
from gradtui.runfile import NOT_MEASURED, Layer
from gradtui.runfile.blocks import Aggregates
from gradtui.runfile.schema import Origin
from tests.diagnosis.made_up import FLAT, MEASURES, ROWS, evidence, healthy, kinds, only, put
from tests.test_imports import import_all, loaded_after


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
        evidence(*healthy(rows=2)),
        aggregates=replace(evidence(*healthy(rows=2)).aggregates, last_step=np.array([1, 900])),
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


def test_players_in_turns_have_no_findings() -> None:
    together = replace(in_turns(), aggregates=evidence(*healthy(loss=np.full(ROWS, 1.39))).aggregates)
    assert kinds(diagnose(together)) == {"plateau"}
    turns = replace(in_turns().aggregates, loss_mean=np.full(ROWS, 1.39))
    assert diagnose(replace(in_turns(), aggregates=turns)) == diagnose(in_turns()) == []


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
    optimizers = data.draw(arrays.arrays(np.int64, rows, elements=st.integers(-1, 7)))
    parts = Aggregates(steps, steps, steps, times, times, loss(), loss(), loss(), mean, block(), block(), optimizers)
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
