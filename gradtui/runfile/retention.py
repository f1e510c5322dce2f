"""Keeps a run file small however long the run is: the newest rows stay whole, older ones get ever sparser.

Rows of one kind (steps that hold as many measures, values of one metric) are numbered 0, 1, 2, … as they are written;
the number is the row's place. Of n rows those stay whose place is

- one of the newest `newest`, or
- a multiple of 2 and among the newest 2 × `newest`, or
- a multiple of 4 and among the newest 4 × `newest`, and so on; place 0 is a multiple of all.

So the distance between rows is proportional to their age, `newest`/2 rows are added each time a run doubles, and each
row that is written ends at most one old one: nothing has to be looked at but the two places.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gradtui.runfile.blocks import block_of, is_measured
from gradtui.runfile.buckets import Buckets
from gradtui.runfile.schema import nan_as_text

SAMPLED = ("neurons", "through_time", "pictures")  # tables of samples that thin out with the time
_INSERT_STEP = "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PAGE = 4096  # bytes of a page of the file, which a large row has for itself


@dataclass(frozen=True)
class Limits:
    """How much of a run its file keeps. Raises `ValueError` where rows could go before they are folded."""

    newest_rows: int = 32768  # steps that stay whole (of each kind); a power of two
    newest_bytes: int = 64 << 20  # where these would take more, fewer stay whole
    newest_values: int = 4096  # values of a metric that stay whole; a power of two
    metrics: int = 1000  # names of metrics that are recorded at all
    bucket_rows: int = 512  # steps folded into one bucket of the overview
    buckets: int = 1024  # of the overview: when so many are as wide, they are merged by twos; an even number
    first_events: int = 1000
    last_events: int = 4000
    samples: int = 1000  # of a table of samples at the beginning of a run
    sample_bytes: int = 16 << 20  # where these would take more, fewer are kept

    def __post_init__(self) -> None:
        for count in (self.newest_rows, self.newest_values):
            if count < 2 or count & (count - 1):
                raise ValueError(f"{count} is no power of two above 1")
        if self.newest_rows < self.bucket_rows or self.buckets < 2 or self.buckets % 2:
            raise ValueError("a bucket is longer than what stays whole, or the number of buckets is odd")

    def whole_rows(self, layers: int, measures: int) -> int:
        """How many steps of a net stay whole: a power of two."""
        size = 4 * layers * measures + 60
        size = size if size < _PAGE // 2 else math.ceil(size / _PAGE) * _PAGE
        fitting = max(1, self.newest_bytes // size)
        return max(self.bucket_rows, min(self.newest_rows, 1 << (fitting.bit_length() - 1)))


def ended(first: int, stop: int, newest: int) -> list[int]:
    """The places that go when the rows at the places from `first` to before `stop` are written."""
    # n - newest × 2^t is a multiple of 2^t, and no more of 2^(t + 1): its turn was to come when it is so old
    gone = (place - newest * (place & -place) for place in range(max(1, first), stop))
    return [place for place in gone if place > 0]


class RetainedTables:
    """Writes the tables of a run file that thin out; call within a transaction, take a copy to go back to if it fails.

    Args:
        limits: how much is kept.
        measures: the columns of each step's BLOB.
    """

    def __init__(self, limits: Limits, measures: int) -> None:
        self.rows = 0
        self._limits = limits
        self._measures = measures
        self._newest_rows = 0
        self._steps: dict[int, int] = {}
        self._values: dict[str, int] = {}
        self._too_many_metrics = False
        self._whole_after: int | None = None
        self._buckets = Buckets(limits.bucket_rows, limits.buckets, measures)
        self._samples = {table: SampleRetention(limits.samples, limits.sample_bytes) for table in SAMPLED}

    def copy(self) -> RetainedTables:
        """The state as it is now."""
        twin = RetainedTables(self._limits, self._measures)
        twin.__dict__.update(self.__dict__)
        twin._steps, twin._values = self._steps.copy(), self._values.copy()
        twin._buckets = self._buckets.copy()
        twin._samples = {table: samples.copy() for table, samples in self._samples.items()}
        return twin

    def write_steps(self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]], layers: int) -> None:
        """Add rows as `RunWriter.step` takes them, measures as bytes, and take away the old ones they end."""
        # once and for all: rows whose turn has passed are not looked at again
        self._newest_rows = self._newest_rows or self._limits.whole_rows(layers, self._measures)
        self._buckets.add(connection, rows)
        before = self._steps.copy()
        placed = []
        for row, measured in zip(rows, self._measured(rows), strict=True):
            place = self._steps.get(measured, 0)
            self._steps[measured] = place + 1
            *facts, optimizer = nan_as_text(row, (3, 4))
            placed.append((*facts, measured, place, optimizer))
        connection.executemany(_INSERT_STEP, placed)
        self.rows += len(rows)
        for measured, stop in self._steps.items():
            places = sorted(ended(before.get(measured, 0), stop, self._newest_rows))
            self._note_newest_gone(connection, measured, places)
            where = "DELETE FROM steps WHERE measured = ? AND place = ?"
            connection.executemany(where, [(measured, place) for place in places])

    def _note_newest_gone(self, connection: sqlite3.Connection, measured: int, places: Sequence[int]) -> None:
        """Say after which step all rows are there, before the rows at these places go."""
        for place in reversed(places):
            where = "SELECT step FROM steps WHERE measured = ? AND place = ?"
            found = connection.execute(where, (measured, place)).fetchone()
            if found:  # not if the step was recorded a second time
                if self._whole_after is None or found[0] > self._whole_after:
                    self._whole_after = found[0]
                    connection.execute("UPDATE heartbeat SET whole_after = ?", found)
                return

    def write_scalars(self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> str:
        """Add rows (step, epoch, name, value); what there is to say about them, or nothing."""
        before = self._values.copy()
        placed = []
        trouble = ""
        for row in rows:
            name = row[2]
            place = self._values.get(name, 0)
            if not place and len(self._values) >= self._limits.metrics:
                if not self._too_many_metrics:
                    trouble = f"more than {self._limits.metrics} metrics: {name!r} and others are not recorded"
                self._too_many_metrics = True
                continue
            self._values[name] = place + 1
            placed.append((*nan_as_text(row, (3,)), place))
        connection.executemany("INSERT INTO scalars (step, epoch, name, value, place) VALUES (?, ?, ?, ?, ?)", placed)
        for name in {row[2] for row in placed}:
            gone = ended(before.get(name, 0), self._values[name], self._limits.newest_values)
            where = "DELETE FROM scalars WHERE name = ? AND place = ?"
            connection.executemany(where, [(name, place) for place in gone])
        return trouble

    def write_events(self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows (time, step, kind, text); the first and the last are kept."""
        if rows:
            connection.executemany("INSERT INTO events (time, step, kind, text) VALUES (?, ?, ?, ?)", rows)
            connection.execute(
                "DELETE FROM events WHERE event > ? AND event <= (SELECT max(event) FROM events) - ?",
                (self._limits.first_events, self._limits.last_events),
            )

    def write_samples(
        self, connection: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]], seconds: float
    ) -> None:
        """Add rows (step, …, BLOB) to one of `SAMPLED`, so many `seconds` after the start."""
        if rows:
            connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
            # last, for a sample may be obsolete as soon as the next one of the same batch
            gone = [(step,) for step in self._samples[table].obsolete(rows, seconds)]
            connection.executemany(f"DELETE FROM {table} WHERE step = ?", gone)

    def _measured(self, rows: Sequence[tuple[Any, ...]]) -> list[int]:
        """How many of the measures each row holds."""
        found = [0] * len(rows)
        by_size: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            if row[5] is not None:
                by_size.setdefault(len(row[5]), []).append(i)
        for members in by_size.values():
            block = block_of([rows[i][5] for i in members], self._measures)
            counts = is_measured(block).any(axis=1).sum(axis=1).tolist()
            for i, count in zip(members, counts, strict=True):
                found[i] = count
        return found


class SampleRetention:
    """Keeps the newest sample of a table always, and older ones ever further apart as a run grows.

    Args:
        most: samples kept of the beginning of a run; each time the run is e times as long, so many are added.
        most_bytes: where these would take more, fewer are kept.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept_at = -math.inf
        self._newest: int | None = None
        self._newest_is_kept = True

    def copy(self) -> SampleRetention:
        """The state as it is now."""
        twin = SampleRetention(self._most, self._most_bytes)
        twin.__dict__.update(self.__dict__)
        return twin

    def obsolete(self, rows: Sequence[tuple[Any, ...]], seconds: float) -> list[int]:
        """Take rows (step, …, BLOB); the steps whose samples can be deleted now."""
        gone = []
        steps = sorted({row[0] for row in rows})
        size = sum(len(row[-1]) for row in rows) / max(1, len(steps))
        most = max(1.0, min(self._most, self._most_bytes / max(1.0, size)))
        for step in steps:
            if self._newest is not None and not self._newest_is_kept and step != self._newest:
                gone.append(self._newest)
            self._newest = step
            self._newest_is_kept = seconds - self._kept_at >= seconds / most
            if self._newest_is_kept:
                self._kept_at = seconds
        return gone
