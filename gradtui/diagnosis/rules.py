"""One rule for each kind of finding: what has to hold in a run's series before it is said."""

from __future__ import annotations

import math

import numpy as np

from gradtui.diagnosis.kinds import KINDS, Finding, Thresholds
from gradtui.diagnosis.series import Series
from gradtui.format import called, factor, percent


def nan(series: Series) -> list[Finding]:
    """The first NaN or ∞: as the recorder saw it begin, or as the rows show it where they know it earlier."""
    broken = series.broken
    rows = broken.any(axis=1) | np.isinf(series.evidence.parts.loss_maximum)
    origins = series.evidence.origins
    if not origins and not rows.any():
        return []
    if origins:
        origin = origins[0]
        # a gradient that was broken in every recorded step up to there is older than the loss that shows it
        before = np.flatnonzero(series.steps < origin.step)
        whole = before[~broken[before].any(axis=1) & series.measured("grad_norm")[before].any(axis=1)]
        earlier = before[before > (whole[-1] if len(whole) else -1)]
        earlier = earlier[broken[earlier].any(axis=1)]
    if origins and not len(earlier):
        layers = [] if origin.layer is None or origin.layer >= len(series.names) else [origin.layer]
        where = "forward pass" if origin.phase == "forward" else "backward pass"
        text = f"first in the {where} of step {origin.step:,}: {origin.what}"
        return [series.finding("nan", layers, origin.step, text, {"step": float(origin.step)})]
    first = int(earlier[0]) if origins else int(np.flatnonzero(rows)[0])
    # backpropagation runs from the output to the input: the last layer met it first
    layers = [int(layer) for layer in np.flatnonzero(broken[first])[-1:]]
    step = int(series.first_steps[first])
    what = "a gradient" if layers else "the loss"
    return [series.finding("nan", layers, step, f"{what} is NaN or infinite", {"step": float(step)})]


def exploding(series: Series, limits: Thresholds) -> list[Finding]:
    """The gradient or the loss grows from step to step; or the gradient from layer to layer, and nothing is learnt."""
    gradient = np.sqrt(np.nansum(series.gradient**2, axis=1))
    gradient[~np.isfinite(series.gradient).any(axis=1)] = np.nan
    known = np.flatnonzero(np.isfinite(gradient))
    losses = series.loss[np.isfinite(series.loss)]
    if not len(known) or not len(losses):
        return []
    values = gradient[known]
    few = max(1, int(limits.begin * len(values)))
    begin = float(np.median(values[:few]))
    growth = float(np.median(values[-few:]) / begin) if begin else math.nan
    last = float(np.median(losses[-max(1, int(limits.begin * len(losses))) :]))
    # an objective without a floor, as of a critic, explodes downwards
    size = abs(last / series.first_loss) if series.first_loss else math.nan
    broke = bool(np.isinf(series.evidence.parts.loss_maximum).any() or series.evidence.origins)
    rises = last > series.first_loss and size > limits.exploding_loss and not series.takes_turns
    if rises or (growth > limits.exploding_growth and (broke or (size > 1 and not series.takes_turns))):
        grows = gradient > begin * math.sqrt(limits.exploding_growth)
        grows |= np.abs(series.loss) > abs(series.first_loss) * math.sqrt(limits.exploding_loss)
        grown = [f"{what} {factor(by)}" for what, by in (("gradient", growth), ("loss", size)) if by > 1]
        text = f"{' and '.join(grown)} what {'it was' if len(grown) == 1 else 'they were'} at first"
        since = series.since(grows, np.isfinite(gradient) | np.isfinite(series.loss))
        return [series.finding("exploding", [], since, text, {"growth": growth, "loss": size})]
    speeds = series.recent(series.per_parameter)
    order = np.flatnonzero(np.isfinite(speeds) & (speeds > 0))
    if len(order) < 3 or series.learns:
        return []
    ratio = np.array([speeds[i] / speeds[order[order > i]].min() for i in order[:-1]])
    ill = order[:-1][ratio > limits.exploding_layers]
    if not len(ill):
        return []
    times = float(ratio.max())
    after = order[order > ill[0]]
    slowest = series.per_parameter[:, after[np.argmin(speeds[after])]]
    first = series.per_parameter[:, ill[0]]
    since = series.since(first > limits.exploding_layers * slowest, np.isfinite(first + slowest))
    text = f"gradient per parameter {factor(times)} that of later layers, and the loss {series.outcome}"
    return [series.finding("exploding", ill.tolist(), since, text, {"ratio": times})]


def vanishing(series: Series, limits: Thresholds) -> list[Finding]:
    """Layers with far less gradient than a later one, that hardly move or are in a net that does not learn."""
    speeds = series.recent(series.per_parameter)
    updates = series.recent(series.update)
    order = np.flatnonzero(np.isfinite(speeds))
    if len(order) < 3:
        return []
    typical = float(np.nanmedian(updates[updates > 0])) if (updates > 0).any() else math.nan
    ill: list[tuple[float, int, int]] = []  # how far below, the layer, and which
    for i, layer in enumerate(order[:-1]):
        fastest = order[i + 1 :][np.argmax(speeds[order[i + 1 :]])]
        ratio = float(speeds[layer] / speeds[fastest]) if speeds[fastest] > 0 else 1.0
        hardly_moves = updates[layer] < limits.vanishing_update * typical
        if ratio < limits.vanishing and (hardly_moves or not series.learns):
            ill.append((ratio, int(layer), int(fastest)))
    if not ill:
        return []
    ratio, layer, fastest = min([one for one in ill if one[0] > 0] or ill)
    slow, fast = series.per_parameter[:, layer], series.per_parameter[:, fastest]
    since = series.since(slow < limits.vanishing * fast, np.isfinite(slow + fast))
    if ratio > 0:
        text = f"gradient per parameter {factor(1 / ratio)} below that of {called(series.names[fastest])}"
        text += ", or exactly 0" if min(ill)[0] == 0 else ""
    else:
        text = f"gradient of exactly 0 beside that of {called(series.names[fastest])}"
    return [series.finding("vanishing", [layer for _, layer, _ in ill], since, text, {"ratio": min(ill)[0]})]


def dead(series: Series, limits: Thresholds) -> list[Finding]:
    """Layers most of whose units are zero on whole batches, more than is usual in this net."""
    dead = series.of("dead")
    now = series.recent(dead)
    found = []
    for layer in np.flatnonzero(now >= limits.dead).tolist():
        others = np.delete(now, layer)
        others = others[np.isfinite(others)]
        usual = float(np.median(others)) if len(others) else 0.0
        if now[layer] >= min(1.0, limits.dead_above_others * usual) or not series.learns:
            found.append(layer)
    if not found:
        return []
    most = float(now[found].max())
    since = series.since(dead[:, found[0]] >= limits.dead, np.isfinite(dead[:, found[0]]))
    text = f"{percent(most)} of the units are zero on whole batches"
    return [series.finding("dead", found, since, text, {"share": most})]


def saturated(series: Series, limits: Thresholds) -> list[Finding]:
    """Layers most of whose outputs are where the activation function is flat, in a net that does not learn.

    Units that begin there hinder all that follows, though the loss may fall; units that come there may have learnt to.
    """
    share = series.of("saturated")
    now, at_first = series.recent(share), series.at_first(share)
    ill = [int(layer) for layer in np.flatnonzero(now >= limits.saturated)]
    if series.learns:
        # the outputs of the last layer are near 0 and 1 where the net is sure of itself
        hinders = series.fall < limits.learnt and not series.takes_turns
        ill = [layer for layer in ill if hinders and at_first[layer] >= limits.saturated and layer < len(now) - 1]
    if not ill:
        return []
    most = float(now[ill].max())
    since = series.since(share[:, ill[0]] >= limits.saturated, np.isfinite(share[:, ill[0]]))
    text = f"{percent(most)} of the outputs lie where the activation function is flat, and the loss {series.outcome}"
    return [series.finding("saturated", ill, since, text, {"share": most})]


def too_large(series: Series, limits: Thresholds) -> list[Finding]:
    """Steps that are large beside the parameters, or have blown these up, in a net that is stuck."""
    if not series.is_stuck:
        return []
    typical = series.typical_update()
    known = np.flatnonzero(np.isfinite(typical))
    if not len(known):
        return []
    few = max(3, math.ceil(limits.recent * len(known)))
    at_first, now = (float(np.median(typical[part])) for part in (known[:few], known[-few:]))
    growth = series.growth_of_parameters()
    numbers = {"update_ratio": max(at_first, now), "growth": growth}
    if max(at_first, now) > limits.too_large:
        since = series.since(typical > limits.too_large, np.isfinite(typical))
        most = max(at_first, now)
        text = f"a step is {percent(most) if most < 10 else factor(most)} as long as the parameters"
    elif growth > limits.too_large_growth:
        since = int(series.first_steps[0])
        text = f"the parameters have grown {factor(growth)}"
    else:
        return []
    since = int(series.first_steps[0]) if now <= limits.too_large else since
    return [series.finding("update-too-large", [], since, f"{text}, and the loss {series.outcome}", numbers)]


def too_small(series: Series, limits: Thresholds) -> list[Finding]:
    """Steps that all together cannot have changed the parameters, in a net that does not learn."""
    updates = series.recent(series.update)
    known = updates[np.isfinite(updates)]
    if not len(known) or series.learns or not (known > 0).any():
        return []
    if np.nanmax(series.typical_update()) >= limits.too_small:
        return []  # a single step has changed them by more
    typical, fastest = float(np.median(known)), float(known.max())
    moved = typical * series.span
    if series.span < limits.patience or moved >= limits.too_small or fastest * series.span >= limits.too_small_fastest:
        return []
    changed = f"{series.span:,} steps change the parameters by at most {percent(moved)}"
    text = f"{changed}, at ‖Δθ‖/‖θ‖ = {typical:.1e} a step"
    numbers = {"update_ratio": typical, "moved": moved}
    return [series.finding("update-too-small", [], int(series.first_steps[0]), text, numbers)]


def still(series: Series, limits: Thresholds) -> list[Finding]:
    """Layers that do not move, by cause; one that needs no gradient is a note."""
    moved = series.measured("update_ratio")
    gradient = series.measured("grad_norm")
    anything = series.measured("param_norm").any(axis=1)
    updates = series.recent(series.update)
    if not anything.any() or not (updates > 0).any():
        return []
    window = np.flatnonzero(anything)[-max(3, int(anything.sum() * limits.recent)) :]
    later = slice(int(window[0]), None)
    norms = series.of("param_norm")
    by_cause: dict[str, list[int]] = {}
    for layer in range(len(series.names)):
        if not moved[window, layer].any():
            if not gradient[later, layer].any():
                by_cause.setdefault("frozen", []).append(layer)
        elif not updates[layer] > 0:
            values = series.gradient[later, layer]
            tiny = series.recent(series.gradient)[layer] < limits.negligible * series.recent(norms)[layer]
            if not gradient[later, layer].any():
                cause = "detached"
            else:
                cause = "zero" if not values.any() else "rounded" if tiny else "forgotten"
            by_cause.setdefault(cause, []).append(layer)
    words: dict[str, str] = {
        "frozen": "no gradient asked for (requires_grad is False), so the parameters stay as they are",
        "detached": "no gradient: detached, or not used in the forward pass",
        "zero": "a gradient of exactly 0",
        "rounded": "a gradient so small beside the parameters that rounding undoes each step",
        "forgotten": "a gradient, but no step: not in the optimizer, or at a rate of 0",
    }
    remedies: dict[str, tuple[str, ...]] = {
        "frozen": ("requires_grad_(True), if it is to learn",),
        "detached": ("no detach, no_grad or .data between it and the loss",),
        "zero": ("a look at its activations: dead or saturated units",),
        "rounded": KINDS["vanishing"].remedies,
        "forgotten": ("its parameters in the optimizer",),
    }
    found = []
    for cause, layers in by_cause.items():
        since = series.since(~(series.update[:, layers[0]] > 0), np.ones(len(series), np.bool_))
        found.append(
            series.finding(
                "not-updating", layers, since, words[cause], {"layers": float(len(layers))},
                remedies=remedies[cause], note=cause == "frozen",
            )
        )  # fmt: skip
    return found


def plateau(series: Series, limits: Thresholds) -> list[Finding]:
    """The loss is where it began, does not fall, and has never been lower."""
    losses = series.loss[np.isfinite(series.loss)]
    if len(losses) < limits.plateau_rows or series.span < limits.patience:
        return []
    if series.learns or series.falls or not abs(series.fall) < limits.plateau:
        return []
    best = float(np.median(np.sort(losses)[: max(3, int(limits.exceptions * len(losses)))]))
    if (series.first_loss - best) > limits.plateau_lower * abs(series.first_loss):
        return []  # it has been lower: it does not stand still
    text = f"the loss is {series.last_loss:.4g}, and was {series.first_loss:.4g} at first"
    numbers = {"first": series.first_loss, "last": series.last_loss}
    return [series.finding("plateau", [], int(series.first_steps[0]), text, numbers)]


RULES = (vanishing, dead, saturated, too_large, too_small, still, plateau)
