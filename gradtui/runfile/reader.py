"""Reads a run file while it is written, after it ended, or after its process died."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from gradtui.errors import RunFileError
from gradtui.runfile.liveness import Status, judge
from gradtui.runfile.schema import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    DoubleArray,
    Envelope,
    Event,
    FloatArray,
    Header,
    Layer,
    Measure,
    NeuronGrads,
    Rows,
    Scalars,
    pad_layers,
)

WHOLE_UP_TO = 4096  # recorded steps: a shorter run, or window, is read as it is
SQLITE_MAGIC = b"SQLite format 3\0"


def open_run(path: str | Path) -> RunReader:
    """Open a run file for reading; raises `RunFileError` if it is none."""
    return RunReader(Path(path))


class RunReader:
    """One reader of a run file; use it from one thread.

    Raises `RunFileError`, with a line that says what is wrong, from every method if the file is damaged or gone.
    `clock` gives seconds since the epoch.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._connection = _connect(path)
        self._layers: list[Layer] = []
        try:
            with self._reading():
                self._check_identity()
                facts = dict(self._all("SELECT key, value FROM header"))
                self.header = _header(facts)
                self.measures = [Measure(*row) for row in self._all(
                    "SELECT name, symbol, unit, definition FROM measures ORDER BY position"
                )]  # fmt: skip
        except RunFileError:
            self._connection.close()
            raise

    def __enter__(self) -> RunReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @property
    def run_id(self) -> str:
        """The file's name without its ending: what `gradtui attach` takes."""
        return self.path.stem

    def layers(self) -> list[Layer]:
        """The layers in order of execution; empty until the first step."""
        with self._reading():
            found = self._all(
                "SELECT name, kind, shapes, parameters, input_shape, output_shape FROM layers ORDER BY layer"
            )
        self._layers = [_layer(row) for row in found]
        return self._layers

    def status(self) -> Status:
        """Whether the run is live, how it ended, or that it died."""
        with self._reading():
            ending = self._one("SELECT outcome, detail FROM ending")
            heartbeat = self._one("SELECT time FROM heartbeat")
        header = self.header
        beat = heartbeat[0] if heartbeat else header.started
        return judge(ending, beat, header.machine, header.pid, header.process_start, self._clock())

    def duration(self) -> float:
        """Seconds from the start to the end, or to the last sign of life."""
        with self._reading():
            ending = self._one("SELECT time FROM ending")
            heartbeat = self._one("SELECT time FROM heartbeat")
        last = ending or heartbeat
        return max(0.0, float(last[0]) - self.header.started) if last else 0.0

    def recorded(self) -> int:
        """About how many steps are recorded (as of the last heartbeat)."""
        with self._reading():
            found = self._one("SELECT rows FROM heartbeat")
        return int(found[0]) if found else 0

    def span(self) -> tuple[int, int] | None:
        """The first and the last recorded step; None if there is none yet."""
        with self._reading():
            first, last = self._one("SELECT min(step), max(step) FROM steps") or (None, None)
        return None if first is None else (int(first), int(last))

    def newer(self, than_step: int, limit: int = WHOLE_UP_TO) -> Rows:
        """Recorded steps after `than_step`, oldest first, at most `limit`."""
        return self._rows("WHERE step > ? ORDER BY step LIMIT ?", (than_step, limit))

    def last(self, count: int = 1) -> Rows:
        """The newest `count` recorded steps, oldest first."""
        newest = self._rows("ORDER BY step DESC LIMIT ?", (count,))
        return Rows(*(getattr(newest, f.name)[::-1] for f in fields(Rows)))

    def at(self, step: int, count: int = 1) -> Rows:
        """The newest `count` recorded steps that are not after `step` and have measures, newest first."""
        where = "WHERE step <= ? AND measures IS NOT NULL ORDER BY step DESC LIMIT ?"
        return self._rows(where, (step, count))

    def after(self, step: int) -> Rows:
        """The oldest recorded step after `step` that has measures (one row, or none)."""
        return self._rows("WHERE step > ? AND measures IS NOT NULL ORDER BY step LIMIT 1", (step,))

    def stretches(self) -> tuple[Envelope, int]:
        """The run in stretches that were folded while it was written, and how many recorded steps each holds.

        The newest steps are in no stretch yet: `newer` gives them.
        """
        with self._reading():
            rows = self._one("SELECT rows FROM envelope LIMIT 1")
        return self._thinned(0, 2**62), int(rows[0]) if rows else 1

    def overview(self) -> Envelope:
        """The whole run, thinned to smallest and largest values; a short run as it is."""
        span = self.span()
        if span is None:
            return Envelope.of_rows(self.newer(-1, 0))
        return self.window(*span)

    def window(self, first: int, last: int) -> Envelope:
        """The steps from `first` to `last`: in full if they are few, thinned otherwise."""
        rows = self._rows("WHERE step BETWEEN ? AND ? ORDER BY step LIMIT ?", (first, last, WHOLE_UP_TO + 1))
        if len(rows) <= WHOLE_UP_TO:
            return Envelope.of_rows(rows)
        thinned = self._thinned(first, last)
        if not len(thinned):
            return Envelope.of_rows(rows)
        inside = self._rows(
            "WHERE step BETWEEN ? AND ? ORDER BY step", (first, min(last, int(thinned.first_step[0]) - 1))
        )
        tail = self._rows("WHERE step BETWEEN ? AND ? ORDER BY step", (int(thinned.last_step[-1]) + 1, last))
        ends = [Envelope.of_rows(rows).merged(max(1, len(rows))) for rows in (inside, tail)]
        return Envelope.join([ends[0], thinned, ends[1]])

    def neurons(self, step: int) -> NeuronGrads | None:
        """The newest sample of the neurons' gradients that is not after `step`."""
        with self._reading():
            found = self._all(
                "SELECT step, layer, bias_grad FROM neurons"
                " WHERE step = (SELECT max(step) FROM neurons WHERE step <= ?) ORDER BY layer",
                (step,),
            )
        if not found:
            return None
        return NeuronGrads(found[0][0], {layer: np.frombuffer(blob, "<f4") for _, layer, blob in found})

    def scalars(self, newer_than: int = 0) -> tuple[dict[str, Scalars], int]:
        """The metrics by name, those added after `newer_than`; and the mark to ask with the next time."""
        with self._reading():
            found = self._all(
                "SELECT scalar, step, epoch, name, value FROM scalars WHERE scalar > ? ORDER BY scalar",
                (newer_than,),
            )
        by_name: dict[str, list[tuple[Any, ...]]] = {}
        for row in found:
            by_name.setdefault(str(row[3]), []).append(row)
        series = {
            name: Scalars(
                np.array([row[1] for row in rows], np.int64),
                _floats([r[2] for r in rows]),
                _floats([r[4] for r in rows]),
            )
            for name, rows in by_name.items()
        }
        return series, (found[-1][0] if found else newer_than)

    def events(self) -> list[Event]:
        """What happened, in order; the last thousand."""
        with self._reading():
            found = self._all("SELECT time, step, kind, text FROM events ORDER BY event DESC LIMIT 1000")
        return [Event(*row) for row in reversed(found)]

    # -- inside -----------------------------------------------------------------------------------------------

    def _check_identity(self) -> None:
        (application,) = self._one("PRAGMA application_id") or (0,)
        if application != APPLICATION_ID:
            raise RunFileError(f"{self.path} is an SQLite database but not a gradtui run")
        (version,) = self._one("PRAGMA user_version") or (0,)
        if version > SCHEMA_VERSION:
            raise RunFileError(
                f"{self.path} was written by a newer gradtui"
                f" (schema {version}, this one reads {SCHEMA_VERSION}): upgrade gradtui"
            )

    def _rows(self, where: str, arguments: tuple[int, ...]) -> Rows:
        with self._reading():
            found = self._all(f"SELECT step, epoch, time, loss, learning_rate, measures FROM steps {where}", arguments)
        epoch, seconds, loss, rate = (_floats([row[column] for row in found]) for column in (1, 2, 3, 4))
        return Rows(
            np.array([row[0] for row in found], np.int64),
            epoch,
            seconds,
            loss,
            rate,
            self._decode([row[5] for row in found]),
            np.array([row[3] is not None for row in found], np.bool_),
        )

    def _thinned(self, first: int, last: int) -> Envelope:
        columns = "first_step, last_step, epoch, time, loss_minimum, loss_maximum, loss_mean, minimum, maximum, mean"
        with self._reading():
            found = self._all(
                f"SELECT {columns} FROM envelope WHERE first_step >= ? AND last_step <= ? ORDER BY first_step",
                (first, last),
            )
        epoch, seconds, *losses = (_floats([row[column] for row in found]) for column in (2, 3, 4, 5, 6))
        return Envelope(
            np.array([row[0] for row in found], np.int64),
            np.array([row[1] for row in found], np.int64),
            epoch,
            seconds,
            losses[0],
            losses[1],
            losses[2],
            self._decode([row[7] for row in found]),
            self._decode([row[8] for row in found]),
            self._decode([row[9] for row in found]),
        )

    def _decode(self, blobs: list[bytes | None]) -> FloatArray:
        layers = self._layers or self.layers()
        return pad_layers(blobs, len(layers), len(self.measures))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            raise RunFileError(_explain(self.path, error)) from error

    def _all(self, query: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, arguments).fetchall()

    def _one(self, query: str) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(query).fetchone()
        return row


def request(path: Path, command: str, *, clock: Callable[[], float] = time.time) -> None:
    """Ask the training that writes `path` for something, e.g. "stop"; it answers within about a second.

    Raises `RunFileError` if the file cannot be written.
    """
    try:
        with sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=5.0) as connection:
            connection.execute("INSERT INTO commands (time, name) VALUES (?, ?)", (clock(), command))
        connection.close()
    except sqlite3.Error as error:
        raise RunFileError(f"cannot ask the training to {command}: {_explain(path, error)}") from error


def _connect(path: Path) -> sqlite3.Connection:
    try:
        with path.open("rb") as file:
            magic = file.read(len(SQLITE_MAGIC))
    except OSError as error:
        raise RunFileError(f"cannot open {path}: {error.strerror or error}") from error
    if magic != SQLITE_MAGIC:
        what = "is empty" if not magic else "is not a gradtui run"
        raise RunFileError(f"{path} {what}: `gradtui runs` lists the runs there are")
    address = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=2.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        # A read-only folder takes no shared-memory file: read what the database itself holds
        connection.close()
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None, check_same_thread=False)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise RunFileError(_explain(path, error)) from error
    return connection


def _explain(path: Path, error: Exception) -> str:
    if not path.exists():
        return f"{path} is gone"
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return f"{path} is locked by another program; try again"
    return f"{path} is damaged or cut short ({error})"


def _header(facts: dict[str, str]) -> Header:
    known = {field.name for field in fields(Header)}
    return Header(**{key: json.loads(value) for key, value in facts.items() if key in known})


def _layer(row: tuple[Any, ...]) -> Layer:
    name, kind, shapes, parameters, *in_and_out = row
    seen = [None if text is None else tuple(json.loads(text)) for text in in_and_out]
    own = {key: tuple(shape) for key, shape in json.loads(shapes).items()}
    return Layer(str(name), str(kind), own, int(parameters), *seen)


def _floats(values: list[Any]) -> DoubleArray:
    return np.array([np.nan if value is None else float(value) for value in values], np.float64)
