"""The optimizers of a run: kind, parameter groups and their settings, and the course of each group's learning rate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradtui.format import plain
from gradtui.runfile import checked
from gradtui.runfile.blocks import DoubleArray

RISES, FALLS, STAYS = 1, -1, 0
SAME = 1e-9  # relative difference of two rates that are one


@dataclass(frozen=True)
class ParameterGroup:
    """One parameter group of an optimizer.

    Attributes:
        name: as the training calls it; "" if it does not.
        tensors: how many parameters tensors it has.
        parameters: how many numbers they hold.
        layers: the layers that they are of, by number, in order of execution.
        settings: what the optimizer is told for it, as it is now: betas, eps, weight_decay, …; not the rate.
        first: those of the settings that were something else at first, as they were.
    """

    name: str
    tensors: int
    parameters: int
    layers: tuple[int, ...]
    settings: Mapping[str, Any]
    first: Mapping[str, Any]


@dataclass(frozen=True)
class OptimizerFacts:
    """One optimizer: `number` counts from 1 in the order in which the recording met them.

    Attributes:
        kind: its class, e.g. "AdamW".
        groups: its parameter groups.
        steps: [points] steps at which a rate had changed, and the newest that was looked at.
        rates: [points, groups] the rates from each of these steps on; NaN where it is not known.
    """

    number: int
    kind: str
    groups: tuple[ParameterGroup, ...]
    steps: tuple[int, ...]
    rates: DoubleArray


@dataclass(frozen=True)
class Course:
    """How a rate went: the first and the newest that is known, the smallest and the largest, and that in words."""

    first: float
    now: float
    least: float
    most: float
    words: str


def as_row(
    number: int, kind: str, groups: Sequence[Mapping[str, Any]], points: Sequence[tuple[int, Sequence[float | None]]]
) -> tuple[Any, ...]:
    """An optimizer as a row of its table; `points` are steps and the rates of all groups from there on."""
    course = np.full((len(points), 1 + len(groups)), np.nan, "<f8")
    for row, (step, rates) in zip(course, points, strict=True):
        row[0] = step
        row[1 : 1 + len(rates)] = [np.nan if rate is None else rate for rate in rates[: len(groups)]]
    return number, kind, json.dumps(plain(list(groups))), course.tobytes()


def from_row(row: tuple[Any, ...]) -> OptimizerFacts:
    """What `as_row` made; raises `ValueError`, `TypeError` or `KeyError` for anything else."""
    number, kind, groups, course = row
    found = tuple(_group(facts) for facts in checked.parsed(groups, "the groups of an optimizer"))
    points = np.frombuffer(checked.floats32(course, "the rates of an optimizer"), "<f8").reshape(-1, 1 + len(found))
    steps = tuple(checked.whole(int(step), "a step of an optimizer") for step in points[:, 0])
    which, name = checked.whole(number, "an optimizer's number"), checked.text(kind, "an optimizer's kind")
    return OptimizerFacts(which, name, found, steps, points[:, 1:].astype(np.float64))


def spans(layers: Sequence[int]) -> list[list[int]]:
    """Numbers in ascending order as [first, last] of each unbroken sequence of them."""
    found: list[list[int]] = []
    for layer in layers:
        if found and layer == found[-1][1] + 1:
            found[-1][1] = layer
        else:
            found.append([layer, layer])
    return found


def course_of(facts: OptimizerFacts, group: int) -> Course | None:
    """How the rate of a group went; None if it is not known."""
    rates = facts.rates[:, group]
    known = np.isfinite(rates)
    if not known.any():
        return None
    steps, rates = np.array(facts.steps)[known], rates[known]
    least, most = float(rates.min()), float(rates.max())
    return Course(float(rates[0]), float(rates[-1]), least, most, _in_words(steps.tolist(), rates.tolist()))


def _group(facts: Mapping[str, Any]) -> ParameterGroup:
    ranges = [checked.counts(ends, "the layers of a group") for ends in facts["layers"]]
    if sum(max(0, last + 1 - first) for first, last in ranges) > checked.MOST_LAYERS:
        raise ValueError("a group has too many layers")
    layers = tuple(layer for first, last in ranges for layer in range(first, last + 1))
    return ParameterGroup(
        checked.text(facts["name"], "a group's name"),
        checked.whole(facts["tensors"], "a group's tensors"),
        checked.whole(facts["parameters"], "a group's parameters"),
        layers,
        dict(checked.mapping(facts["settings"], "a group's settings")),
        dict(checked.mapping(facts["first"], "a group's settings")),
    )


def _in_words(steps: Sequence[int], rates: Sequence[float]) -> str:
    """What the rate does: constant, a warm-up, a decay, steps, ups and downs."""
    moves = _moves(steps, rates)
    if not moves:
        return "constant"
    ways = [way for way, _, _ in moves]
    end = "" if steps[-1] <= moves[-1][2] else f", constant since step {moves[-1][2]:,}"
    if ways == [FALLS]:
        return _fall(steps, rates, 0, end)
    if ways == [RISES]:
        return f"rises{end}"
    if ways == [RISES, FALLS]:
        return f"warm-up until step {moves[0][2]:,}, then {_fall(steps, rates, moves[1][1], end)}"
    return f"goes up and down, {ways.count(RISES)} × up{end}"


def _fall(steps: Sequence[int], rates: Sequence[float], begin: int, end: str) -> str:
    """A fall in words: where few changes were seen, the steps in which they were."""
    jumps = [
        step
        for step, rate, before in zip(steps[1:], rates[1:], rates, strict=False)
        if step > begin and _way(before, rate) == FALLS
    ]
    if len(jumps) <= 3:
        return f"lower since step{'s' * (len(jumps) > 1)} {', '.join(f'{step:,}' for step in jumps)}"
    return f"decays{end}"


def _moves(steps: Sequence[int], rates: Sequence[float]) -> list[tuple[int, int, int]]:
    """Each rise and each fall as a whole: which of them, from which step, until which."""
    found: list[tuple[int, int, int]] = []
    for i in range(1, len(rates)):
        way = _way(rates[i - 1], rates[i])
        if way == STAYS:
            continue
        if found and found[-1][0] == way:
            found[-1] = (way, found[-1][1], steps[i])
        else:
            found.append((way, steps[i - 1], steps[i]))
    return found


def _way(before: float, after: float) -> int:
    if abs(after - before) <= SAME * max(abs(before), abs(after)):
        return STAYS
    return RISES if after > before else FALLS
