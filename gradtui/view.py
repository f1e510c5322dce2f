"""Rows of a run in, what a screen shows out: curves, the picture at one step, a summary. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradtui.bias_gradients import cancelled
from gradtui.format import called, factor, listed
from gradtui.layer_size import size_by_shapes
from gradtui.measures import GRADIENT, LEARNING_SPEED, WEIGHT_GRADIENT
from gradtui.runfile import (
    Aggregates,
    Event,
    Finding,
    Header,
    Layer,
    Measure,
    Pictures,
    Scalars,
    Status,
    is_measured,
)
from gradtui.runfile.blocks import NOT_MEASURED, DoubleArray, FloatArray
from gradtui.runfile.optimizer_facts import OptimizerFacts

EVENTS_SHOWN = 20
SILENCE_TOLD = 10.0  # s without a heartbeat of a live run before it is said


@dataclass(frozen=True)
class Curves:
    """History of one measure: `mean` [buckets, layers]; `broken` [buckets] says where a value was NaN or ∞."""

    first_step: npt.NDArray[np.int64]
    last_step: npt.NDArray[np.int64]
    mean: FloatArray
    broken: npt.NDArray[np.bool_]
    loss: DoubleArray
    loss_broken: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LayerFacts:
    """What does not change about a layer; `shape` is e.g. `64→30`."""

    name: str
    kind: str
    shape: str
    parameters: int


@dataclass(frozen=True)
class Snapshot:
    """All that a screen shows of a run at one moment; made off the UI thread, never changed.

    `values`, `before` (a second earlier) and `neurons` (of the layer `layer`) hold None where nothing was measured.
    `through_time` holds, for each recurrent state, ‖∂C/∂state_t‖ of every time step; it is empty for other nets.
    `findings` are those that hold, then those that are cleared; `findings_problem` says why they cannot be read.
    `lines` say all that in sentences.
    """

    header: Header
    run_id: str
    status: Status
    first_step: int
    last_step: int
    step: int
    epoch: float | None
    seconds: float
    steps_per_second: float | None
    loss: float | None
    metrics: tuple[tuple[str, float], ...]
    layers: tuple[LayerFacts, ...]
    measures: tuple[Measure, ...]
    measure: int
    values: tuple[float | None, ...]
    before: tuple[float | None, ...]
    layer: int
    neurons: tuple[float, ...] | None
    neurons_step: int | None
    through_time: tuple[tuple[str, tuple[float, ...]], ...]
    through_time_step: int | None
    pictures: tuple[Pictures, ...]
    curves: Curves
    accuracy: Scalars | None
    findings: tuple[Finding, ...]
    findings_problem: str
    lines: tuple[str, ...]
    following: bool
    playing: bool

    @property
    def takes_stop(self) -> bool:
        """Whether the training can be asked to stop."""
        return "stop" in self.header.takes_commands

    @property
    def holding(self) -> tuple[Finding, ...]:
        """The findings that hold."""
        return holding(self.findings)


def curves(history: Aggregates, measure: int) -> Curves:
    """The history of one measure, from all buckets of a run."""
    largest = history.maximum[:, :, measure]
    broken = ~np.isfinite(largest) & is_measured(largest)
    return Curves(
        history.first_step,
        history.last_step,
        np.ascontiguousarray(history.mean[:, :, measure]),
        np.logical_or.reduce(broken, axis=1),
        history.loss_mean,
        np.isinf(history.loss_maximum),
    )


def known(values: FloatArray) -> tuple[float | None, ...]:
    """[layers] as Python numbers, None where nothing was measured."""
    return tuple(float(v) if m else None for v, m in zip(values, is_measured(values), strict=True))


def newest_known(rows_newest_first: FloatArray) -> FloatArray:
    """[rows, layers, measures] -> [layers, measures]: of each value the newest that was measured."""
    if not len(rows_newest_first):
        return np.empty(rows_newest_first.shape[1:], np.float32)
    mask = is_measured(rows_newest_first)
    newest = mask.argmax(axis=0)
    picked = np.take_along_axis(rows_newest_first, newest[None], axis=0)[0]
    return np.where(mask.any(axis=0), picked, NOT_MEASURED)


def update_known(current: FloatArray, rows_oldest_first: FloatArray) -> FloatArray:
    """Carry `current` [layers, measures] on by newer rows: values that were not measured stay as they were."""
    newer = newest_known(rows_oldest_first[::-1])
    return np.where(is_measured(newer), newer, current)


def facts(layer: Layer) -> LayerFacts:
    """A layer in the words of a list: the shape as inputs→outputs where that is known."""
    shape = layer.size or size_by_shapes(layer.kind, layer.shapes, layer.parameters)
    return LayerFacts(layer.name, layer.kind, shape, layer.parameters)


def untrained(newest: FloatArray, measures: Sequence[Measure], optimizers: Sequence[OptimizerFacts]) -> list[int]:
    """The layers, by number, that do not train: no gradient, though their optimizer's other layers have some.

    A layer of an optimizer none of whose steps was measured is not among them. `newest` is [layers, measures].
    """
    names = [measure.name for measure in measures]
    if GRADIENT not in names or not len(newest):
        return []
    has_gradient = is_measured(newest[:, names.index(GRADIENT)]).tolist()
    owners = [{layer for group in one.groups for layer in group.layers} for one in optimizers]
    was_measured = [any(layer < len(has_gradient) and has_gradient[layer] for layer in own) for own in owners]
    waits = set[int]().union(*(own for own, seen in zip(owners, was_measured, strict=True) if not seen))
    return [i for i, has in enumerate(has_gradient) if not has and i not in waits] if any(has_gradient) else []


def numbered(layers: Sequence[Layer] | Sequence[LayerFacts]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """What stands for each layer in a list: a number, and a name.

    The layers of an `nn.Sequential` have numbers for names: they keep them, as they are in the code and in sentences,
    and their kind stands for a name. Others are counted.
    """
    if all(layer.name.isdecimal() and layer.name.isascii() for layer in layers):
        return tuple(int(layer.name) for layer in layers), tuple(layer.kind for layer in layers)
    return tuple(range(1, len(layers) + 1)), tuple(layer.name for layer in layers)


def default_measure(measures: Sequence[Measure], newest: FloatArray) -> int:
    """The measure that a run is first shown by: the learning speed, if it says something of every layer.

    Where a bias is cancelled, or fewer layers have a bias than have a weight, it is the gradient of all parameters.
    `newest` is [layers, measures].
    """
    names = [measure.name for measure in measures]
    if not {LEARNING_SPEED, WEIGHT_GRADIENT, GRADIENT} <= set(names):
        return 0
    speed = names.index(LEARNING_SPEED)
    biases, weights = newest[:, speed], newest[:, names.index(WEIGHT_GRADIENT)]
    lacking = is_measured(weights) & ~is_measured(biases)
    is_poor = 2 * int(lacking.sum()) > int(is_measured(weights).sum()) or bool(cancelled(biases, weights).any())
    return names.index(GRADIENT) if is_poor else speed


def describe(layers: Sequence[LayerFacts], newest: FloatArray, measures: Sequence[Measure], measure: int) -> list[str]:
    """What the values [layers, measures] say of one measure, in sentences; cancelled biases are left out."""
    rest = telling(newest, measures, measure)
    gone = is_measured(newest[:, measure]) & ~is_measured(rest)
    said = describe_values(layers, known(rest), measures[measure])
    if not gone.any():
        return said
    of = listed([layer.name for layer, is_gone in zip(layers, gone, strict=True) if is_gone])
    symbol = measures[measure].symbol
    return [f"{symbol} says nothing of {of}: a normalisation or a softmax cancels the bias.", *said]


def telling(newest: FloatArray, measures: Sequence[Measure], measure: int) -> FloatArray:
    """The values [layers] of one measure that say something: gradients of cancelled biases count as not measured."""
    names, values = [one.name for one in measures], newest[:, measure]
    if names[measure] != LEARNING_SPEED or WEIGHT_GRADIENT not in names:
        return values
    mask = cancelled(values, newest[:, names.index(WEIGHT_GRADIENT)])
    return np.where(mask, NOT_MEASURED, values)


def describe_values(layers: Sequence[LayerFacts], values: Sequence[float | None], measure: Measure) -> list[str]:
    """What the values say, in sentences: what is not finite, what is zero, and how far apart the layers are."""
    lines = []
    bad = [layer.name for layer, v in zip(layers, values, strict=True) if v is not None and not math.isfinite(v)]
    zero = [layer.name for layer, v in zip(layers, values, strict=True) if v == 0]
    if bad:
        lines.append(f"NOT FINITE  {listed(bad)}: {measure.symbol} is NaN or ∞.")
    if zero:
        lines.append(f"ZERO  {listed(zero)}: {measure.symbol} is exactly 0.")
    known = [(v, called(layer.name)) for layer, v in zip(layers, values, strict=True) if v is not None]
    finite = [(v, name) for v, name in known if 0 < v < math.inf]
    if len(finite) > 1:
        (slow, slowest), (fast, fastest) = min(finite), max(finite)
        times = fast / slow
        if times < 3:
            lines.append(f"All layers within a factor of {times:.1f}.")
        elif measure.name == LEARNING_SPEED:
            lines.append(f"{slowest} learns {factor(times)} slower than {fastest}.")
        else:
            lines.append(f"{measure.symbol}: {slowest} is {factor(times)} below {fastest}.")
    return lines


def holding(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings that are not cleared."""
    return tuple(finding for finding in findings if not finding.cleared)


def describe_run(
    findings: Sequence[Finding], values: Sequence[str], status: Status, events: Sequence[Event]
) -> list[str]:
    """A run in sentences: the findings that hold, what its values say, how it ended, what happened, newest first."""
    lines = []
    for finding in holding(findings):
        lines.append(str(finding))
        if finding.remedies:
            lines.append(f"   try: {', '.join(finding.remedies)}")
    lines += values
    if status.detail:
        lines.append(f"{status.state}: {status.detail}")
    elif status.live and status.silent > SILENCE_TOLD:
        lines.append(f"nothing recorded for {status.silent:.0f} s")
    for event in reversed(events[-EVENTS_SHOWN:]):
        when = "" if event.step is None else f" at step {event.step:,}"
        lines.append(f"{event.kind}{when}: {event.text}")
    return lines
