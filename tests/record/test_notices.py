"""What a run says by itself the moment it happens."""

from __future__ import annotations

import numpy as np

from gradtui.measures import MEASURES
from gradtui.record.notices import MOST_EVENTS, Notices
from gradtui.runfile import NOT_MEASURED


def block(*gradients):
    """Rows of gradient norms [rows, layers] as [rows, layers, measures]; the rest not measured."""
    rows = np.full((len(gradients), len(gradients[0]), len(MEASURES)), NOT_MEASURED, np.float32)
    rows[:, :, 2] = gradients
    return rows


def test_nothing_is_said_of_what_was_not_measured_or_is_well():
    assert Notices(["a", "b"])([1, 2], block([NOT_MEASURED, 1.0], [1e-30, 1e30])) == []


def test_the_first_nan_is_told_once_with_all_its_layers():
    notices = Notices(["fc1", "fc2", "fc3"])
    found = notices([7, 8], block([1, np.nan, np.inf], [np.nan, np.nan, np.nan]))
    assert found == [
        (7, "nonfinite", "the gradient of fc2, fc3 is NaN or infinite (first in fc3, nearest the output)"),
        (8, "nonfinite", "the gradient of fc1 is NaN"),
    ]
    assert notices([9], block([np.nan] * 3)) == []


def test_an_exact_zero_is_told():
    (notice,) = Notices(["fc1", "fc2", "fc3"])([1], block([0, 0, 1]))
    assert notice[:2] == (1, "zero")
    assert notice[2].startswith("the gradient of fc1, fc2 is exactly 0: their units are saturated or cut off")


def test_many_layers_are_counted_and_events_are_few():
    notices = Notices([f"fc{i}" for i in range(100)])
    (notice,) = notices([1], block([0.0] * 100))
    assert "fc0, fc1, fc2, fc3 and 96 more" in notice[2]
    notices = Notices()
    rows = np.ones((100, 100), np.float32)
    rows[np.arange(100), np.arange(100)] = np.nan
    assert len(notices(range(100), block(*rows))) == MOST_EVENTS
