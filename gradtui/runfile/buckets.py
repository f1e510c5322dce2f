"""Folds a run into the table `envelope` while it is written: a bounded number of buckets, however long the run is.

A bucket holds the smallest, the largest and the mean of each measure of so many recorded steps. When there are too
many, neighbours are merged two by two, and new ones grow as wide before they stay: so the widths of a run, oldest
first, read like the digits of a binary number, e.g. 4096, 4096, …, 4096, 2048, 512.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from gradtui.runfile.blocks import block_of, fold, fold_losses, optimizer_bits, pad_layers
from gradtui.runfile.schema import nan_as_text

Row = tuple[Any, ...]
_COLUMNS = (
    "first_step, last_step, rows, epoch, time, loss_minimum, loss_maximum, loss_mean,"
    " minimum, maximum, mean, optimizers"
)


class Buckets:
    """The buckets of one run; call `add` within a transaction, take a copy to go back to if it fails.

    Args:
        rows_each: steps in a new bucket.
        limit: of the widest there are always fewer, an even number; of each narrower width there is one at most.
        measures: the columns of each step's BLOB.
    """

    def __init__(self, rows_each: int, limit: int, measures: int) -> None:
        self._rows_each, self._limit, self._measures = rows_each, limit, measures
        self._widest = rows_each
        self._pending: list[Row] = []
        self._written: list[tuple[int, int]] = []  # first step and rows of each, oldest first

    def copy(self) -> Buckets:
        """The state as it is now."""
        twin = Buckets(self._rows_each, self._limit, self._measures)
        twin._widest, twin._pending, twin._written = self._widest, self._pending.copy(), self._written.copy()
        return twin

    def add(self, connection: sqlite3.Connection, steps: Sequence[Row]) -> None:
        """Take rows of the table `steps`; write the buckets that are full now."""
        self._pending += steps
        while len(self._pending) >= self._rows_each:
            bucket, self._pending = self._pending[: self._rows_each], self._pending[self._rows_each :]
            _insert(connection, _folded(bucket, self._measures))
            self._written.append((bucket[0][0], len(bucket)))
            self._tidy(connection)

    def _tidy(self, connection: sqlite3.Connection) -> None:
        written = self._written
        while len(written) > 1 and written[-1][1] == written[-2][1] < self._widest:
            self._merge(connection, len(written) - 2)
        if sum(rows == self._widest for _, rows in written) == self._limit:
            self._widest *= 2
            for older in range(self._limit // 2):
                self._merge(connection, older)

    def _merge(self, connection: sqlite3.Connection, older: int) -> None:
        """One of two neighbours."""
        (first, rows), (second, more) = self._written[older : older + 2]
        self._written[older : older + 2] = [(first, rows + more)]
        where = f"SELECT {_COLUMNS} FROM envelope WHERE first_step = ?"
        pair = [row for step in (first, second) if (row := connection.execute(where, (step,)).fetchone())]
        connection.execute("DELETE FROM envelope WHERE first_step = ?", (second,))
        if len(pair) == 2:
            _insert(connection, _merged(pair[0], pair[1], self._measures))


def _insert(connection: sqlite3.Connection, row: Row) -> None:
    connection.execute(f"INSERT OR REPLACE INTO envelope ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)


def _folded(bucket: Sequence[Row], measures: int) -> Row:
    losses = np.array([row[3] for row in bucket if row[3] is not None], np.float64)
    known = fold_losses(losses, np.where(np.isnan(losses), np.inf, losses), losses) if len(losses) else (None,) * 3
    longest = max((len(row[5]) for row in bucket if row[5] is not None), default=0)
    whole = [row[5] for row in bucket if row[5] is not None and len(row[5]) == longest]
    blobs = [part.astype("<f4").tobytes() for part in fold(*[block_of(whole, measures)] * 3)] if whole else [None] * 3
    first, last = bucket[0], bucket[-1]
    optimizers = reduce(or_, (optimizer_bits(row[6], row[5] is not None) for row in bucket))
    return nan_as_text((first[0], last[0], len(bucket), last[1], last[2], *known, *blobs, optimizers), (5, 6, 7))


def _merged(older: Row, newer: Row, measures: int) -> Row:
    losses: Any = [None] * 3
    if older[6] is not None or newer[6] is not None:
        pairs = [[np.nan if value is None else float(value) for value in (older[i], newer[i])] for i in (5, 6, 7)]
        losses = fold_losses(*(np.array(pair) for pair in pairs))
    blobs: Any = [None] * 3
    longest = max((len(row[8]) for row in (older, newer) if row[8] is not None), default=0)
    if longest:
        layers = longest // (4 * measures)
        blocks = [pad_layers([older[i], newer[i]], layers, measures) for i in (8, 9, 10)]
        blobs = [part.astype("<f4").tobytes() for part in fold(*blocks)]
    facts = (older[0], newer[1], older[2] + newer[2], newer[3], newer[4])
    return nan_as_text((*facts, *losses, *blobs, older[11] | newer[11]), (5, 6, 7))
