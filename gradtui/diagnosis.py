"""Measures over time in, findings out: why a net, or a layer of it, does not learn. Pure numpy.

All thresholds are relative: to the other layers, to the layer's own past, to whether the loss gets better. What is a
sign of illness where the loss stands still may be harmless where it falls, so most findings ask for both; fixed
absolute thresholds made DeepDiagnosis flag 36 % of healthy models (Wardat et al., ICSE 2022; the same kinds of trouble
in AutoTrainer, Zhang et al., ICSE 2021, and UMLAUT, Schoop et al., CHI 2021). The numbers in `Thresholds` were set on
one half of the nets of `benchmarks/diagnosis.py`; that file says how they do on the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtui.runfile.blocks import DoubleArray, Envelope, FloatArray, is_measured
from gradtui.runfile.schema import Layer, Origin
from gradtui.wording import factor, listed, percent

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Kind:
    """One kind of finding: what it is called, what it means, and which remedies fit (`gradtui remedies` has them)."""

    name: str
    meaning: str
    remedies: tuple[str, ...]


_TABLE = (
    Kind(
        "nan",
        "a NaN or an infinity appeared",
        ("a smaller learning rate", "clipping", "an ε in logarithms, roots and divisions", "a look at the data"),
    ),
    Kind(
        "exploding",
        "gradients grow from layer to layer, or from step to step, until nothing is learnt",
        ("clipping", "a smaller learning rate", "He or Xavier initialisation", "BatchNorm", "LSTM for sequences"),
    ),
    Kind(
        "vanishing",
        "the gradient shrinks on its way back, so that the first layers hardly learn",
        ("ReLU with He initialisation", "BatchNorm", "residual shortcuts", "pretraining", "LSTM for sequences"),
    ),
    Kind(
        "dead",
        "most units of a layer are zero on the whole batch, and get no gradient",
        ("a smaller learning rate", "leaky ReLU or ELU", "He initialisation", "BatchNorm"),
    ),
    Kind(
        "saturated",
        "most outputs lie where the activation function is flat",
        ("smaller initial weights", "BatchNorm", "ReLU", "inputs of unit variance", "cross-entropy as the loss"),
    ),
    Kind(
        "too-large",
        "steps are so large, beside the parameters, that they undo each other",
        ("a smaller learning rate", "a warm-up of the rate", "clipping"),
    ),
    Kind("too-small", "steps are so small, beside the parameters, that nothing changes", ("a larger learning rate",)),
    Kind(
        "plateau",
        "the loss stands still, near where it began",
        ("another learning rate", "another initialisation", "a look at the labels", "momentum or Adam"),
    ),
    Kind(
        "still",
        "a layer does not move while others do",
        ("the optimizer's parameters", "requires_grad", "detach and no_grad in the forward pass"),
    ),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _TABLE}


@dataclass(frozen=True)
class Thresholds:
    """The numbers that decide. All are ratios; steps are recorded ones.

    Attributes:
        least_rows: recorded steps below which only NaN is spoken of.
        recent: share of the run, its end, that is looked at.
        progress: share of its first value by which a loss has to have fallen to count as learning.
        slope: the fall within the recent part, in standard errors, that counts as still falling.
        vanishing: a layer's gradient per parameter over that of the fastest later layer.
        vanishing_update: its update ratio over the median of the layers, where the loss falls nevertheless.
        exploding_layers: a layer's gradient per parameter over that of the slowest later one.
        exploding_growth: the gradient of the net over its own past.
        exploding_loss: the loss over its first value.
        dead: share of a layer's units that are zero on whole batches.
        dead_above_others: the same over the median of the other layers' share.
        saturated: share of a layer's outputs.
        too_large: the net's median update ratio.
        too_small: the share by which the parameters can have changed in all steps so far.
        plateau: share of its first value within which a loss counts as having stood still.
        plateau_rows: recorded steps before that is said.
    """

    least_rows: int = 10
    recent: float = 0.25
    progress: float = 0.1
    slope: float = 3.0
    vanishing: float = 1e-3
    vanishing_update: float = 0.02
    exploding_layers: float = 1e3
    exploding_growth: float = 100.0
    exploding_loss: float = 10.0
    dead: float = 0.7
    dead_above_others: float = 2.0
    saturated: float = 0.6
    too_large: float = 0.1
    too_small: float = 0.01
    plateau: float = 0.03
    plateau_rows: int = 30


@dataclass(frozen=True)
class Finding:
    """What the diagnosis says.

    Attributes:
        kind: one of `KINDS`.
        layers: names, in order of execution; empty if it is about the whole net.
        since: the step from which it holds.
        evidence: the numbers that prove it, in words.
        numbers: the same by name.
        remedies: what may help.
        note: True for what may well be meant, such as a frozen layer.
    """

    kind: str
    layers: tuple[str, ...]
    since: int
    evidence: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    remedies: tuple[str, ...] = ()
    note: bool = False

    def __str__(self) -> str:
        where = f"  {listed(self.layers)}" if self.layers else ""
        return f"{self.kind.upper()}{where}  {self.evidence}, since step {self.since:,}"

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            "kind": self.kind,
            "layers": list(self.layers),
            "since": self.since,
            "evidence": self.evidence,
            "numbers": dict(self.numbers),
            "remedies": list(self.remedies),
            "note": self.note,
        }


@dataclass(frozen=True)
class Evidence:
    """What a diagnosis looks at: the layers, the names of the measures, and the run in stretches, oldest first."""

    layers: Sequence[Layer]
    measures: Sequence[str]
    parts: Envelope
    origins: Sequence[Origin] = ()


def diagnose_run(path: str | Path, thresholds: Thresholds | None = None) -> list[Finding]:
    """The findings of a run file, gravest first; raises `RunFileError` if it is none."""
    from gradtui.runfile import open_run

    with open_run(path) as reader:
        layers = reader.layers()
        evidence = Evidence(layers, [m.name for m in reader.measures], reader.overview(), reader.origins())
    return diagnose(evidence, thresholds)


def diagnose(evidence: Evidence, thresholds: Thresholds | None = None) -> list[Finding]:
    """The findings, gravest first."""
    limits = thresholds or Thresholds()
    with np.errstate(all="ignore"):
        series = _Series(evidence, limits)
        found = list(_nan(series))
        if len(series) >= limits.least_rows:
            for look in (_exploding, _vanishing, _dead, _saturated, _too_large, _too_small, _still, _plateau):
                found += look(series, limits)
    order = list(KINDS)
    return sorted(found, key=lambda finding: (finding.note, order.index(finding.kind)))


class _Series:
    """The measures as arrays [stretches, layers], NaN where there is no finite value, and what the loss does."""

    def __init__(self, evidence: Evidence, limits: Thresholds) -> None:
        self.evidence = evidence
        parts = evidence.parts
        self.steps = parts.last_step
        self.first_steps = parts.first_step
        self.names = [layer.name for layer in evidence.layers]
        self._columns = {name: i for i, name in enumerate(evidence.measures)}
        self.loss = np.where(np.isfinite(parts.loss_mean), parts.loss_mean, np.nan)
        self._limits = limits
        self._window = max(limits.least_rows // 2, math.ceil(limits.recent * len(parts)))
        known = self.loss[np.isfinite(self.loss)]
        few = max(1, len(known) // 20)
        self.first_loss = float(np.median(known[:few])) if len(known) else math.nan
        recent = known[-max(3, math.ceil(limits.recent * len(known))) :]
        self.last_loss = float(np.median(recent)) if len(known) else math.nan
        self.fall = (self.first_loss - self.last_loss) / abs(self.first_loss) if self.first_loss else 0.0
        self.learns = bool(self.fall > limits.progress)
        self.falls = _falls(recent, limits.slope)
        sizes = np.array([max(1, layer.parameters) for layer in evidence.layers], np.float64)
        self.gradient = self.of("grad_norm")
        self.per_parameter = self.gradient / np.sqrt(sizes)
        self.update = self.of("update_ratio")

    def __len__(self) -> int:
        return len(self.steps)

    def of(self, measure: str) -> DoubleArray:
        """A measure [stretches, layers]; all NaN if the run does not have it."""
        column = self._columns.get(measure)
        shape = (len(self.steps), len(self.names))
        if column is None:
            return np.full(shape, np.nan)
        values = self.evidence.parts.mean[:, :, column].astype(np.float64)
        return np.where(np.isfinite(values), values, np.nan)

    def measured(self, measure: str) -> Mask:
        """Whether a measure was taken at all, be it NaN [stretches, layers]."""
        column = self._columns.get(measure)
        values: FloatArray = self.evidence.parts.maximum
        if column is None:
            return np.zeros(values.shape[:2], np.bool_)
        return is_measured(np.ascontiguousarray(values[:, :, column]))

    def recent(self, values: DoubleArray) -> DoubleArray:
        """The median over the recent part of those stretches that have the value, [layers]."""
        found = np.full(values.shape[1], np.nan)
        for layer in range(values.shape[1]):
            known = values[:, layer][np.isfinite(values[:, layer])]
            if len(known):
                found[layer] = np.median(known[-max(3, math.ceil(self._limits.recent * len(known))) :])
        return found

    def since(self, holds: Mask) -> int:
        """The first step of the stretch from which a condition [stretches] has held nearly always until the end."""
        if not holds.any():
            return int(self.first_steps[-1])
        # exceptions in the past are forgiven while they are a tenth of what followed
        backwards = holds[::-1]
        share = np.cumsum(backwards) / np.arange(1, len(holds) + 1)
        kept = np.flatnonzero((share >= 0.9) & backwards)
        return int(self.first_steps[::-1][kept[-1]] if len(kept) else self.first_steps[-1])

    def finding(
        self, kind: str, layers: Sequence[int], since: int, evidence: str, numbers: Mapping[str, float], *,
        remedies: Sequence[str] = (), note: bool = False,
    ) -> Finding:  # fmt: skip
        """A finding about layers by index."""
        names = tuple(self.names[layer] for layer in layers)
        return Finding(kind, names, since, evidence, numbers, tuple(remedies) or KINDS[kind].remedies, note)


def _falls(losses: DoubleArray, errors: float) -> bool:
    """True if the newest losses fall by more than chance: a straight line through them, in standard errors."""
    if len(losses) < 4:
        return False
    x = np.arange(len(losses)) - (len(losses) - 1) / 2
    slope = float(x @ losses / (x @ x))
    rest = losses - losses.mean() - slope * x
    error = math.sqrt(float(rest @ rest) / (len(losses) - 2) / float(x @ x))
    return slope < -errors * error


def _nan(series: _Series) -> list[Finding]:
    found = []
    for origin in series.evidence.origins[:1]:
        layers = [] if origin.layer is None or origin.layer >= len(series.names) else [origin.layer]
        where = "forward pass" if origin.phase == "forward" else "backward pass"
        text = f"first in the {where} of step {origin.step:,}: {origin.what}"
        found.append(series.finding("nan", layers, origin.step, text, {"step": float(origin.step)}))
    if found or not len(series) or "grad_norm" not in series._columns:
        return found
    gradient = series.evidence.parts.maximum[:, :, series._columns["grad_norm"]]
    broken = ~np.isfinite(gradient) & series.measured("grad_norm")
    loss_broken = np.isinf(series.evidence.parts.loss_maximum)
    rows = np.flatnonzero(broken.any(axis=1) | loss_broken)
    if len(rows):
        first = rows[0]
        layers = np.flatnonzero(broken[first]).tolist()[-1:]
        step = int(series.first_steps[first])
        what = "a gradient" if layers else "the loss"
        found.append(series.finding("nan", layers, step, f"{what} is NaN or infinite", {"step": float(step)}))
    return found


def _exploding(series: _Series, limits: Thresholds) -> list[Finding]:
    gradient = np.sqrt(np.nansum(series.gradient**2, axis=1))
    known = np.flatnonzero(np.isfinite(series.gradient).any(axis=1))
    if len(known) < 3:
        return []
    values = gradient[known]
    begin = float(np.median(values[: max(3, len(values) // 4)]))
    growth = float(values[-max(1, len(values) // 20) :].max() / begin) if begin else math.nan
    losses = series.loss[np.isfinite(series.loss)]
    worst = float(np.median(losses[-max(1, len(losses) // 20) :]) / series.first_loss) if len(losses) else math.nan
    broke = bool(np.isinf(series.evidence.parts.loss_maximum).any() or series.evidence.origins)
    if (growth > limits.exploding_growth and (worst > 1 or broke)) or worst > limits.exploding_loss:
        grows = np.zeros(len(series), np.bool_)
        grows[known] = values > begin * math.sqrt(limits.exploding_growth)
        since = series.since(grows | (series.loss > series.first_loss * math.sqrt(limits.exploding_loss)))
        text = f"the gradient has grown {factor(growth)}, the loss {factor(worst)}"
        return [series.finding("exploding", [], since, text, {"growth": growth, "loss": worst})]
    speeds = series.recent(series.per_parameter)
    order = np.flatnonzero(np.isfinite(speeds) & (speeds > 0))
    if len(order) < 3 or series.learns:
        return []
    ratio = np.array([speeds[i] / speeds[order[order > i]].min() for i in order[:-1]])
    ill = order[:-1][ratio > limits.exploding_layers]
    if not len(ill):
        return []
    times = float(ratio.max())
    later = series.per_parameter[:, order[-1]]
    since = series.since(series.per_parameter[:, ill[0]] > limits.exploding_layers * later)
    text = f"its gradient per parameter is {factor(times)} that of later layers, and the loss does not fall"
    return [series.finding("exploding", ill.tolist(), since, text, {"ratio": times})]


def _vanishing(series: _Series, limits: Thresholds) -> list[Finding]:
    speeds = series.recent(series.per_parameter)
    updates = series.recent(series.update)
    order = np.flatnonzero(np.isfinite(speeds))
    if len(order) < 3:
        return []
    typical = float(np.nanmedian(updates[updates > 0])) if (updates > 0).any() else math.nan
    ill, worst = [], 1.0
    for i, layer in enumerate(order[:-1]):
        fastest = float(speeds[order[i + 1 :]].max())
        ratio = float(speeds[layer] / fastest) if fastest > 0 else 1.0
        hardly_moves = updates[layer] < limits.vanishing_update * typical
        if ratio < limits.vanishing and (hardly_moves or not series.learns):
            ill.append(int(layer))
            worst = min(worst, ratio)
    if not ill:
        return []
    last = int(order[np.argmax(speeds[order])])
    holds = series.per_parameter[:, ill[0]] < limits.vanishing * series.per_parameter[:, last]
    times = factor(1 / worst) if worst else "infinitely"
    text = f"its gradient per parameter is {times} below that of {series.names[last]}"
    return [series.finding("vanishing", ill, series.since(holds), text, {"ratio": worst})]


def _dead(series: _Series, limits: Thresholds) -> list[Finding]:
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
    since = series.since((dead[:, found[0]] >= limits.dead) | ~np.isfinite(dead[:, found[0]]))
    text = f"{percent(most)} of its units are zero on whole batches"
    return [series.finding("dead", found, since, text, {"share": most})]


def _saturated(series: _Series, limits: Thresholds) -> list[Finding]:
    saturated = series.of("saturated")
    now = series.recent(saturated)
    # the outputs of the last layer are near 0 and 1 where the net is sure of itself
    ill = [int(layer) for layer in np.flatnonzero(now >= limits.saturated) if layer < len(now) - 1]
    if not ill or (series.learns and series.falls):
        return []
    most = float(now[ill].max())
    since = series.since((saturated[:, ill[0]] >= limits.saturated) | ~np.isfinite(saturated[:, ill[0]]))
    text = f"{percent(most)} of its outputs lie where the activation function is flat, and the loss does not fall"
    return [series.finding("saturated", ill, since, text, {"share": most})]


def _too_large(series: _Series, limits: Thresholds) -> list[Finding]:
    updates = series.recent(series.update)
    known = updates[np.isfinite(updates)]
    if not len(known) or (series.learns and series.falls):
        return []
    typical = float(np.median(known))
    if typical <= limits.too_large:
        return []
    since = series.since(np.nanmedian(series.update, axis=1) > limits.too_large)
    text = f"each step changes the parameters by {percent(typical)} of their size, and the loss does not fall"
    return [series.finding("too-large", [], since, text, {"update_ratio": typical})]


def _too_small(series: _Series, limits: Thresholds) -> list[Finding]:
    updates = series.recent(series.update)
    known = updates[np.isfinite(updates)]
    if not len(known) or series.learns or not (known > 0).any():
        return []
    typical = float(known.max())
    moved = typical * float(series.steps[-1])
    if moved >= limits.too_small:
        return []
    text = (
        f"at ‖Δθ‖/‖θ‖ = {typical:.1e} a step, all {int(series.steps[-1]):,} steps together change the parameters by at"
        f" most {percent(moved)}"
    )
    return [
        series.finding("too-small", [], int(series.first_steps[0]), text, {"update_ratio": typical, "moved": moved})
    ]


def _still(series: _Series, limits: Thresholds) -> list[Finding]:
    moved = series.measured("update_ratio")
    gradient = series.measured("grad_norm")
    anything = series.measured("param_norm").any(axis=1)
    updates = series.recent(series.update)
    if not anything.any() or not (updates > 0).any():
        return []
    window = np.flatnonzero(anything)[-max(3, int(anything.sum() * limits.recent)) :]
    later = slice(int(window[0]), None)
    by_cause: dict[str, list[int]] = {}
    for layer in range(len(series.names)):
        if not moved[window, layer].any():
            if not gradient[later, layer].any():
                by_cause.setdefault("frozen", []).append(layer)
        elif not updates[layer] > 0:
            values = series.gradient[later, layer]
            cause = "detached" if not gradient[later, layer].any() else "zero" if not values.any() else "forgotten"
            by_cause.setdefault(cause, []).append(layer)
    words: dict[str, str] = {
        "frozen": "needs no gradient (requires_grad is False): it stays as it is",
        "detached": "gets no gradient: it is detached, or not used in the forward pass",
        "zero": "has a gradient of exactly 0",
        "forgotten": "has a gradient, but no step changes it: it is not in the optimizer, or its rate is 0",
    }
    remedies: dict[str, tuple[str, ...]] = {
        "frozen": ("requires_grad_(True), if it is to learn",),
        "detached": ("no detach, no_grad or .data between it and the loss",),
        "zero": ("a look at its activations: dead or saturated units",),
        "forgotten": ("its parameters in the optimizer",),
    }
    found = []
    for cause, layers in by_cause.items():
        still: Callable[[int], Mask] = lambda layer: ~(series.update[:, layer] > 0)  # noqa: E731
        since = series.since(still(layers[0]))
        found.append(
            series.finding(
                "still", layers, since, words[cause], {"layers": float(len(layers))},
                remedies=remedies[cause], note=cause == "frozen",
            )
        )  # fmt: skip
    return found


def _plateau(series: _Series, limits: Thresholds) -> list[Finding]:
    losses = series.loss[np.isfinite(series.loss)]
    if len(losses) < limits.plateau_rows or series.falls or not abs(series.fall) < limits.plateau:
        return []
    best = float(np.median(np.sort(losses)[: max(3, len(losses) // 10)]))
    if (series.first_loss - best) > 3 * limits.plateau * abs(series.first_loss):
        return []  # it has been lower: it does not stand still
    text = f"the loss is {series.last_loss:.4g}, and was {series.first_loss:.4g} at first"
    numbers = {"first": series.first_loss, "last": series.last_loss}
    return [series.finding("plateau", [], int(series.first_steps[0]), text, numbers)]
