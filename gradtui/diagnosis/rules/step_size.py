"""Steps that are too large or too small beside the parameters, and layers that take none."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradtui.diagnosis.kinds import Finding, Thresholds, finding
from gradtui.diagnosis.series import Mask, Rows, Series
from gradtui.format import factor, percent

# why a layer does not move -> in words, and what may help
CAUSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "frozen": ("no gradient asked for (requires_grad is False), so the parameters stay as they are", ("unfreeze",)),
    "detached": ("no gradient: detached, or not used in the forward pass", ("attach",)),
    "zero": ("a gradient of exactly 0", ("leaky-relu", "smaller-init", "batch-norm")),
    "rounded": (
        "a gradient so small beside the parameters that rounding undoes each step",
        ("relu", "he", "batch-norm", "residual", "rbm", "lstm"),
    ),
    "forgotten": ("a gradient, but no step: not in the optimizer, or at a rate of 0", ("add-to-optimizer",)),
}


@finding(
    "update-too-large",
    meaning="steps are so large, beside the parameters, that they undo each other",
    remedies=("lower-rate", "warm-up", "clip-norm"),
    thresholds={
        "too_large": (0.1, "the net's median update ratio, at first or now"),
        "too_large_growth": (12.0, "the norm of the parameters over what it was at first"),
    },
    order=30,
)
def update_too_large(series: Series, limits: Thresholds) -> Iterator[Finding]:
    """Steps that are large beside the parameters, or have blown these up, in a net that is stuck."""
    typical = series.typical_update()
    known = np.flatnonzero(np.isfinite(typical))
    if not series.is_stuck or not len(known):
        return
    few = max(3, math.ceil(limits.recent * len(known)))
    at_first, now = (float(np.median(typical[rows])) for rows in (known[:few], known[-few:]))
    most, growth = max(at_first, now), series.growth_of_parameters()
    if most > limits.too_large:
        text = f"a step is {percent(most) if most < 10 else factor(most)} as long as the parameters"
    elif growth > limits.too_large_growth:
        text = f"the parameters have grown {factor(growth)}"
    else:
        return
    since = int(series.first_steps[0])
    if now > limits.too_large:
        since = series.since(typical > limits.too_large, np.isfinite(typical))
    numbers = {"update_ratio": most, "growth": growth}
    yield series.finding("update-too-large", [], since, f"{text}, and the loss {series.outcome}", numbers)


@finding(
    "update-too-small",
    meaning="steps are so small, beside the parameters, that nothing changes",
    remedies=("higher-rate",),
    thresholds={
        "too_small": (
            0.01,
            "the share by which the parameters can have changed in all steps so far: the median of the layers",
        ),
        "too_small_fastest": (
            0.1,
            "the same of the layer that moves most; if it moves by more, the others have another reason not to",
        ),
    },
    order=70,
)
def update_too_small(series: Series, limits: Thresholds) -> Iterator[Finding]:
    """Steps that all together cannot have changed the parameters, in a net that does not learn."""
    updates = series.recent(series.update)
    known = updates[np.isfinite(updates)]
    if series.learns or series.span < limits.patience or not (known > 0).any():
        return
    if np.nanmax(series.typical_update()) >= limits.too_small:
        return  # a single step has changed them by more
    typical, fastest = float(np.median(known)), float(known.max())
    moved = typical * series.span
    if moved >= limits.too_small or fastest * series.span >= limits.too_small_fastest:
        return
    changed = f"{series.span:,} steps change the parameters by at most {percent(moved)}"
    text = f"{changed}, at ‖Δθ‖/‖θ‖ = {typical:.1e} a step"
    numbers = {"update_ratio": typical, "moved": moved}
    yield series.finding("update-too-small", [], int(series.first_steps[0]), text, numbers)


@finding(
    "not-updating",
    meaning="a layer does not move while others do",
    remedies=("add-to-optimizer", "unfreeze", "attach"),
    thresholds={"negligible": (1e-6, "a layer's gradient over its parameters, where rounding undoes its steps")},
    order=80,
)
def not_updating(series: Series, limits: Thresholds) -> Iterator[Finding]:
    """Layers that do not move, by cause; one that needs no gradient is a note."""
    for cause, layers in _by_cause(series, limits).items():
        words, remedies = CAUSES[cause]
        since = series.since(~(series.update[:, layers[0]] > 0), series.own_rows(layers[0]))
        numbers = {"layers": float(len(layers))}
        note = cause == "frozen"
        yield series.finding("not-updating", layers, since, words, numbers, remedies=remedies, note=note)


def _by_cause(series: Series, limits: Thresholds) -> dict[str, list[int]]:
    """The layers that do not move, by why: names of `CAUSES`. Only steps of their own optimizers tell of it."""
    moved = series.measured("update_ratio")
    gradient = series.measured("grad_norm")
    with_updates: Mask = np.asarray(series.measured("param_norm").any(axis=1))
    updates = series.recent(series.update)
    found: dict[str, list[int]] = {}
    if not (updates > 0).any():
        return found
    windows: dict[int, Rows] = {}  # by the optimizers of a layer
    tiny = series.recent(series.gradient) < limits.negligible * series.recent(series.of("param_norm"))
    for layer, optimizers in enumerate(series.paths.optimizers):
        if optimizers not in windows:
            windows[optimizers] = _window(series, layer, with_updates, limits)
        window = windows[optimizers]
        if not len(window):
            continue
        later = slice(int(window[0]), None)
        has_gradient = gradient[later, layer].any()
        if not moved[window, layer].any():
            cause = "" if has_gradient else "frozen"
        elif updates[layer] > 0:
            cause = ""
        elif not has_gradient:
            cause = "detached"
        else:
            values = series.gradient[later, layer]
            cause = "zero" if not values.any() else "rounded" if tiny[layer] else "forgotten"
        if cause:
            found.setdefault(cause, []).append(layer)
    return found


def _window(series: Series, layer: int, with_updates: Mask, limits: Thresholds) -> Rows:
    """The newest buckets in which it shows whether a layer moves; none if it was measured too seldom."""
    own = series.own_rows(layer)
    if own.sum() < limits.least_rows:
        return np.empty(0, np.intp)
    # where all that an optimizer has is frozen, there is never an update
    rows = np.flatnonzero(own & with_updates) if (own & with_updates).any() else np.flatnonzero(own)
    return rows[-max(3, int(len(rows) * limits.recent)) :]
