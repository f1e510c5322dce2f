"""Anybody's finding: registered in one place, found, listed last, and left out where its rule fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradtui import errors
from gradtui.diagnosis import FINDINGS, Finding, Series, Thresholds, find, finding, kinds_in_order
from gradtui.errors import UsageError
from gradtui.report import report
from tests.diagnosis.made_up import FLAT, evidence, healthy
from tests.record.watched_nets import perceptron, train, watch_into


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ours = set(FINDINGS)
    monkeypatch.setattr(errors, "_said", set())
    yield
    for name in set(FINDINGS) - ours:
        FINDINGS.unregister(name)


def noisy(series: Series, limits: Thresholds) -> Iterator[Finding]:
    spread = float(np.nanstd(series.loss))
    if spread > limits.noise:
        yield series.finding("noisy", [0], 3, "the loss jumps", {"std": spread})


def test_a_finding_of_ones_own_is_found_with_its_remedies_and_threshold() -> None:
    finding("noisy", meaning="the loss jumps", remedies=("lower-rate",), thresholds={"noise": (0.001, "std")})(noisy)
    found = find(evidence(healthy()[0], FLAT))
    assert [one.kind for one in found] == ["plateau", "noisy"], "unknown kinds come last"
    assert (found[-1].layers, found[-1].remedies, found[-1].note) == (("fc1",), ("lower-rate",), False)
    assert Thresholds().noise == 0.001 and "noisy" not in {
        one.kind for one in find(evidence(healthy()[0], FLAT), Thresholds(noise=1.0))
    }
    assert kinds_in_order()[-1].name == "noisy"


def test_its_order_its_note_and_what_it_hides_are_given_with_it() -> None:
    finding("noisy", meaning="m", thresholds={"noise": 0.001}, order=1, note=True, hides=("plateau",))(noisy)
    found = find(evidence(healthy()[0], FLAT))
    assert [(one.kind, one.note) for one in found] == [("noisy", True)]
    assert kinds_in_order()[0].name == "noisy"


def test_one_of_a_few_steps_is_found_early_only_if_it_asks_to_be() -> None:
    few = evidence(healthy(10)[0], FLAT[:10])
    finding("noisy", meaning="m", thresholds={"noise": 0.001})(noisy)
    assert find(few) == []
    finding("noisy", meaning="m", thresholds={"noise": 0.001}, early=True)(noisy)
    assert [one.kind for one in find(few)] == ["noisy"]


def test_thresholds_made_before_a_finding_have_its_default() -> None:
    limits = Thresholds()
    finding("noisy", meaning="m", thresholds={"noise": 0.001})(noisy)
    assert limits.noise == 0.001
    assert "noisy" in {one.kind for one in find(evidence(healthy()[0], FLAT), limits)}


def test_a_name_that_is_taken_is_refused() -> None:
    for kind, thresholds in (("dead", {}), ("noisy", {"dead": 0.5}), ("noisy", {"patience": 7})):
        with pytest.raises(UsageError, match="already"):
            finding(kind, meaning="m", thresholds=thresholds)(noisy)
    assert "noisy" not in FINDINGS


def raises(series: Series, limits: Thresholds) -> Iterator[Finding]:
    yield series.finding("odd", [0], 1, "found", {})
    raise RuntimeError("of somebody's")


WRONG: dict[str, Callable[[Series, Thresholds], Any]] = {
    "raises": raises,
    "raises at once": lambda series, limits: 1 / 0,
    "is no iterable": lambda series, limits: 5,
    "gives a text": lambda series, limits: ["odd"],
    "is of another kind": lambda series, limits: [Finding("dead", ("a",), 1, "e")],
    "layers are numbers": lambda series, limits: [Finding("odd", (1, 2), 1, "e")],  # type: ignore[arg-type]
    "layers are a text": lambda series, limits: [Finding("odd", "fc1", 1, "e")],  # type: ignore[arg-type]
    "begins at a text": lambda series, limits: [Finding("odd", (), "one", "e")],  # type: ignore[arg-type]
    "numbers are a list": lambda series, limits: [Finding("odd", (), 1, "e", [1.0])],  # type: ignore[arg-type]
    "numbers are texts": lambda series, limits: [Finding("odd", (), 1, "e", {"x": "1"})],  # type: ignore[dict-item]
    "no evidence": lambda series, limits: [Finding("odd", (), 1, None)],  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_a_rule_that_fails_is_said_once_and_left_out(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    finding("odd", meaning="m")(WRONG[name])
    run = evidence(healthy()[0], FLAT)
    for _ in range(3):
        assert [one.kind for one in find(run)] == ["plateau"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gradtui: findings of the kind 'odd' are left out: its rule fails (")


def test_lists_and_numbers_of_numpy_are_taken_as_they_are_meant() -> None:
    given = Finding("odd", ["fc1"], np.int64(3), "e", {"x": np.float32(0.5)})  # type: ignore[arg-type]
    finding("odd", meaning="m", remedies=("he",))(lambda series, limits: [given])
    one = find(evidence(healthy()[0], FLAT))[-1]
    assert one == Finding("odd", ("fc1",), 3, "e", {"x": 0.5}, ("he",)) and type(one.begin) is int


def test_a_rule_that_fails_ends_neither_a_training_nor_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finding("odd", meaning="m", early=True)(raises)
    model = perceptron(6, 5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch_into(model, optimizer, tmp_path / "r.gradtui", every=1) as recorder:
        train(model, optimizer, steps=30)
    assert "odd" in capsys.readouterr().err
    assert recorder.path is not None and "30 steps" in report(recorder.path, as_json=False, terminal=False)


def test_a_cell_of_a_notebook_may_run_again() -> None:
    for default in (0.5, 0.001):

        @finding("noisy", meaning="m", thresholds={"noise": default})
        def again(series: Series, limits: Thresholds) -> Iterator[Finding]:
            yield from noisy(series, limits)

    assert Thresholds().noise == 0.001
