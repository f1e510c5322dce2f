"""Rows of a run file as records, each value checked; what does not fit raises `ValueError`. Standard library only."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from gradtui.runfile import checked
from gradtui.runfile.schema import OLD_KINDS, OLD_OUTPUTS, Finding, Layer, Measure, Pictures, Schedule

MOST_SIDE = 1 << 16  # pixels
LARGEST_PIXEL = 1e39  # float32 ends before


def measure_of(row: tuple[Any, ...]) -> Measure:
    """A measure; files of schema 1 and 2 do not say what it is taken from."""
    measure = checked.row_as(Measure, row, "a measure")
    return replace(measure, source="outputs") if len(row) == 4 and measure.name in OLD_OUTPUTS else measure


def layer_of(row: tuple[Any, ...]) -> Layer:
    """A layer: name, kind, shapes, parameters, size, optimizers, branches, shapes of input and output."""
    name, kind, shapes, parameters, size, optimizers, branches, *in_and_out = row
    seen = [None if text is None else _counts(text, "a shape") for text in in_and_out]
    own = dict(_shapes(shapes))
    count = checked.whole(parameters, "the number of parameters")
    held_by, leads_to = _counts(optimizers, "a layer's optimizers"), _counts(branches, "a layer's branches")
    words = [checked.text(one, f"a layer's {what}") for one, what in ((name, "name"), (kind, "kind"), (size, "size"))]
    return Layer(words[0], words[1], own, count, seen[0], seen[1], words[2], held_by, leads_to)


@lru_cache(1024)  # of ten thousand layers, most have the shapes of others
def _counts(text: Any, what: str) -> tuple[int, ...]:
    return checked.counts(checked.parsed(text, what), what)


@lru_cache(1024)
def _shapes(text: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    found = checked.mapping(checked.parsed(text, "the shapes"), "the shapes")
    return tuple((key, checked.counts(shape, "a shape")) for key, shape in found.items())


def finding_of(row: tuple[Any, ...]) -> Finding:
    """A finding: kind, layers, first step, evidence, numbers, remedies, note, last step."""
    kind, layers, begin, evidence, numbers, remedies, note, end = row
    kind = checked.text(kind, "a finding's kind")
    known = checked.mapping(checked.parsed(numbers, "a finding's numbers"), "a finding's numbers")
    return Finding(
        OLD_KINDS.get(kind, kind),
        checked.texts(checked.parsed(layers, "a finding's layers"), "a finding's layers"),
        checked.whole(begin, "a finding's step"),
        checked.text(evidence, "a finding's evidence"),
        {name: checked.any_float(value, "a finding's number") for name, value in known.items()},
        checked.texts(checked.parsed(remedies, "a finding's remedies"), "a finding's remedies"),
        bool(note),
        None if end is None else checked.whole(end, "a finding's step"),
    )


def schedule_of(row: tuple[Any, ...]) -> Schedule:
    """How often an optimizer was measured."""
    optimizer, steps, measured = (checked.whole(value, "a schedule") for value in row[:3])
    return Schedule(optimizer, steps, measured, *(known(value) for value in row[3:]))


def known(value: Any) -> int | None:
    """The number of an optimizer or of a step; None for NULL."""
    return None if value is None else checked.whole(value, "a number")


def set_of(value: Any) -> int:
    """A set of optimizers."""
    return -1 if value is None else checked.whole(value, "a set of optimizers", least=-1, most=2**63 - 1)


def pictures_of(row: tuple[Any, ...]) -> Pictures:
    """Pictures, the bytes of which are as many as their sides say."""
    found = checked.row_as(Pictures, row, "pictures")
    rows, columns = (checked.whole(side, "a side of a picture", most=MOST_SIDE) for side in (found.rows, found.columns))
    if rows * columns and len(found.pixels) % (rows * columns):
        raise ValueError(f"pictures of {rows} × {columns} are {len(found.pixels)} bytes")
    for value in (found.low, found.high):
        checked.number(value, "a picture's value", -LARGEST_PIXEL, LARGEST_PIXEL)
    return found
