"""Gradients that grow, shrink or are exactly 0, from layer to layer or from step to step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradtui.diagnosis.kinds import Finding, Thresholds, finding
from gradtui.diagnosis.series import Series
from gradtui.format import called, factor
from gradtui.runfile.blocks import DoubleArray


@finding(
    "exploding",
    meaning="gradients grow from layer to layer, or from step to step, until nothing is learnt",
    remedies=("clip-norm", "lower-rate", "he", "xavier", "batch-norm", "lstm"),
    thresholds={
        "exploding_layers": (100.0, "a layer's gradient per parameter over that of the slowest later one"),
        "exploding_growth": (100.0, "the gradient of the net over its own past"),
        "exploding_loss": (10.0, "the loss over its first value"),
    },
    order=20,
    early=True,
    hides=("vanishing",),  # on the way to ∞ one layer leaves the others far behind
)
def exploding(series: Series, limits: Thresholds) -> Iterator[Finding]:
    """The gradient or the loss grows from step to step; or the gradient from layer to layer, and nothing is learnt."""
    grown_most = _growth(series, limits)
    losses = series.loss[np.isfinite(series.loss)]
    if len(series) < limits.least_rows or grown_most is None or not len(losses):
        return
    growth, begin, gradient = grown_most
    last = float(np.median(losses[-max(1, int(limits.begin * len(losses))) :]))
    # an objective without a floor, as of a critic, explodes downwards
    size = abs(last / series.first_loss) if series.first_loss else math.nan
    broke = bool(np.isinf(series.evidence.aggregates.loss_maximum).any() or series.evidence.origins)
    rises = last > series.first_loss and size > limits.exploding_loss and not series.takes_turns
    if rises or (growth > limits.exploding_growth and (broke or (size > 1 and not series.takes_turns))):
        grows = gradient > begin * math.sqrt(limits.exploding_growth)
        grows |= np.abs(series.loss) > abs(series.first_loss) * math.sqrt(limits.exploding_loss)
        grown = [f"{what} {factor(by)}" for what, by in (("gradient", growth), ("loss", size)) if by > 1]
        text = f"{' and '.join(grown)} what {'it was' if len(grown) == 1 else 'they were'} at first"
        since = series.since(grows, np.isfinite(gradient) | np.isfinite(series.loss))
        yield series.finding("exploding", [], since, text, {"growth": growth, "loss": size})
    elif not series.learns:
        yield from _from_layer_to_layer(series, limits)


def _growth(series: Series, limits: Thresholds) -> tuple[float, float, DoubleArray] | None:
    """What has grown most: how much, from what, and the gradient of the net [buckets].

    The layers of each optimizer by themselves: of those that take turns, each has rows of its own.
    """
    found = None
    for layers in series.paths.by_optimizer():
        gradients = series.gradient[:, layers]
        gradient = np.sqrt(np.nansum(gradients**2, axis=1))
        gradient[~np.isfinite(gradients).any(axis=1)] = np.nan
        values = gradient[np.isfinite(gradient)]
        if not len(values):
            continue
        few = max(1, int(limits.begin * len(values)))
        begin = float(np.median(values[:few]))
        growth = float(np.median(values[-few:]) / begin) if begin else math.nan
        if found is None or growth > found[0] or math.isnan(found[0]):
            found = growth, begin, gradient
    return found


def _from_layer_to_layer(series: Series, limits: Thresholds) -> Iterator[Finding]:
    speeds = series.recent(series.per_parameter)
    order = np.flatnonzero(np.isfinite(speeds) & (speeds > 0))
    if len(order) < 3:
        return
    later = [series.paths.among(int(i), order[n:]) for n, i in enumerate(order, 1)]
    slowest_later = np.array([speeds[after].min() if len(after) else np.inf for after in later])
    ratio = speeds[order] / slowest_later
    flagged = order[ratio > limits.exploding_layers]
    if not len(flagged):
        return
    times = float(ratio.max())
    after = series.paths.among(int(flagged[0]), order[order > flagged[0]])
    slowest = series.per_parameter[:, after[np.argmin(speeds[after])]]
    first = series.per_parameter[:, flagged[0]]
    since = series.since(first > limits.exploding_layers * slowest, np.isfinite(first + slowest))
    text = f"gradient per parameter {factor(times)} that of later layers, and the loss {series.outcome}"
    yield series.finding("exploding", flagged.tolist(), since, text, {"ratio": times})


@finding(
    "vanishing",
    meaning="the gradient shrinks on its way back, so that the first layers hardly learn",
    remedies=("relu", "he", "batch-norm", "residual", "rbm", "lstm"),
    thresholds={
        "vanishing": (5e-3, "a layer's gradient per parameter over that of the fastest later layer"),
        "vanishing_update": (0.02, "its update ratio over the median of the layers, where the loss falls nevertheless"),
    },
    order=60,
)
def vanishing(series: Series, limits: Thresholds) -> Iterator[Finding]:
    """Layers with far less gradient than a later one, that hardly move or are in a net that does not learn."""
    flagged = _vanished(series, limits)
    if not flagged:
        return
    ratio, layer, fastest = min([one for one in flagged if one[0] > 0] or flagged)
    slow, fast = series.per_parameter[:, layer], series.per_parameter[:, fastest]
    since = series.since(slow < limits.vanishing * fast, np.isfinite(slow + fast))
    if ratio > 0:
        text = f"gradient per parameter {factor(1 / ratio)} below that of {called(series.names[fastest])}"
        text += ", or exactly 0" if min(flagged)[0] == 0 else ""
    else:
        text = f"gradient of exactly 0 beside that of {called(series.names[fastest])}"
    layers = [layer for _, layer, _ in flagged]
    yield series.finding("vanishing", layers, since, text, {"ratio": min(flagged)[0]})


def _vanished(series: Series, limits: Thresholds) -> list[tuple[float, int, int]]:
    """How far below, the layer that is, and below which one."""
    speeds = series.recent(series.per_parameter)
    updates = series.recent(series.update)
    order = np.flatnonzero(np.isfinite(speeds))
    if len(order) < 3:
        return []
    moving = np.flatnonzero(updates > 0)
    typical_beside: dict[bytes, float] = {}
    flagged = []
    for i, layer in enumerate(order[:-1]):
        later = series.paths.among(layer, order[i + 1 :])
        if not len(later):
            continue
        fastest = later[np.argmax(speeds[later])]
        ratio = float(speeds[layer] / speeds[fastest]) if speeds[fastest] > 0 else 1.0
        if ratio >= limits.vanishing:
            continue
        beside = series.paths.among(layer, moving)
        key = beside.tobytes()
        if key not in typical_beside:
            typical_beside[key] = float(np.median(updates[beside])) if len(beside) else math.nan
        hardly_moves = updates[layer] < limits.vanishing_update * typical_beside[key]
        if hardly_moves or not series.learns:
            flagged.append((ratio, int(layer), int(fastest)))
    return flagged


@finding(
    "zero-gradient",
    meaning="the gradient of a layer is exactly 0",
    remedies=("smaller-init", "leaky-relu", "batch-norm"),
    note=True,
    order=110,
    early=True,
)
def zero_gradient(series: Series, limits: Thresholds) -> Iterator[Finding]:
    """Layers whose recent gradients are exactly 0, where no other finding says so."""
    gradient = series.recent(series.gradient)
    updates = series.recent(series.update)
    # a layer that does not move while others do is not updating; one beside layers with a gradient is vanishing
    known = {layer for _, layer, _ in _vanished(series, limits)}
    known |= set(np.flatnonzero(updates == 0).tolist()) if (updates > 0).any() else set()
    flagged = [layer for layer in np.flatnonzero(gradient == 0).tolist() if layer not in known]
    if flagged:
        values = series.gradient[:, flagged[0]]
        its = "its units are" if len(flagged) == 1 else "their units are"
        text = f"a gradient of exactly 0: {its} saturated or cut off, or the values are too small for the number format"
        since = series.since(values == 0, np.isfinite(values))
        yield series.finding("zero-gradient", flagged, since, text, {"layers": float(len(flagged))})
