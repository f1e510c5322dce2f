"""The kinds of findings, each with its rule, and the thresholds that decide. No numpy.

A finding is added in one place, ours and yours alike: a rule with the decorator `finding`, in your own code or in a
module that an entry point of the group `gradtui.findings` names.

    @gradtui.finding("noisy", meaning="the loss jumps", remedies=("lower-rate",), thresholds={"noise": 0.5})
    def noisy(series, limits):
        if series.loss.std() > limits.noise:
            yield series.finding("noisy", [], 1, "the loss jumps", {"std": series.loss.std()})
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from gradtui.errors import UsageError
from gradtui.format import hint, plain
from gradtui.registry import Registry
from gradtui.runfile.schema import Finding

__all__ = [
    "FINDINGS",
    "SHARED",
    "Finding",
    "Kind",
    "Threshold",
    "ThresholdError",
    "Thresholds",
    "finding",
    "kinds_in_order",
    "thresholds_table",
]

LAST = 1000.0  # the order of a kind that names none

Rule = Callable[..., Iterable[Finding]]  # (Series, Thresholds) -> findings
R = TypeVar("R", bound=Rule)


class Threshold(NamedTuple):
    """A number that decides what is a finding: its default, and what it is of."""

    default: float
    meaning: str = ""


SHARED: Mapping[str, Threshold] = {
    "least_rows": Threshold(2, "recorded steps below which only NaN is reported"),
    "least_steps": Threshold(25, "steps below which only NaN and explosions are reported"),
    "patience": Threshold(100, "steps before a loss, or the parameters, are said not to change"),
    "slope": Threshold(3.0, "the fall of the recent losses, in standard errors, that counts as still falling"),
    "begin": Threshold(0.05, "share of the run, its beginning, that later values are compared with"),
    "recent": Threshold(0.25, "share of the run, its end, that counts as now"),
    "exceptions": Threshold(0.1, "share of the steps that may differ from what is said to hold"),
    "progress": Threshold(0.1, "share of its first value by which a loss has to have fallen to count as learning"),
    "learnt": Threshold(0.6, "the same, from which on a net whose loss falls no more has learnt what it can"),
}


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Attributes:
        name: e.g. "vanishing".
        meaning: what it means, in a few words.
        rule: looks for it: (series, thresholds) -> findings.
        remedies: names in `gradtui.remedies.REMEDIES`, for findings that name none of their own.
        thresholds: those that the rule adds to the shared ones.
        note: True for what may well be meant.
        order: findings are listed by it, causes before what they lead to.
        early: True to be looked for from the first row on, not only after `least_steps`.
        hides: kinds that are left out where this one is found.
        ends: False for what cannot become right again.
    """

    name: str
    meaning: str
    rule: Rule
    remedies: tuple[str, ...] = ()
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    note: bool = False
    order: float = LAST
    early: bool = False
    hides: tuple[str, ...] = ()
    ends: bool = True


FINDINGS: Registry[Kind] = Registry("finding", "gradtui.findings", "gradtui.diagnosis.rules")


def finding(
    kind: str,
    *,
    meaning: str,
    remedies: Iterable[str] = (),
    thresholds: Mapping[str, float | tuple[float, str]] | None = None,
    note: bool = False,
    order: float = LAST,
    **how: Any,
) -> Callable[[R], R]:
    """Register a rule for a kind of finding.

    Args:
        kind: what it is called, e.g. "vanishing"; a rule yields findings of this kind alone.
        meaning: what it means, in a few words.
        remedies: names in `gradtui.remedies.REMEDIES` that may help.
        thresholds: name -> default, or (default, what it is of). All thresholds share one space of names.
        note: True for what may well be meant, such as a frozen layer.
        order: findings are listed by it, causes before what they lead to; ours have 10 to 100, others come last.
        how: `early`, `hides` and `ends` as `Kind` has them.

    Raises:
        UsageError: the kind, or one of the thresholds, is there already.
    """
    own = {name: _threshold(value) for name, value in (thresholds or {}).items()}

    def register(rule: R) -> R:
        for one in FINDINGS.registered():
            if one.name == kind and _place_of(one.rule) == _place_of(rule):
                FINDINGS.unregister(kind)  # a notebook's cell that runs again, or a module that is reloaded
        taken = {name for one in FINDINGS.registered() for name in one.thresholds} | set(SHARED)
        for name in taken & set(own):
            raise UsageError(f"there is a threshold {name!r} already: give that of {kind!r} another name")
        FINDINGS.register(kind, Kind(kind, meaning, rule, tuple(remedies), own, note, order, **how))
        return rule

    return register


def kinds_in_order() -> list[Kind]:
    """All kinds, causes before what they lead to."""
    return sorted(FINDINGS.values(), key=lambda kind: kind.order)


def _place_of(rule: Rule) -> tuple[object, object]:
    return getattr(rule, "__module__", None), getattr(rule, "__qualname__", rule)


def _threshold(value: float | tuple[float, str]) -> Threshold:
    return Threshold(*value) if isinstance(value, tuple) else Threshold(float(value))


def thresholds_table() -> dict[str, Threshold]:
    """All thresholds by name: the shared ones, then those of each kind of finding."""
    return {**SHARED, **{name: one for kind in FINDINGS.values() for name, one in kind.thresholds.items()}}


class ThresholdError(UsageError, ValueError):
    """There is no such threshold, or its value is no number."""


class Thresholds(Mapping[str, float]):
    """The numbers that decide what is a finding: the defaults, and those that are given, e.g. `Thresholds(dead=0.9)`.

    A frozen mapping, whose numbers are attributes too. `thresholds_table` says what each is of; most are ratios.

    Raises:
        ThresholdError: there is no such threshold, or a value is no number.
    """

    __slots__ = ("_numbers",)
    _numbers: dict[str, float]

    def __init__(self, **changes: float) -> None:
        table = thresholds_table()
        for name, value in changes.items():
            if name not in table:
                raise ThresholdError(f"there is no threshold {name!r}: {hint(name, table)}")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
                raise ThresholdError(f"the threshold {name} is {value!r}: give a number")
        numbers = {name: float(changes.get(name, one.default)) for name, one in table.items()}
        object.__setattr__(self, "_numbers", numbers)

    def __getattr__(self, name: str) -> float:
        if not name.startswith("_"):
            if name in self._numbers:
                return self._numbers[name]
            table = thresholds_table()  # a finding may have been registered since
            if name in table:
                return table[name].default
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("thresholds are frozen: make others, e.g. Thresholds(dead=0.9)")

    def __getitem__(self, name: str) -> float:
        return self._numbers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __hash__(self) -> int:
        return hash(frozenset(self._numbers.items()))

    def __reduce__(self) -> Any:
        return Thresholds.from_json, (self._numbers,)

    def __repr__(self) -> str:
        return f"Thresholds({', '.join(f'{name}={value:g}' for name, value in self.changed.items())})"

    @property
    def changed(self) -> dict[str, float]:
        """Those that are not the defaults."""
        table = thresholds_table()
        return {name: value for name, value in self.items() if name not in table or value != table[name].default}

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it: all of them by name."""
        facts: dict[str, Any] = plain(self)
        return facts

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Thresholds:
        """What `to_json` gave; names that are unknown here, and what is no number, are left out."""
        table, known = thresholds_table(), {}
        for name, value in facts.items():
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            if name in table and not math.isnan(number):
                known[name] = number
        return cls(**known)
