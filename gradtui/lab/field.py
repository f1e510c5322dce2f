"""What is known of one field of a recipe: its flag, its help, its limits, and how its values are read and written.

Standard library only. `recipe_fields` has the fields themselves; the flags of the command line, the rows of the form,
the checks and the types in JSON all come from them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from gradtui.errors import UsageError
from gradtui.remedies import Remedy, choices, register

MOST_LAYERS = 10_000
# what a field may hold, by the words of its annotation
_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str, "int": int, "float": (int, float), "tuple[int, ...]": (tuple, list), "None": type(None),
}  # fmt: skip
_METAVARS = {"int": "N", "float": "X"}


class Described(Protocol):
    """A value of a choice, for people."""

    @property
    def what(self) -> str:
        """What it is."""

    @property
    def why(self) -> str:
        """Why one would take it."""

    @property
    def source(self) -> str:
        """Where it comes from."""


@dataclass(frozen=True)
class Field:
    """One field of a recipe.

    Attributes:
        group: which flags and rows it stands with.
        help: what it is; a choice says it by its values.
        default_words: its default in words, where the value does not say it.
        metavar: what its flag shows for a value.
        aliases: other flags for the same.
        least, most: limits of a number.
        offered: texts that the form goes through; empty for what is no row of the form. A choice offers its values.
        values: the values of a choice, each with its description; None for a number or a text.
        only_with: another field and the values of it that this one makes sense with.
        is_extra: whether the one-line summary names it where it is not at its default.
        is_later: added since recipes were first kept: at its default a training is the same as one from before.
        name, default, kinds: of the dataclass: the attribute, its default, and the words of its type.
    """

    group: str
    help: str = ""
    default_words: str = ""
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    least: float = -math.inf
    most: float = math.inf
    offered: tuple[str, ...] = ()
    values: Callable[[], Mapping[str, Described | None]] | None = None
    only_with: tuple[str, tuple[str, ...]] | None = None
    is_in_form: bool = False
    is_extra: bool = True
    is_later: bool = False
    name: str = ""
    default: Any = None
    kinds: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """E.g. `--learning-rate`."""
        return "--" + self.name.replace("_", "-")

    @property
    def words(self) -> str:
        """Its name in a sentence."""
        return self.name.replace("_", " ")

    @property
    def flag_help(self) -> str:
        """The text of `--help`."""
        values = self.values() if self.values is not None else {}
        told = "; ".join(f"{name}: {value.what}" for name, value in values.items() if value is not None)
        if not told:
            told = ", ".join(filter(None, (self.help, " or ".join(values))))
        default = self.default_words or self.text(self.default)
        return told + (f" (default: {default})" if default else "")

    @property
    def flag_metavar(self) -> str | None:
        """What `--help` shows for a value; None for the flag's own name."""
        if self.values is not None:
            return "NAME"
        return self.metavar or next((_METAVARS[kind] for kind in self.kinds if kind in _METAVARS), None)

    def texts(self) -> tuple[str, ...]:
        """The values that ← and → go through in the form."""
        return tuple(self.values()) if self.values is not None else self.offered

    def meaning(self, value: Any) -> str:
        """What a value means, why one would take it, and where it comes from."""
        if self.values is None:
            return self.help + (f"; empty: {self.default_words}" if self.default is None and self.default_words else "")
        entry = self.values().get(str(value))
        return "" if entry is None else f"{entry.what}\n\n{entry.why}\n\n{entry.source}"

    def check_type(self, value: Any) -> None:
        """Raise `UsageError` for a value of JSON that the field cannot hold."""
        units = value if isinstance(value, (tuple, list)) else ()
        fits = any(isinstance(value, _TYPES[kind]) for kind in self.kinds)
        if not fits or isinstance(value, bool) or any(type(unit) is not int for unit in units):
            raise UsageError(f"a recipe cannot have {value!r} as its {self.name}: {' | '.join(self.kinds)} is wanted")

    def check(self, value: Any) -> None:
        """Raise `UsageError` for a value that is not offered or out of range."""
        if self.values is not None:
            values = self.values()
            if value not in values:
                raise UsageError(f"{self.flag} {value!r}: choose one of {', '.join(values)}")
        elif isinstance(value, (int, float)) and (not self.least <= value <= self.most or math.isinf(value)):
            least, most = self.least, self.most
            limits = f"from {least:g} to {most:g}" if math.isfinite(most) else f"a finite number from {least:g} on"
            raise UsageError(f"{self.flag} {value:g}: give {limits}")

    def parse(self, text: str) -> Any:
        """The value that a text stands for, empty for None; raises `UsageError` if it is none."""
        if self.name == "hidden":
            return parse_hidden(text)
        if not text and "None" in self.kinds:
            return None
        try:
            return int(text) if "int" in self.kinds else float(text) if "float" in self.kinds else text
        except ValueError as error:
            wanted = "a whole number" if "int" in self.kinds else "a number"
            raise UsageError(f"{self.words} {text!r}: give {wanted}") from error

    def text(self, value: Any) -> str:
        """A value as a text that `parse` takes."""
        if isinstance(value, tuple):
            return ",".join(f"{units}x{times}" if times > 1 else str(units) for units, times in runs(value)) or "none"
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:g}" if float(f"{value:g}") == value else repr(value)
        return str(value)


def number(default: float | None, group: str, help: str, *remedies: Remedy, **facts: Any) -> Any:
    """A field that is a number or a text, with the remedies that set it; `facts` are attributes of `Field`."""
    for remedy in remedies:
        register(remedy)
    entry = Field(group, help, **{"is_in_form": "offered" in facts, **facts})
    return dataclasses.field(default=default, metadata={"field": entry})


def choice(default: str, group: str, values: Callable[[], Mapping[str, Described | None]], **facts: Any) -> Any:
    """A field that takes one of several values."""
    entry = Field(group, values=values, **{"is_in_form": True, **facts})
    return dataclasses.field(default=default, metadata={"field": entry})


def remedies_of(name: str, *, none: bool = False) -> Callable[[], Mapping[str, Described | None]]:
    """The values of a choice that are remedies of the table, after `none` if the field may be off."""
    return lambda: {**({"none": None} if none else {}), **choices(name)}


@cache
def fields_of(kind: type) -> dict[str, Field]:
    """The fields of a dataclass that `number` and `choice` made, by name."""
    return {
        field.name: dataclasses.replace(
            field.metadata["field"], name=field.name, default=field.default, kinds=tuple(str(field.type).split(" | "))
        )
        for field in dataclasses.fields(kind)
    }


def runs(hidden: tuple[int, ...]) -> list[tuple[int, int]]:
    """Equal layers that follow each other: (units, times)."""
    found: list[tuple[int, int]] = []
    for units in hidden:
        if found and found[-1][0] == units:
            found[-1] = (units, found[-1][1] + 1)
        else:
            found.append((units, 1))
    return found


def parse_hidden(text: str) -> tuple[int, ...]:
    """`30,20` -> (30, 20), `30x4` -> (30, 30, 30, 30), `none` -> (); raises `UsageError` for anything else."""
    if text.strip().lower() in ("", "none"):
        return ()
    units: list[int] = []
    for group in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:[x×*]\s*([0-9]{1,9}))?\s*", group)
        if match is None:
            raise UsageError(
                f"--hidden {text!r}: give units by commas, e.g. 30,30 or 30x2; {group.strip()!r} is neither"
            )
        times = int(match[2] or 1)
        if times == 0:
            raise UsageError(f"--hidden {text!r}: {group.strip()!r} is no layer; `none` asks for no hidden layers")
        if len(units) + times > MOST_LAYERS:
            raise UsageError(f"--hidden {text!r}: that is more than {MOST_LAYERS:,} layers")
        units += [int(match[1])] * times
    if 0 in units:
        raise UsageError(f"--hidden {text!r}: a layer needs at least one unit")
    return tuple(units)
