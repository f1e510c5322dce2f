"""Notes what the optimizers of a recording are, and the course of their learning rates. Changes nothing of them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch

from gradtui.record.layers import LayerTable
from gradtui.record.row_queue import RowQueue
from gradtui.runfile import RunWriter
from gradtui.runfile.optimizer_facts import as_row, spans

MOST_OPTIMIZERS = 256  # that are noted in one run
MOST_POINTS, MOST_RATES = 128, 4096  # of one optimizer's course: where it has more, every other one goes
LOOK_EVERY = 0.25  # s between looks at all settings, and at rates on a device or of many groups
MANY_GROUPS = 32
WRITE_EVERY = 1.0  # s between two rows of one optimizer in the run file
MOST_TEXT = 80  # characters of a setting
NOT_SETTINGS = frozenset({"params", "param_names", "lr", "initial_lr", "name"})

Rates = tuple[float | None, ...]  # of all groups; None where it is not known


class _Noted:
    """What is known of one optimizer."""

    def __init__(self, number: int, optimizer: torch.optim.Optimizer) -> None:
        self.number, self.kind = number, type(optimizer).__name__
        self.optimizer = weakref.ref(optimizer)
        self.groups: list[dict[str, Any]] = []
        self.course: list[tuple[int, Rates]] = []
        self.seen: tuple[int, Rates] = (0, ())
        self.look_at = self.write_at = -math.inf
        self.has_changed = False
        self._sizes: list[int] = []
        self._layers = 0

    def note_rates(self, step: int, rates: Rates) -> None:
        """Learn the rates of a step."""
        if not self.course or rates != self.course[-1][1]:
            self.course.append((step, rates))
            if len(self.course) > max(16, min(MOST_POINTS, MOST_RATES // max(1, len(rates)))):
                self.course = _thinned(self.course)
        self.seen = (step, rates)
        self.has_changed = True

    def note_settings(self, groups: list[dict[str, Any]], table: LayerTable) -> None:
        """Learn the groups, what is in them, and their settings."""
        sizes = [len(group["params"]) for group in groups]
        if sizes != self._sizes or len(table.layers) != self._layers:
            self._sizes, self._layers = sizes, len(table.layers)
            firsts = [(one["settings"], one["first"]) for one in self.groups]
            layer_of = {id(slot.parameter): slot.layer for slot in table.slots}
            self.groups = [_members(group, layer_of) for group in groups]
            for one, (settings, first) in zip(self.groups, firsts, strict=False):
                one |= {"settings": settings, "first": first}
            self.has_changed = True
        for one, group in zip(self.groups, groups, strict=True):
            settings = _settings(group)
            before = one["settings"]
            if settings == before:
                continue
            changed = {name: before[name] for name in before if name in settings and settings[name] != before[name]}
            one["settings"], one["first"] = settings, {**changed, **one["first"]}
            self.has_changed = True

    def row(self) -> tuple[Any, ...]:
        """As it stands in the run file."""
        is_later = bool(self.course) and self.seen[0] > self.course[-1][0]
        return as_row(self.number, self.kind, self.groups, [*self.course, *([self.seen] if is_later else [])])


class OptimizerLog:
    """Looks at the optimizers on measured steps, and writes what has changed.

    Args:
        writer: is told.
        queue: fetches rates that are on a device, without waiting.
        table: the layers.
        clock: seconds.
    """

    def __init__(self, writer: RunWriter, queue: RowQueue, table: LayerTable, clock: Callable[[], float]) -> None:
        self._writer, self._queue, self._table, self._clock = writer, queue, table, clock
        self._noted: dict[int, _Noted] = {}  # by id of the optimizer
        self._count = 0
        self._unseen = False  # there are some of which no row is written

    def add(self, stepper: Any) -> int | None:
        """Number the optimizer; None for what is none, such as what stands in for one whose step is compiled."""
        if not isinstance(stepper, torch.optim.Optimizer):
            return None
        known = self._noted.get(id(stepper))
        if known is not None and known.optimizer() is stepper:
            return known.number
        if known is not None:
            self._write(known)  # it was freed, and the new one has its address
        self._count += 1
        number = self._count
        if number <= MOST_OPTIMIZERS:
            self._noted[id(stepper)] = _Noted(number, stepper)
            self._unseen = True
        return number

    def look(self, stepper: Any, step: int) -> None:
        """Step number `step` of an optimizer, or of what stands in for all, is measured."""
        if self._unseen:
            self._meet_all()
        known = self._noted.get(id(stepper))
        if known is not None:
            self._look(known, stepper, step)
        elif not isinstance(stepper, torch.optim.Optimizer):
            for one in self._noted.values():
                optimizer = one.optimizer()
                if optimizer is not None:
                    self._look(one, optimizer, step)

    def finish(self) -> None:
        """Write what is not written yet, with the settings as they are: the recording ends."""
        for one in self._noted.values():
            optimizer = one.optimizer()
            if optimizer is not None:
                one.note_settings(optimizer.param_groups, self._table)
            self._write(one)

    def _meet_all(self) -> None:
        """Say of each what it has, be it never measured: its layers are not those that nobody trains."""
        self._unseen = False
        for one in self._noted.values():
            optimizer = one.optimizer()
            if not one.groups and optimizer is not None:
                one.note_settings(optimizer.param_groups, self._table)
                self._write(one)

    def _look(self, one: _Noted, optimizer: torch.optim.Optimizer, step: int) -> None:
        groups, now = optimizer.param_groups, self._clock()
        is_full = now >= one.look_at or len(groups) != len(one.groups)
        if is_full:
            one.look_at = now + LOOK_EVERY
            one.note_settings(groups, self._table)
        if is_full or len(groups) <= MANY_GROUPS:
            self._note_rates(one, groups, step, is_full)
        if one.has_changed and now >= one.write_at:
            one.write_at = now + WRITE_EVERY
            self._write(one)

    def _note_rates(self, one: _Noted, groups: list[dict[str, Any]], step: int, is_full: bool) -> None:
        rates = tuple([_rate(group.get("lr")) for group in groups])
        if None in rates:
            on_device = {i: group["lr"] for i, group in enumerate(groups) if _is_on_device(group.get("lr"))}
            if on_device:
                if is_full:
                    places = list(on_device)
                    deliver = lambda values: one.note_rates(step, _filled(rates, places, values))  # noqa: E731
                    self._queue.fetch(list(on_device.values()), deliver)
                return
        one.note_rates(step, rates)

    def _write(self, one: _Noted) -> None:
        if one.has_changed and one.groups:
            one.has_changed = False
            self._writer.optimizer(one.row())


def _rate(rate: Any) -> float | None:
    """A rate as a number; None if there is none, or it is on a device."""
    if type(rate) is float:
        return rate
    try:
        return None if rate is None or _is_on_device(rate) else float(rate)
    except (TypeError, ValueError, RuntimeError):
        return None


def _is_on_device(rate: Any) -> bool:
    return isinstance(rate, torch.Tensor) and rate.device.type != "cpu" and rate.numel() == 1


def _filled(rates: Rates, places: list[int], values: Any) -> Rates:
    """The rates, with those that were fetched from a device in their places."""
    fetched = dict(zip(places, map(float, values), strict=True))
    return tuple(fetched.get(i, rate) for i, rate in enumerate(rates))


def _thinned(course: list[tuple[int, Rates]]) -> list[tuple[int, Rates]]:
    """Every other point, the last one, and those where a group's rate is the smallest or the largest."""
    kept = {0, len(course) - 1, *range(0, len(course), 2)}
    for group in range(min(4, *(len(rates) for _, rates in course))):
        known = [(rates[group], i) for i, (_, rates) in enumerate(course) if rates[group] is not None]
        if known:
            kept |= {min(known)[1], max(known)[1]}
    return [course[i] for i in sorted(kept)]


def _members(group: Mapping[str, Any], layer_of: Mapping[int, int]) -> dict[str, Any]:
    """How many parameters a group has, and of which layers."""
    parameters = group["params"]
    name = group.get("name")
    return {
        "name": name[:MOST_TEXT] if isinstance(name, str) else "",
        "tensors": len(parameters),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "layers": spans(sorted({layer_of[id(p)] for p in parameters if id(p) in layer_of})),
        "settings": _settings(group),
        "first": {},
    }


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """What a group is told, as JSON has it; what is no number and no text is left out."""
    found = {}
    for name, value in group.items():
        if name not in NOT_SETTINGS and isinstance(name, str):
            several = isinstance(value, (tuple, list)) and len(value) <= 8
            simple = [_simple(one) for one in value] if several else _simple(value)
            if simple is not None and not (several and None in simple):
                found[name] = simple
    return found


def _simple(value: Any) -> Any:
    """A number or a text; None for anything else, and for a tensor on a device, where asking would wait."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value[:MOST_TEXT]
    if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.numel() == 1:
        return value.item()
    return None
