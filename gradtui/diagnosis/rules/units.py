"""Outputs of layers: units that are dead or saturated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradtui.diagnosis.kinds import Finding, Thresholds, finding
from gradtui.diagnosis.series import Series
from gradtui.format import percent


@finding(
    "dead",
    meaning="most units of a layer are zero on the whole batch, and get no gradient",
    remedies=("lower-rate", "leaky-relu", "elu", "he", "batch-norm"),
    thresholds={
        "dead": (0.7, "share of a layer's units that are zero on whole batches"),
        "dead_above_others": (2.0, "the same over the median of the other layers' share"),
    },
    order=40,
)
def dead(series: Series, limits: Thresholds) -> Iterator[Finding]:
    """Layers most of whose units are zero on whole batches, more than is usual in this net."""
    share = series.of("dead")
    now = series.recent(share)
    flagged = []
    for layer in np.flatnonzero(now >= limits.dead).tolist():
        others = np.delete(now, layer)
        others = others[np.isfinite(others)]
        usual = float(np.median(others)) if len(others) else 0.0
        if now[layer] >= min(1.0, limits.dead_above_others * usual) or not series.learns:
            flagged.append(layer)
    if flagged:
        most = float(now[flagged].max())
        since = series.since(share[:, flagged[0]] >= limits.dead, np.isfinite(share[:, flagged[0]]))
        text = f"{percent(most)} of the units are zero on whole batches"
        yield series.finding("dead", flagged, since, text, {"share": most})


@finding(
    "saturated",
    meaning="most outputs lie where the activation function is flat",
    remedies=("smaller-init", "batch-norm", "relu", "inputs-standardised", "cross-entropy"),
    thresholds={"saturated": (0.6, "share of a layer's outputs where the activation function is flat")},
    order=50,
)
def saturated(series: Series, limits: Thresholds) -> Iterator[Finding]:
    """Layers most of whose outputs are where the activation function is flat, in a net that does not learn.

    Units that begin there hinder all that follows, though the loss may fall; units that come there may have learnt to.
    """
    share = series.of("saturated")
    now, at_first = series.recent(share), series.at_first(share)
    flagged = [int(layer) for layer in np.flatnonzero(now >= limits.saturated)]
    if series.learns:
        # the outputs of the last layer are near 0 and 1 where the net is sure of itself
        hinders = series.fall < limits.learnt and not series.takes_turns
        flagged = [one for one in flagged if hinders and at_first[one] >= limits.saturated and one < len(now) - 1]
    if flagged:
        most = float(now[flagged].max())
        since = series.since(share[:, flagged[0]] >= limits.saturated, np.isfinite(share[:, flagged[0]]))
        flat = "lie where the activation function is flat"
        text = f"{percent(most)} of the outputs {flat}, and the loss {series.outcome}"
        yield series.finding("saturated", flagged, since, text, {"share": most})
