"""Losses that do not fall."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradtui.diagnosis.kinds import Finding, Thresholds, finding
from gradtui.diagnosis.series import Series


@finding(
    "plateau",
    meaning="the loss stays near where it began",
    remedies=("lower-rate", "higher-rate", "he", "xavier", "check-labels", "momentum", "adam"),
    thresholds={
        "plateau": (0.03, "share of its first value within which a loss counts as unchanged"),
        "plateau_lower": (0.1, "the same, below its first value, that such a loss has never been"),
        "plateau_rows": (10, "recorded steps before it is reported of a loss"),
    },
    order=90,
)
def plateau(series: Series, limits: Thresholds) -> Iterator[Finding]:
    """The loss is where it began, does not fall, and has never been lower."""
    losses = series.loss[np.isfinite(series.loss)]
    if len(losses) < limits.plateau_rows or series.span < limits.patience:
        return
    if series.learns or series.falls or not abs(series.fall) < limits.plateau:
        return
    best = float(np.median(np.sort(losses)[: max(3, int(limits.exceptions * len(losses)))]))
    if (series.first_loss - best) > limits.plateau_lower * abs(series.first_loss):
        return  # it has been lower
    text = f"the loss is {series.last_loss:.4g}, and was {series.first_loss:.4g} at first"
    numbers = {"first": series.first_loss, "last": series.last_loss}
    yield series.finding("plateau", [], int(series.first_steps[0]), text, numbers)
