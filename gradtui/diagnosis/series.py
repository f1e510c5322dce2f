"""The measures of a run as arrays over time, and what the loss does: what the rules look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradtui.diagnosis.kinds import Finding, Thresholds
from gradtui.runfile import RunReader
from gradtui.runfile.blocks import LAST_BIT, Aggregates, DoubleArray, FloatArray, is_measured
from gradtui.runfile.schema import Layer, Origin

MOST_KINDS = 128  # of layers, by optimizers and branches: of more, the branches do not count

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Evidence:
    """What a diagnosis looks at: the layers, the names of the measures, and the run in buckets, oldest first."""

    layers: Sequence[Layer]
    measures: Sequence[str]
    aggregates: Aggregates
    origins: Sequence[Origin] = ()

    @classmethod
    def of(cls, reader: RunReader) -> Evidence:
        """That of a run file."""
        return cls(reader.layers(), [one.name for one in reader.measures], reader.overview(), reader.origins())


class Series:
    """The measures as arrays [buckets, layers], NaN where there is no finite value, and what the loss does.

    Attributes:
        broken: where a gradient is NaN or infinite [buckets, layers].
        broken_parameters: the same of the norm of the parameters.
        takes_turns: its layers are trained in turns, as of a GAN: what is one's loss is another's gain.
        learns: the loss has fallen, or says nothing as none is known or its layers take turns.
        falls: it still falls.
        span: the steps from the first recorded one to the last.
        outcome: what the loss of a stuck net does, in words.
        paths: which layers may be compared.
        is_stuck: the loss has not fallen, or not by much and falls no more.
    """

    def __init__(self, evidence: Evidence, limits: Thresholds) -> None:
        self.evidence = evidence
        aggregates = evidence.aggregates
        self.steps = aggregates.last_step
        self.first_steps = aggregates.first_step
        self.span = int(self.steps[-1] - self.first_steps[0]) + 1 if len(self.steps) else 0
        # a layer that has just joined may not have a column yet, nor its name be known
        layers = evidence.layers[: aggregates.mean.shape[1]]
        self.names = [layer.name for layer in layers]
        self._columns = {name: i for i, name in enumerate(evidence.measures[: aggregates.mean.shape[2]])}
        self.broken = ~np.isfinite(self._largest("grad_norm")) & self.measured("grad_norm")
        self.broken_parameters = ~np.isfinite(self._largest("param_norm")) & self.measured("param_norm")
        self.loss = np.where(np.isfinite(aggregates.loss_mean), aggregates.loss_mean, np.nan)
        self._limits = limits
        known = self.loss[np.isfinite(self.loss)]
        few = max(1, int(limits.begin * len(known)))
        # the very first, if those after it are higher: a rate that is too large throws the loss up within a few steps
        self.first_loss = float(min(known[0], np.median(known[:few]))) if len(known) else math.nan
        recent = known[-max(3, math.ceil(limits.recent * len(known))) :]
        self.last_loss = float(np.median(recent)) if len(known) else math.nan
        self.fall = (self.first_loss - self.last_loss) / abs(self.first_loss) if self.first_loss else 0.0
        self.takes_turns = self._takes_turns()
        self.learns = self.takes_turns or not len(known) or bool(self.fall > limits.progress)
        self.falls = _falls(recent, limits.slope)
        little = self.fall < limits.learnt and not self.falls and not self.takes_turns
        self.outcome = "falls by little" if self.learns else "does not fall"
        self.is_stuck = not self.learns or little
        sizes = np.array([max(1, layer.parameters) for layer in layers], np.float64)
        self.paths = Paths(layers)
        self.gradient = self.of("grad_norm")
        self.per_parameter = self.gradient / np.sqrt(sizes)
        self.update = self.of("update_ratio")

    def __len__(self) -> int:
        return len(self.steps)

    def of(self, measure: str) -> DoubleArray:
        """A measure [buckets, layers], NaN where a gradient of the step is broken; all NaN if the run has it not."""
        column = self._columns.get(measure)
        shape = (len(self.steps), len(self.names))
        if column is None:
            return np.full(shape, np.nan)
        values = self.evidence.aggregates.mean[:, : len(self.names), column].astype(np.float64)
        return np.where(np.isfinite(values) & ~self.broken.any(axis=1, keepdims=True), values, np.nan)

    def _largest(self, measure: str) -> DoubleArray:
        """The largest value of a measure in each bucket [buckets, layers], be it NaN or ∞."""
        column = self._columns.get(measure)
        if column is None:
            return np.full((len(self.steps), len(self.names)), np.nan)
        return self.evidence.aggregates.maximum[:, : len(self.names), column].astype(np.float64)

    def own_rows(self, layer: int) -> Mask:
        """Where a step of an optimizer that has the layer was measured [buckets], of any if none has it.

        Elsewhere nothing is known of the layer.
        """
        there, numbers = self.evidence.aggregates.optimizers, self.paths.optimizers
        if numbers[layer]:
            mask: Mask = (there & numbers[layer]) != 0
            return mask
        # it may be of one that has not been looked at often enough to be known
        each = [1 << bit for bit in range(LAST_BIT + 1) if self.paths.all_optimizers >> bit & 1]
        known = all(((there & one) != 0).sum() >= self._limits.least_rows for one in each)
        return there != 0 if known else np.zeros(len(self), np.bool_)

    def typical_update(self) -> DoubleArray:
        """The median update ratio of the layers [buckets]; NaN where none was measured."""
        typical = np.full(len(self.steps), np.nan)
        known = np.isfinite(self.update).any(axis=1)
        if known.any():
            typical[known] = np.nanmedian(self.update[known], axis=1)
        return typical

    def growth_of_parameters(self) -> float:
        """The norm of the parameters now over that at first: the median of the layers; NaN if it is not known."""
        norms = self.of("param_norm")
        growths = []
        for layer in range(norms.shape[1]):
            known = norms[:, layer][norms[:, layer] > 0]
            if len(known):
                growths.append(known[-1] / known[0])
        return float(np.median(growths)) if growths else math.nan

    def measured(self, measure: str) -> Mask:
        """Whether a measure was taken at all, be it NaN [buckets, layers]."""
        column = self._columns.get(measure)
        if column is None:
            return np.zeros((len(self.steps), len(self.names)), np.bool_)
        values: FloatArray = self.evidence.aggregates.maximum[:, : len(self.names), column]
        return is_measured(np.ascontiguousarray(values))

    def _takes_turns(self) -> bool:
        """True if no layer is there in nearly all steps, though each is in some: the steps of several trainings."""
        there = self.measured("grad_norm")
        shares = there[there.any(axis=1)].mean(axis=0)[there.any(axis=0)] if there.any() else np.ones(1)
        return bool((shares < 1 - self._limits.exceptions).all())

    def recent(self, values: DoubleArray) -> DoubleArray:
        """The median over the newest of those buckets that have the value, [layers]."""
        return _medians(values, lambda known: known[-max(3, math.ceil(self._limits.recent * len(known))) :])

    def at_first(self, values: DoubleArray) -> DoubleArray:
        """The median over the first of those buckets that have the value, [layers]."""
        return _medians(values, lambda known: known[: max(1, int(self._limits.begin * len(known)))])

    def since(self, holds: Mask, known: Mask) -> int:
        """The first step of the bucket from which a condition [buckets] has held, where known, nearly always."""
        rows = np.flatnonzero(known)
        if not holds[rows].any():
            return int(self.first_steps[-1])
        # exceptions in the past are forgiven while they are few beside what followed
        backwards = holds[rows][::-1]
        share = np.cumsum(backwards) / np.arange(1, len(rows) + 1)
        kept = np.flatnonzero((share >= 1 - self._limits.exceptions) & backwards)
        if not len(kept):
            return int(self.first_steps[-1])
        first = len(rows) - 1 - int(kept[-1])
        return int(self.first_steps[rows[first] if first else 0])

    def finding(
        self, kind: str, layers: Sequence[int], since: int, evidence: str, numbers: Mapping[str, float], *,
        remedies: Sequence[str] = (), note: bool = False,
    ) -> Finding:  # fmt: skip
        """A finding about layers by index; without `remedies`, those of its kind are meant."""
        names = tuple(self.names[layer] for layer in layers)
        return Finding(kind, names, since, evidence, numbers, tuple(remedies), note)


class Paths:
    """Which layers may be compared: those on one path from the input to a loss, which one optimizer trains.

    Args:
        layers: in order of execution.

    Attributes:
        optimizers: those that have any of a layer's parameters, a bit each [layers]; 0 if that is not known.
        all_optimizers: of all layers.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        held = [tuple(layer.optimizers) for layer in layers]
        bits = {one: sum(1 << bit for bit in {min(number, LAST_BIT) for number in one}) for one in set(held)}
        self.optimizers = [bits[one] for one in held]
        self.all_optimizers = 0
        for one in bits.values():
            self.all_optimizers |= one
        kinds = [(bit, frozenset(layer.branches)) for bit, layer in zip(self.optimizers, layers, strict=True)]
        if len(set(kinds)) > MOST_KINDS:
            kinds = [(bit, frozenset()) for bit, _ in kinds]
        known = {kind: i for i, kind in enumerate(dict.fromkeys(kinds))}
        self._kinds = np.array([known[kind] for kind in kinds], np.intp)
        self._alike = np.array([[_on_one_path(one, other) for other in known] for one in known], np.bool_)

    def among(self, layer: int, others: Rows) -> Rows:
        """Those of the other layers that it may be compared with."""
        found: Rows = others[self._alike[self._kinds[layer], self._kinds[others]]]
        return found

    def by_optimizer(self) -> list[Rows]:
        """The layers of each set of optimizers."""
        bits = np.array(self.optimizers, np.int64)
        return [np.flatnonzero(bits == one) for one in np.unique(bits)]


def _on_one_path(one: tuple[int, frozenset[int]], other: tuple[int, frozenset[int]]) -> bool:
    """True if layers of two kinds have an optimizer in common, and all losses of one are among those of the other.

    What is not known of either is no obstacle.
    """
    optimizers = not one[0] or not other[0] or bool(one[0] & other[0])
    return optimizers and (not one[1] or not other[1] or one[1] <= other[1] or other[1] <= one[1])


def _medians(values: DoubleArray, chosen: Callable[[Rows], Rows]) -> DoubleArray:
    """The median [layers] over the rows that are chosen of those that have a value; NaN where none has."""
    found = np.full(values.shape[1], np.nan)
    by_rows: dict[bytes, list[int]] = {}  # layers are measured together, so there are few sets of rows
    is_known = np.isfinite(values)
    for layer in range(values.shape[1]):
        by_rows.setdefault(is_known[:, layer].tobytes(), []).append(layer)
    for layers in by_rows.values():
        known = np.flatnonzero(is_known[:, layers[0]])
        if len(known):
            found[layers] = np.median(values[chosen(known)][:, layers], axis=0)
    return found


def _falls(losses: DoubleArray, errors: float) -> bool:
    """True if the newest losses fall by more than chance: a straight line through them, in standard errors."""
    if len(losses) < 4:
        return False
    x = np.arange(len(losses)) - (len(losses) - 1) / 2
    slope = float(x @ losses / (x @ x))
    rest = losses - losses.mean() - slope * x
    error = math.sqrt(float(rest @ rest) / (len(losses) - 2) / float(x @ x))
    return slope < -errors * error
