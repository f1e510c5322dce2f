"""What a run file may hold: each value that is read is checked here, and what does not fit raises `ValueError`.

A file may be damaged, made by another program, or forged. Standard library only.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from gradtui.format import printable

MOST_COUNT = 1 << 53  # steps, parameters: what a float64 still counts
MOST_LAYERS = 50_000
LATEST = 253_402_300_799.0  # s since the epoch: the end of the year 9999, which calendars still know
DEEPEST = 50  # brackets in each other in a JSON text
LONGEST_JSON = 16 << 20  # characters
LONGEST_INTEGER = 30  # digits: Python takes a time that grows with their square
_NOT_FINITE = ("nan", "inf", "-inf")  # as `plain` writes them

T = TypeVar("T")


def shown(value: Any) -> str:
    """A value in an error: short, and on one line."""
    try:
        return printable(repr(value[:60] if isinstance(value, (str, bytes)) else value), 60)
    except Exception:  # an integer of too many digits
        return f"a value of type {type(value).__name__}"


def whole(value: Any, what: str, least: int = 0, most: int = MOST_COUNT) -> int:
    """A count or a step."""
    if type(value) is int and least <= value <= most:
        return value
    raise ValueError(f"{what} is {shown(value)}")


def number(value: Any, what: str, least: float = -math.inf, most: float = math.inf) -> float:
    """A number, which is finite if a limit is."""
    if type(value) in (int, float) and least <= value <= most:
        return float(value)
    raise ValueError(f"{what} is {shown(value)}")


def moment(value: Any, what: str) -> float:
    """Seconds since the epoch."""
    return number(value, what, 0.0, LATEST)


def seconds(value: Any, what: str) -> float:
    """Seconds since the start; a clock may have been set back."""
    return number(value, what, -LATEST, LATEST)


def any_float(value: Any, what: str) -> float:
    """A number that may be NaN, which the file holds as a text, or infinite."""
    if type(value) is float:
        return value
    if value in _NOT_FINITE or type(value) is int:
        return float(value)
    raise ValueError(f"{what} is {shown(value)}")


def text(value: Any, what: str) -> str:
    """A text."""
    if type(value) is str:
        return value
    raise ValueError(f"{what} is {shown(value)}")


def floats32(value: Any, what: str) -> bytes:
    """A BLOB of float32."""
    if type(value) is bytes and len(value) % 4 == 0:
        return value
    size = f"{len(value)} bytes" if type(value) is bytes else shown(value)
    raise ValueError(f"{what} is {size}")


def parsed(value: Any, what: str) -> Any:
    """What a JSON text says."""
    if type(value) is not str or len(value) > LONGEST_JSON:
        raise ValueError(f"{what} is {shown(value)}")
    try:
        found = _DECODER.decode(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is no JSON: {shown(value)}") from error
    _check_depth(found, what)
    return found


def counts(value: Any, what: str) -> tuple[int, ...]:
    """A list of counts, as of JSON: a shape, numbers of others."""
    if type(value) is not list:
        raise ValueError(f"{what} is {shown(value)}")
    return tuple(whole(one, what) for one in value)


def texts(value: Any, what: str) -> tuple[str, ...]:
    """A list of texts, as of JSON."""
    if type(value) is not list:
        raise ValueError(f"{what} is {shown(value)}")
    return tuple(text(one, what) for one in value)


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """An object, as of JSON."""
    if type(value) is dict:
        return value
    raise ValueError(f"{what} is {shown(value)}")


def record(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    """An instance of a dataclass, each field of which has the type that it is declared with."""
    for name, hint in _hints(kind).items():  # type: ignore[arg-type]
        if name in values and not conforms(values[name], hint):
            raise ValueError(f"{what}: {name} is {shown(values[name])}")
    return kind(**values)


def row_as(kind: type[T], row: Iterable[Any], what: str) -> T:
    """As `record`, of values in the order of the fields."""
    names = (field.name for field in dataclasses.fields(kind))  # type: ignore[arg-type]
    return record(kind, dict(zip(names, row, strict=False)), what)


def conforms(value: Any, hint: Any) -> bool:
    """True if a value is of a declared type; an integer is a float too, and so are NaN and ∞ as texts."""
    if hint is Any:
        return True
    kind, inside = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        return any(conforms(value, one) for one in inside)
    if hint is float:
        return type(value) in (int, float) or value in _NOT_FINITE
    if hint is type(None):
        return value is None
    if kind is list:
        return type(value) is list and all(conforms(one, inside[0]) for one in value)
    if kind in (dict, Mapping):
        return type(value) is dict and all(type(k) is str and conforms(v, inside[1]) for k, v in value.items())
    return type(value) is (kind or hint)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError("an integer is too long")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_integer)


def _check_depth(value: Any, what: str) -> None:
    """Whoever walks over it later does so by recursion."""
    if not isinstance(value, (list, dict)):
        return
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"{what} has more than {DEEPEST} brackets in each other")
        inside: list[Any] = []
        for one in level:
            if isinstance(one, (list, dict)):
                inside += one.values() if isinstance(one, dict) else one
        level = inside
