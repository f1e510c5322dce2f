"""Applies the rules to what a run recorded. A rule that raises, or gives something else, is left out and reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from gradtui.diagnosis.kinds import FINDINGS, LAST, Finding, Kind, Thresholds, kinds_in_order
from gradtui.diagnosis.series import Evidence, Series
from gradtui.errors import one_line, say_once


def find(evidence: Evidence, thresholds: Thresholds | None = None) -> list[Finding]:
    """The findings that hold at the end of what was recorded: causes first, what may be meant last."""
    limits = thresholds or Thresholds()
    found: list[Finding] = []
    hidden: set[str] = set()
    with np.errstate(all="ignore"):
        series = Series(evidence, limits)
        long_enough = len(series) >= limits.least_rows and series.span >= limits.least_steps
        for kind in kinds_in_order():
            own = _of(kind, series, limits) if kind.early or long_enough else []
            found += own
            hidden |= set(kind.hides) if own else set()
    return in_order(one for one in found if one.kind not in hidden)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Those that hold before those that do not any more, causes before what they lead to, notes last."""
    orders = {kind.name: kind.order for kind in FINDINGS.values()}
    return sorted(findings, key=lambda one: (one.cleared, one.note, orders.get(one.kind, LAST)))


def _of(kind: Kind, series: Series, limits: Thresholds) -> list[Finding]:
    """The findings of one rule; none if there is something wrong with it."""
    try:
        return [_checked(kind, one) for one in kind.rule(series, limits)]
    except Exception as error:
        say_once(f"findings of the kind {kind.name!r} are left out: its rule fails ({one_line(error)})")
        return []


def _checked(kind: Kind, one: Any) -> Finding:
    """A finding as it can be stored; raises `TypeError` for what is none of this kind."""
    if not isinstance(one, Finding) or one.kind != kind.name:
        raise TypeError(f"it gives {str(one)[:80]!r}, which is no Finding of its kind")
    named = isinstance(one.layers, (tuple, list)) and isinstance(one.remedies, (tuple, list))
    if not named or not all(isinstance(text, str) for text in (*one.layers, *one.remedies, one.evidence)):
        raise TypeError("layers and remedies are names, and the evidence is a text")
    if not isinstance(one.begin, Integral) or not isinstance(one.numbers, Mapping):
        raise TypeError("begin is a step, and numbers are numbers by name")
    if not all(isinstance(name, str) and isinstance(value, Real) for name, value in one.numbers.items()):
        raise TypeError("numbers are numbers by name")
    return replace(
        one,
        layers=tuple(one.layers),
        begin=int(one.begin),
        numbers={name: float(value) for name, value in one.numbers.items()},
        remedies=tuple(one.remedies) or kind.remedies,
        note=bool(one.note) or kind.note,
        end=None,
    )
