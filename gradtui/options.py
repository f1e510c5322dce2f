"""How a training is recorded: one set of options for `watch`, `gradtui run`, every callback and the lab.

Standard library only. An option is a field of `RecordOptions` and a line of `RecordKeywords`; its metadata makes the
flag of `gradtui run`. All of them but `on_finding` are stored in the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from gradtui.errors import UsageError
from gradtui.format import plain

if TYPE_CHECKING:
    from gradtui.diagnosis import Thresholds
    from gradtui.measures import Measure
    from gradtui.runfile import Finding


class RecordKeywords(TypedDict, total=False):
    """The fields of `RecordOptions` as keywords: `watch(model, optimizer, every=1)`."""

    every: int | None
    budget: float
    update_every: int | None
    layers: str | Sequence[str]
    name: str | None
    folder: str | Path | None
    thresholds: Mapping[str, float]
    on_finding: Callable[[Finding], None] | None
    measures: Sequence[Measure]


def _flag(help_text: str, metavar: str, **kind: Any) -> dict[str, Any]:
    return {"flag": {"help": help_text, "metavar": metavar, **kind}}


class OptionRangeError(ValueError):
    """An option is out of range: its name, what was given, and what is wanted, for Python and for the command line."""

    def __init__(self, name: str, value: float, wanted: str, *, or_none: bool = False) -> None:
        super().__init__(f"{name} is {value}: {wanted}{', or None' if or_none else ''}")
        self.name, self.value, self.wanted = name, value, wanted


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """How to record, and where.

    Attributes:
        every: measure each so many of an optimizer's own steps; None measures as often as `budget` allows.
        budget: the share of the time that measuring may cost: all of it if `every` is None, else what costs more than
            the gradient norms: ‖θ‖ and the update ratio, and the activations. If `every` is None, the first 63 steps of
            an optimizer are measured whatever the budget says, and then no more than 1/32 of its steps so far pass
            without one that is; what that costs is made up for later. Time is that of the training's own thread.
        update_every: take ‖θ‖ and the update ratio each so many steps of an optimizer, instead of by budget.
        layers: record these layers only: shell patterns such as "encoder.*"; with "!" before it, leave them out.
        name: what the run is called; the script's name by default.
        folder: where runs live; by default `$GRADTUI_DIR` or the user data folder.
        thresholds: numbers that decide what is a finding, as `Thresholds` or the changed ones by name.
        on_finding: called once for each finding that begins, in the training's thread right after a measured step or
            when the recorder is closed; what it raises ends the training.
        measures: what is measured beside gradtui's own measures.

    Raises:
        ValueError: `every`, `update_every` or `budget` is out of range, or there is no such threshold.
    """

    every: int | None = field(
        default=None,
        metadata=_flag(
            "measure every K-th step of each optimizer (default: as often as the budget allows)", "K", type=int
        ),
    )
    budget: float = field(
        default=0.01,
        metadata=_flag(
            "share of the training time that measuring may take, but for the first steps (default: 0.01)",
            "SHARE",
            type=float,
        ),
    )
    update_every: int | None = field(
        default=None,
        metadata=_flag("take the update ratio every K steps (default: within the budget)", "K", type=int),
    )
    layers: str | Sequence[str] = field(
        default=("*",),
        metadata=_flag(
            "record only these layers, e.g. 'encoder.*'; '!head*' leaves layers out; may be repeated",
            "PATTERN",
            action="append",
        ),
    )
    name: str | None = field(default=None, metadata=_flag("name of the run (default: name of the script)", "NAME"))
    folder: str | Path | None = None
    thresholds: Mapping[str, float] = field(
        default_factory=dict,
        metadata=_flag(
            "change a threshold of the diagnosis, e.g. dead=0.9; may be repeated", "NAME=NUMBER", action="append"
        ),
    )
    on_finding: Callable[[Finding], None] | None = None
    measures: Sequence[Measure] = ()

    def __post_init__(self) -> None:
        for name, steps in (("every", self.every), ("update_every", self.update_every)):
            if steps is not None and steps < 1:
                raise OptionRangeError(name, steps, "give a number of steps, 1 or more", or_none=True)
        if not 0 < self.budget <= 1:
            raise OptionRangeError("budget", self.budget, "give a share of the time, e.g. 0.01")
        layers = [self.layers] if isinstance(self.layers, str) else self.layers
        object.__setattr__(self, "layers", tuple(layers) or ("*",))
        object.__setattr__(self, "thresholds", _changed(self.thresholds))
        if self.thresholds:
            self.limits()
        if self.measures:
            from gradtui.measures import run_measures

            object.__setattr__(self, "measures", tuple(self.measures))
            run_measures(self.measures)

    def limits(self) -> Thresholds:
        """All thresholds that hold; loads the diagnosis. Raises `ValueError` if one that is changed does not exist."""
        from gradtui.diagnosis import Thresholds

        return Thresholds(**self.thresholds)

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it, for a child process and for the run: without callables, measures by name."""
        return {
            "every": self.every,
            "budget": self.budget,
            "update_every": self.update_every,
            "layers": list(self.layers),
            "name": self.name,
            "folder": None if self.folder is None else str(self.folder),
            "thresholds": plain(self.thresholds),
            "measures": [measure.name for measure in self.measures],
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> RecordOptions:
        """What `to_json` gave, without `measures`: a process has those that it registers."""
        known = {one.name for one in fields(cls)} - {"measures", "on_finding"}
        return cls(**{key: value for key, value in facts.items() if key in known})

    def __str__(self) -> str:
        percent = f"within {100 * self.budget:g} % of the step time"
        if self.every is None:
            often = f"; update ratio every {self.update_every} steps" if self.update_every else ""
            return percent + often
        rows = "every step" if self.every == 1 else f"every {self.every} steps"
        if self.update_every is None:
            return f"{rows}; update ratio {percent}"
        return f"{rows}; update ratio every {self.update_every} steps"


def record_options(options: RecordOptions | None, changes: Mapping[str, Any]) -> RecordOptions:
    """The options that are given, or the defaults, with the keywords that are given beside them."""
    return replace(options or RecordOptions(), **changes)


def add_record_flags(parser: Any) -> None:
    """Add a flag for each option that has one; what is not given is None."""
    for one in fields(RecordOptions):
        if "flag" in one.metadata:
            kind = dict(one.metadata["flag"])
            parser.add_argument(flag_of(one), dest=one.name, default=None, **kind)


def options_from_flags(given: argparse.Namespace, folder: Path) -> RecordOptions:
    """The options that the flags ask for; raises `UsageError`, one line, if one is out of range."""
    found: dict[str, Any] = {}
    for one in fields(RecordOptions):
        value = getattr(given, one.name, None) if "flag" in one.metadata else None
        if value is not None:
            found[one.name] = _thresholds(value) if one.name == "thresholds" else value
    try:
        return RecordOptions(**found, folder=folder)
    except UsageError as error:
        raise UsageError(f"--threshold: {error}") from error
    except OptionRangeError as error:
        raise UsageError(f"--{error.name.replace('_', '-')} {error.value}: {error.wanted}") from error


def flag_of(one: Field[Any]) -> str:
    """The flag of an option, e.g. `--update-every`."""
    return {"thresholds": "--threshold"}.get(one.name, f"--{one.name.replace('_', '-')}")


def _changed(thresholds: Mapping[str, float]) -> dict[str, float]:
    numbers = getattr(thresholds, "changed", thresholds)  # those of `Thresholds`
    # JSON has ∞ as a string
    return {name: number if isinstance(number, int) else float(number) for name, number in numbers.items()}


def _thresholds(words: Sequence[str]) -> dict[str, float]:
    found = {}
    for word in words:
        name, _, number = word.partition("=")
        try:
            found[name.strip().replace("-", "_")] = float(number)
        except ValueError as error:
            raise UsageError(f"--threshold {word!r}: give a name and a number, e.g. dead=0.9") from error
    return found
