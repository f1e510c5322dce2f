"""The history of a run in bounded room, however long it grows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gradtui.runfile.blocks import NOT_MEASURED, Aggregates, Rows

BUCKETS = 512  # buckets of history that are kept: more than a screen has columns; must be even


class History:
    """The whole run in at most 512 buckets of equally many recorded steps, however long it grows.

    A bucket keeps the smallest, the largest and the mean value of each measure. When the buckets are full,
    neighbours are merged, and each covers twice as many steps.
    """

    def __init__(self, layers: int, measures: int, buckets: int = BUCKETS) -> None:
        self._limit = buckets
        self._stride = 1
        count, number = np.empty(0, np.int64), np.empty(0)
        measured = np.empty((0, layers, measures), np.float32)
        self._full = Aggregates(*(count,) * 3, *(number,) * 5, *(measured,) * 3, count)
        self._rest = self._full

    def widen(self, layers: int) -> None:
        """Make room for layers that have joined; what is there has no values of them."""
        self._full, self._rest = _widened(self._full, layers), _widened(self._rest, layers)

    def add_rows(self, rows: Rows) -> None:
        """Take newer recorded steps."""
        if len(rows):
            self.add(Aggregates.of_rows(rows))

    def add(self, aggregates: Aggregates) -> None:
        """Take newer buckets; a wide one may fill more than a bucket by itself."""
        if not len(self._full) and len(aggregates):
            self._stride = max(self._stride, int(aggregates.rows.max()))
        waiting = Aggregates.join([self._rest, aggregates])
        while ends := _ends(waiting.rows, self._stride):
            # filled to the brim exactly, so that an even number is there to be merged in pairs
            ends = ends[: self._limit - len(self._full)]
            self._full = Aggregates.join([self._full, waiting.sliced(0, ends[-1]).grouped(ends)])
            waiting = waiting.sliced(ends[-1], len(waiting))
            if len(self._full) == self._limit:
                self._full = self._full.merged(2)
                self._stride *= 2
        self._rest = waiting

    def aggregates(self) -> Aggregates:
        """All buckets, and what does not fill one yet."""
        return Aggregates.join([self._full, self._rest.merged(max(1, len(self._rest)))])


def _widened(aggregates: Aggregates, layers: int) -> Aggregates:
    more = layers - aggregates.mean.shape[1]
    if more <= 0:
        return aggregates
    blocks = {
        name: np.pad(getattr(aggregates, name), ((0, 0), (0, more), (0, 0)), constant_values=NOT_MEASURED)
        for name in ("minimum", "maximum", "mean")
    }
    return replace(aggregates, **blocks)


def _ends(rows: npt.NDArray[np.int64], stride: int) -> list[int]:
    """Where buckets of `stride` recorded steps end, among buckets that hold so many `rows`."""
    filled = rows.cumsum() // stride
    ends: list[int] = (np.flatnonzero(np.diff(filled, prepend=0)) + 1).tolist()
    return ends
