"""When a step is measured."""

from __future__ import annotations

import pytest

from gradtui.record.budget import Budget, Sampling
from gradtui.record.header import script_name


def test_what_cost_c_is_not_due_for_c_over_the_share():
    budget = Budget(0.01)
    budget.spent(0.002, now=10.0)
    assert budget.next_at == pytest.approx(10.2)


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (Sampling(None, 0.01), "within 1 % of the step time"),
        (Sampling(None, 0.005, 10), "within 0.5 % of the step time; update ratio every 10 steps"),
        (Sampling(1, 0.01), "every step; update ratio within 1 % of the step time"),
        (Sampling(5, 0.01, 50), "every 5 steps; update ratio every 50 steps"),
    ],
)
def test_the_sampling_is_said_in_words(sampling, words):
    assert str(sampling) == words


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["/home/me/train.py", "--lr", "1"], "train"),
        (["/home/me/pkg/__main__.py"], "pkg"),
        (["-c"], "training"),
        ([""], "training"),
        ([], "training"),
        (["/x/ipykernel_launcher.py"], "notebook"),
    ],
)
def test_a_run_is_named_after_its_script(arguments, name):
    assert script_name(arguments) == name
