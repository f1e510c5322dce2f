"""From what was taken at measured steps to rows of the run file: in the writer's thread, many steps at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from gradtui.record.columns import Placed
from gradtui.record.host_norms import Layout, RawGradients
from gradtui.record.slots import Norms, Places
from gradtui.runfile import NOT_MEASURED
from gradtui.runfile.blocks import DoubleArray, FloatArray


class Foldable(Protocol):
    """What was taken at one step."""

    def add_to(self, fold: Fold, row: int) -> None:
        """Hand over what belongs in a row."""


class Fold:
    """Rows [rows, layers × measures] that are filled together; what is alike is worked out at once.

    Args:
        rows: how many.
        blank: a row in which nothing is measured.
    """

    def __init__(self, rows: int, blank: FloatArray) -> None:
        self.grids = np.tile(blank, (rows, 1))
        self._shared: dict[int, int] = {}  # rows that several samples add up to, and their place among those
        self._raw: dict[tuple[Layout, bool], list[tuple[int, RawGradients, float]]] = defaultdict(list)
        self._gradients: dict[tuple[Places, bool], list[tuple[int, DoubleArray]]] = defaultdict(list)
        self._updates: dict[tuple[Places, bool], list[tuple[int, DoubleArray, DoubleArray]]] = defaultdict(list)

    def share(self, row: int) -> None:
        """Several samples are to add up to this row."""
        self._shared[row] = len(self._shared)

    def add_raw_gradients(self, row: int, raw: RawGradients, scale: float) -> None:
        """Gradients in host memory, multiplied by `scale`."""
        self._raw[raw[0], row in self._shared].append((row, raw, scale))

    def add_gradients(self, row: int, places: Places, squares: DoubleArray) -> None:
        """Sums of squares of gradients [slots]."""
        self._gradients[places, row in self._shared].append((row, squares))

    def add_update(self, row: int, places: Places, parameters: DoubleArray, updates: DoubleArray) -> None:
        """Sums of squares of parameters and of the step that they took [slots]."""
        self._updates[places, row in self._shared].append((row, parameters, updates))

    def put(self, row: int, placed: Placed, values: DoubleArray | None = None) -> None:
        """Numbers that are measures already; `values` are those from a device."""
        self.grids[row, placed.places] = placed.values if values is None else values

    def finish(self) -> FloatArray:
        """The rows. Rows that several samples share have the norms over all of them."""
        shared = _SharedRows(len(self._shared), self.grids.shape[1])
        for (layout, is_shared), raw_members in self._raw.items():
            squares = layout.squares([raw for _, raw, _ in raw_members])
            squares /= np.square([scale for _, _, scale in raw_members])[:, None]
            rows = [row for row, _, _ in raw_members]
            self._put_gradients(rows, layout.places, squares, shared if is_shared else None)
        for (places, is_shared), members in self._gradients.items():
            squares = np.stack([squares for _, squares in members])
            self._put_gradients([row for row, _ in members], places, squares, shared if is_shared else None)
        for (places, is_shared), update_members in self._updates.items():
            if not places.active:
                continue
            rows = [row for row, _, _ in update_members]
            parameters = places.sums(np.stack([parameters for _, parameters, _ in update_members]))
            updates = places.sums(np.stack([updates for _, _, updates in update_members]))
            for norms, sums, divisors in (
                (places.parameters, parameters, None),
                (places.updates, updates, None),
                (places.relative_updates, updates, parameters),
            ):
                self._put_norms(rows, norms, sums, divisors, shared if is_shared else None)
        shared.fill(self.grids, list(self._shared))
        return self.grids

    def _put_gradients(self, rows: list[int], places: Places, squares: DoubleArray, shared: _SharedRows | None) -> None:
        if places.active:
            self._put_norms(rows, places.gradients, places.sums(squares), None, shared)

    def _put_norms(
        self,
        rows: list[int],
        norms: Norms,
        sums: DoubleArray,
        divisors: DoubleArray | None,
        shared: _SharedRows | None,
    ) -> None:
        if not len(norms.places):
            return
        squares = sums[:, norms.sums]
        below = None if divisors is None else divisors[:, norms.sums]
        if shared is not None:
            shared.add([self._shared[row] for row in rows], norms.places, squares, below)
        else:
            self.grids[np.ix_(np.array(rows, np.intp), norms.places)] = _roots(squares, below)


class _SharedRows:
    """Sums of squares over the samples that share a row.

    Args:
        rows: how many.
        width: numbers in a row: layers × measures.
    """

    def __init__(self, rows: int, width: int) -> None:
        self._squares, self._divisors = np.zeros((rows, width)), np.zeros((rows, width))
        self._are_measured, self._are_relative = np.zeros((rows, width), bool), np.zeros(width, bool)

    def add(self, rows: Sequence[int], places: Any, squares: DoubleArray, divisors: DoubleArray | None) -> None:
        """Add some [rows, places] to what is there."""
        where = np.ix_(np.array(rows, np.intp), places)
        self._squares[where] += squares
        self._are_measured[where] = True
        if divisors is not None:
            self._divisors[where] += divisors
            self._are_relative[places] = True

    def fill(self, grids: FloatArray, rows: Sequence[int]) -> None:
        """Put the norms in the grid, each row at its place there."""
        if len(rows):
            roots = _roots(self._squares, np.where(self._are_relative, self._divisors, 1.0))
            grids[rows] = np.where(self._are_measured, roots, grids[rows])


def _roots(squares: DoubleArray, divisors: DoubleArray | None) -> FloatArray:
    """Norms; a ratio to something that is all zero has no meaning and counts as not measured."""
    if divisors is None:
        return np.sqrt(squares).astype(np.float32)
    roots: FloatArray = np.sqrt(squares / divisors).astype(np.float32)
    roots[divisors == 0] = NOT_MEASURED
    return roots


def fold_samples(samples: Sequence[Foldable | bytes | None], blank: FloatArray) -> list[bytes | None]:
    """The BLOB of each sample; what is a BLOB already, or None, stays as it is.

    `blank` is a row [layers × measures] in which nothing is measured.
    """
    fold = Fold(len(samples), blank)
    with np.errstate(all="ignore"):  # NaN and infinity are values here
        for row, sample in enumerate(samples):
            if sample is not None and not isinstance(sample, bytes):
                sample.add_to(fold, row)
        grids = fold.finish()
    return [
        sample if sample is None or isinstance(sample, bytes) else row.tobytes()
        for sample, row in zip(samples, grids, strict=True)
    ]
