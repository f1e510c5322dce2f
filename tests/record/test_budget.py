"""When a step is measured."""

from __future__ import annotations

import pytest

from gradtui.options import RecordOptions
from gradtui.record.budget import Budget
from gradtui.record.header import script_name


def test_what_cost_c_is_not_due_for_c_over_the_share():
    budget = Budget(0.01)
    budget.spent(0.002, now=10.0)
    assert budget.next_at == pytest.approx(10.2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (RecordOptions(), "within 1 % of the step time"),
        (RecordOptions(budget=0.005, update_every=10), "within 0.5 % of the step time; update ratio every 10 steps"),
        (RecordOptions(every=1), "every step; update ratio within 1 % of the step time"),
        (RecordOptions(every=5, update_every=50), "every 5 steps; update ratio every 50 steps"),
    ],
)
def test_the_options_say_in_words_when_is_measured(options, words):
    assert str(options) == words


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
