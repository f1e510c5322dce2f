"""Which numbers a setting takes, in one table: settings, gradient estimators and commands check by it. No torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from pretrain.errors import DataError, SettingError

MOST = 10**9  # of what is counted: more would not end
MOST_UNITS = 10**6  # of a layer
MOST_SEED = 2**64 - 1  # torch's generators take 64 bits


@dataclass(frozen=True)
class Limit:
    """From `least` to `most`; `above` leaves the first out, `below` the second. `whole` numbers only, or all.

    `is_off_at_0`: in flags and TOML files 0 stands for None, which leaves out what the number is for.
    """

    least: float = 0
    most: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False
    is_off_at_0: bool = False

    def holds(self, value: Any) -> bool:
        """Whether it is such a number; NaN, infinities, booleans and texts are none."""
        is_number = isinstance(value, Integral if self.whole else Real) and not isinstance(value, bool)
        if not is_number or (not self.whole and not math.isfinite(value)):
            return False
        from_least = self.least < value if self.above else self.least <= value
        to_most = value < self.most if self.below else value <= self.most
        return bool(from_least and to_most)

    @property
    def words(self) -> str:
        """E.g. "a whole number from 1 up"."""
        noun = "a whole number" if self.whole else "a number"
        least, most = (f"{limit:,}" if self.whole else f"{limit:g}" for limit in (self.least, self.most))
        if self.most == math.inf:
            return f"{noun} above {least}" if self.above else f"{noun} from {least} up"
        if self.above and self.below:
            return f"{noun} between {least} and {most}, without these"
        if self.above or self.below:
            return f"{noun} {'above' if self.above else 'from'} {least} {'and below' if self.below else 'to'} {most}"
        return f"{noun} from {least} to {most}"


def _counted(least: int, most: int = MOST) -> Limit:
    return Limit(least, most, whole=True)


_POSITIVE, _FROM_0 = Limit(above=True), Limit()
LIMITS: Mapping[str, Limit] = {
    "epochs": _counted(0),
    "epochs_before": _counted(0),
    "batch_size": _counted(1),
    "learning_rate": _POSITIVE,
    "momentum": Limit(0, 1, below=True),
    "memory": Limit(whole=True),
    "checkpoint_every": _FROM_0,
    "max_norm": Limit(above=True, is_off_at_0=True),
    "patience": Limit(1, MOST, whole=True, is_off_at_0=True),
    "scale": _POSITIVE,
    "seed": _counted(0, MOST_SEED),
    "threads": _counted(0, 1024),
    "steps": _counted(1),
    "chains": _counted(1),
    "temperatures": _counted(2),
    "burn_in": _counted(0),
    "fast_rate": _FROM_0,
    "clip": Limit(above=True, is_off_at_0=True),
    "weight_cost": _FROM_0,
    "l1_cost": _FROM_0,
    "sparsity_cost": _FROM_0,
    "sparsity_target": Limit(0, 1, above=True, below=True),
    "level": _FROM_0,
    "contraction": _FROM_0,
    "sparsity": _FROM_0,
    "target": Limit(0, 1, above=True, below=True),
    "layers": _counted(1, MOST_UNITS),
    "up_down_epochs": _counted(0),
    "dropout": Limit(0, 1, below=True),
    "input_dropout": Limit(0, 1, below=True),
    "validation": Limit(0, 1, below=True),
    "ais_chains": _counted(2),
    "ais_steps": _counted(1),
    "count": _counted(1),
    "label": _counted(0),
}


def check_numbers(values: Iterable[tuple[str, Any]]) -> None:
    """Raise `SettingError` for the first number, by name, that is out of its range.

    None leaves a choice open, a function is called later, of a sequence each number is checked.
    """
    for name, value in values:
        limit = LIMITS.get(name)
        if limit is None or value is None or callable(value):
            continue
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        for number in value if is_list else (value,):
            if number is not None and not callable(number) and not limit.holds(number):
                raise SettingError(name, number, limit.words)


def are_more(epochs: Any, before: Any) -> bool:
    """Whether `epochs`, a number or one for each layer, are none fewer than those before."""
    now, then = (value if isinstance(value, (list, tuple)) else [value] for value in (epochs, before))
    if not all(isinstance(value, int) for value in then) or not then:
        return False
    count = max(len(now), len(then))
    if not {len(now), len(then)} <= {1, count}:
        return False
    now, then = (list(values) * (count if len(values) == 1 else 1) for values in (now, then))
    return all(new >= old for new, old in zip(now, then, strict=True))


def check_burn_in(burn_in: int, steps: int) -> None:
    """Raise `SettingError` unless some of the Gibbs steps are counted."""
    if burn_in >= steps:
        raise SettingError("burn_in", burn_in, f"fewer than the {steps} steps")


def check_level(noise: str, level: float) -> None:
    """Raise `SettingError` for the level of a noise that is a probability if it is none."""
    if noise != "gaussian" and level > 1:
        raise SettingError("level", level, f"a probability: it is the level of {noise} noise")


def check_memory(needed: float, what: str) -> None:
    """Raise `DataError` for what needs more bytes than this computer has memory: it would be killed half-way."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not told on this system
        return
    if needed > there:
        raise DataError(f"{what} would take {needed / 1e9:,.1f} GB; this computer has {there / 1e9:,.1f} GB")
