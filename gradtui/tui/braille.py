"""Curves to braille cells, two by four dots each; a column spans from its smallest to its largest value. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Unicode's order of the dots of a braille cell, as rows of (left, right)
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


@dataclass(frozen=True)
class Plot:
    """Characters and, for each cell, the curve drawn last in it (-1: none); both are lists of rows.

    `ends` says in which row each curve ends on the right, None if it was not drawn.
    """

    rows: list[str]
    owner: list[list[int]]
    ends: list[int | None]
    low: float
    high: float


def draw(
    steps: npt.NDArray[np.int64],
    values: npt.NDArray[np.floating],
    width: int,
    height: int,
    *,
    log: bool,
) -> Plot:
    """Draw curves, `values` [buckets, curves] over `steps` [buckets], into `width` × `height` cells.

    Values that are not finite, or negative on a log axis, are left out; exact zeros run along its floor. The axis runs
    over `steps`, and from the smallest to the largest value.
    """
    usable = _usable(values, log)
    if not len(steps) or np.isnan(usable).all():
        return Plot([" " * width] * height, [[-1] * width for _ in range(height)], [], np.nan, np.nan)
    low, high = float(np.nanmin(usable)), float(np.nanmax(usable))
    if log:
        usable[values == 0] = low  # a gradient that underflowed runs along the floor
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    columns, dots = 2 * width, 4 * height
    place = ((steps - steps[0]) / max(1, steps[-1] - steps[0]) * (columns - 1)).round().astype(int)
    canvas = np.zeros((dots, columns), bool)
    owner = np.full((height, width), -1)
    codes = np.zeros((height, width), int)
    ends: list[int | None] = []
    for curve in range(usable.shape[1]):
        canvas[:] = False
        _draw_one(canvas, place, usable[:, curve], low, high)
        cells = canvas.reshape(height, 4, width, 2)
        own = (cells * _DOTS[None, :, None, :]).sum(axis=(1, 3))
        owner[own > 0] = curve
        codes |= own
        used = own.any(axis=0)
        ends.append(int(own[:, used.nonzero()[0][-1]].nonzero()[0][0]) if used.any() else None)
    rows = ["".join(chr(0x2800 + code) if code else " " for code in line) for line in codes.tolist()]
    axis = (10**low, 10**high) if log else (low, high)
    return Plot(rows, owner.tolist(), ends, float(axis[0]), float(axis[1]))


def _usable(values: npt.NDArray[np.floating], log: bool) -> npt.NDArray[np.float64]:
    wide = values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        wide = np.log10(wide) if log else wide
    wide[~np.isfinite(wide)] = np.nan
    return wide


def _draw_one(
    canvas: npt.NDArray[np.bool_],
    place: npt.NDArray[np.int_],
    values: npt.NDArray[np.float64],
    low: float,
    high: float,
) -> None:
    """Fill, in each column, the span from the smallest to the largest value, joined to the column before it."""
    dots, columns = canvas.shape
    seen = ~np.isnan(values)
    if not seen.any():
        return
    smallest, largest = np.full(columns, np.inf), np.full(columns, -np.inf)
    np.minimum.at(smallest, place[seen], values[seen])
    np.maximum.at(largest, place[seen], values[seen])
    filled = np.flatnonzero(np.isfinite(largest))
    scale = (dots - 1) / (high - low)
    top = ((high - largest[filled]) * scale).round().astype(int)
    bottom = ((high - smallest[filled]) * scale).round().astype(int)
    # columns between two known ones are bridged by a straight line
    every = np.arange(filled[0], filled[-1] + 1)
    top_line = np.interp(every, filled, top).round().astype(int)
    bottom_line = np.interp(every, filled, bottom).round().astype(int)
    joined_top = top_line.copy()
    joined_bottom = bottom_line.copy()
    joined_top[1:] = np.where(top_line[1:] > bottom_line[:-1] + 1, bottom_line[:-1] + 1, top_line[1:])
    joined_bottom[1:] = np.where(bottom_line[1:] < top_line[:-1] - 1, top_line[:-1] - 1, bottom_line[1:])
    level = np.arange(dots)[:, None]
    canvas[:, every] |= (level >= joined_top) & (level <= joined_bottom)
