"""Reads a run file while it is written, after it ended, or after its process died."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtui.errors import RunFileError
from gradtui.runfile.blocks import (
    Aggregates,
    DoubleArray,
    FloatArray,
    NeuronGrads,
    Rows,
    Scalars,
    ThroughTime,
    pad_layers,
)
from gradtui.runfile.optimizer_facts import OptimizerFacts, from_row
from gradtui.runfile.schema import OLD_KINDS, OLD_OUTPUTS, Event, Finding, Layer, Measure, Origin, Pictures
from gradtui.runfile.summary import RunMetadata

WHOLE_UP_TO = 4096  # recorded steps: a shorter run, or window, is read as it is


def open_run(path: str | Path) -> RunReader:
    """Open a run file for reading; raises `RunFileError` if it is none."""
    return RunReader(Path(path))


class RunReader(RunMetadata):
    """One reader of a run file; use it from one thread.

    Raises `RunFileError`, with a line that says what is wrong, from every method if the file is damaged or gone.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, clock=clock)
        self._layers: list[Layer] = []
        try:
            with self._reading():
                more = ", title, source" if self.version >= 3 else ""
                found = self._all(f"SELECT name, symbol, unit, definition{more} FROM measures ORDER BY position")
                self.measures = [_measure(row) for row in found]
        except RunFileError:
            self.close()
            raise

    def layers(self) -> list[Layer]:
        """The layers in order of execution; empty until the first step."""
        with self._reading():
            found = self._all(
                "SELECT name, kind, shapes, parameters, input_shape, output_shape FROM layers ORDER BY layer"
            )
        self._layers = [_layer(row) for row in found]
        return self._layers

    def optimizers(self) -> list[OptimizerFacts]:
        """The optimizers in the order in which they were met; none in files that are older than this table."""
        if self.version < 4:
            return []
        with self._reading():
            found = self._all("SELECT optimizer, kind, groups, course FROM optimizers ORDER BY optimizer")
            return [from_row(row) for row in found]

    def newer(self, than_step: int, limit: int = WHOLE_UP_TO) -> Rows:
        """Recorded steps after `than_step`, oldest first, at most `limit`."""
        return self._rows("WHERE step > ? ORDER BY step LIMIT ?", (than_step, limit))

    def last(self, count: int = 1) -> Rows:
        """The newest `count` recorded steps, oldest first."""
        newest = self._rows("ORDER BY step DESC LIMIT ?", (count,))
        return Rows(*(getattr(newest, f.name)[::-1] for f in fields(Rows)))

    def losses(self, newer_than: int = 0) -> tuple[npt.NDArray[np.int64], DoubleArray]:
        """The recorded steps after `newer_than` that have a loss, oldest first, and their losses."""
        with self._reading():
            found = self._all(
                "SELECT step, loss FROM steps WHERE step > ? AND loss IS NOT NULL ORDER BY step", (newer_than,)
            )
        return np.array([row[0] for row in found], np.int64), _floats([row[1] for row in found])

    def at(self, step: int, count: int = 1) -> Rows:
        """The newest `count` recorded steps that are not after `step` and have measures, newest first."""
        where = "WHERE step <= ? AND measures IS NOT NULL ORDER BY step DESC LIMIT ?"
        return self._rows(where, (step, count))

    def after(self, step: int) -> Rows:
        """The oldest recorded step after `step` that has measures (one row, or none)."""
        return self._rows("WHERE step > ? AND measures IS NOT NULL ORDER BY step LIMIT 1", (step,))

    def buckets(self) -> Aggregates:
        """The run in buckets that were folded while it was written; `rows` says how many steps each holds.

        The newest steps are in no bucket yet: `newer` gives them.
        """
        return self._thinned(0, 2**62)

    def is_whole(self, after_step: int) -> bool:
        """True if all recorded steps after this one are there: of older ones the file keeps fewer and fewer."""
        if self.version < 2:
            return True
        with self._reading():
            found = self._one("SELECT whole_after FROM heartbeat")
        return found is None or found[0] is None or after_step >= found[0]

    def overview(self) -> Aggregates:
        """The whole run, thinned to smallest and largest values; a short run as it is."""
        span = self.span()
        if span is None:
            return Aggregates.of_rows(self.newer(-1, 0))
        return self.window(*span)

    def window(self, first: int, last: int) -> Aggregates:
        """The steps from `first` to `last`: in full if they are few and all there, in buckets otherwise.

        Where less than a bucket is asked for, of steps that are thinned: those that are left.
        """
        rows = self._rows("WHERE step BETWEEN ? AND ? ORDER BY step LIMIT ?", (first, last, WHOLE_UP_TO + 1))
        if len(rows) <= WHOLE_UP_TO and self.is_whole(first - 1):
            return Aggregates.of_rows(rows)
        thinned = self._thinned(first, last)
        if not len(thinned):
            return Aggregates.of_rows(rows)
        inside = self._rows(
            "WHERE step BETWEEN ? AND ? ORDER BY step", (first, min(last, int(thinned.first_step[0]) - 1))
        )
        tail = self._rows("WHERE step BETWEEN ? AND ? ORDER BY step", (int(thinned.last_step[-1]) + 1, last))
        ends = [Aggregates.of_rows(rows).merged(max(1, len(rows))) for rows in (inside, tail)]
        return Aggregates.join([ends[0], thinned, ends[1]])

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

    def through_time(self, step: int) -> ThroughTime | None:
        """The newest sample of the gradient through time that is not after `step`; None if the net has no time."""
        with self._reading():
            if not self._all("SELECT 1 FROM sqlite_master WHERE name = 'through_time'"):
                return None  # written before recurrent nets were
            found = self._all(
                "SELECT step, state, grad_norm FROM through_time"
                " WHERE step = (SELECT max(step) FROM through_time WHERE step <= ?) ORDER BY state",
                (step,),
            )
        if not found:
            return None
        return ThroughTime(found[0][0], {state: np.frombuffer(blob, "<f4") for _, state, blob in found})

    def pictures(self, step: int, known: tuple[Pictures, ...] = ()) -> tuple[Pictures, ...]:
        """Of each kind of pictures the newest that are not after `step`; `known` are given back if they still are."""
        with self._reading():
            if not self._all("SELECT 1 FROM sqlite_master WHERE name = 'pictures'"):
                return ()  # written before there were any
            newest = self._all(
                "SELECT max(step), name FROM pictures WHERE step <= ? GROUP BY name ORDER BY rowid", (step,)
            )
            if [(one.step, one.name) for one in known] == newest:
                return known
            columns = "step, name, layer, rows, columns, low, high, pixels"
            found = [self._all(f"SELECT {columns} FROM pictures WHERE step = ? AND name = ?", key) for key in newest]
        return tuple(Pictures(*row) for rows in found for row in rows if row[3] * row[4] > 0)

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

    def origins(self) -> list[Origin]:
        """Where the first NaN or ∞ came from; empty if there was none, or nobody saw it."""
        with self._reading():
            if not self._all("SELECT 1 FROM sqlite_master WHERE name = 'origins'"):
                return []  # written before anybody looked
            found = self._all("SELECT step, phase, layer, what FROM origins ORDER BY rowid")
        return [Origin(*row) for row in found]

    def findings(self) -> list[Finding] | None:
        """What the diagnosis said while the run was recorded, oldest first; None if the run is older than that."""
        if self.version < 3:
            return None
        columns = "kind, layers, first_step, evidence, numbers, remedies, note, last_step"
        with self._reading():
            return [_finding(row) for row in self._all(f"SELECT {columns} FROM findings ORDER BY finding")]

    def events(self) -> list[Event]:
        """What happened, in order; the last thousand."""
        with self._reading():
            found = self._all("SELECT time, step, kind, text FROM events ORDER BY event DESC LIMIT 1000")
        return [Event(*row) for row in reversed(found)]

    # -- inside -----------------------------------------------------------------------------------------------------

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

    def _thinned(self, first: int, last: int) -> Aggregates:
        columns = (
            "first_step, last_step, rows, epoch, time, loss_minimum, loss_maximum, loss_mean, minimum, maximum, mean"
        )
        with self._reading():
            found = self._all(
                f"SELECT {columns} FROM envelope WHERE first_step >= ? AND last_step <= ? ORDER BY first_step",
                (first, last),
            )
        first_step, last_step, rows = (np.array([row[column] for row in found], np.int64) for column in (0, 1, 2))
        epoch, seconds, low, high, mean = (_floats([row[column] for row in found]) for column in (3, 4, 5, 6, 7))
        blocks = (self._decode([row[column] for row in found]) for column in (8, 9, 10))
        return Aggregates(first_step, last_step, rows, epoch, seconds, low, high, mean, *blocks)

    def _decode(self, blobs: list[bytes | None]) -> FloatArray:
        layers = self._layers or self.layers()
        return pad_layers(blobs, len(layers), len(self.measures))


def _measure(row: tuple[Any, ...]) -> Measure:
    if len(row) == 4 and row[0] in OLD_OUTPUTS:
        return Measure(*row, source="outputs")
    return Measure(*row)


def _layer(row: tuple[Any, ...]) -> Layer:
    name, kind, shapes, parameters, *in_and_out = row
    seen = [None if text is None else tuple(json.loads(text)) for text in in_and_out]
    own = {key: tuple(shape) for key, shape in json.loads(shapes).items()}
    return Layer(str(name), str(kind), own, int(parameters), *seen)


def _finding(row: tuple[Any, ...]) -> Finding:
    kind, layers, begin, evidence, numbers, remedies, note, end = row
    known = {name: float(value) for name, value in json.loads(numbers).items()}
    named, helps = tuple(json.loads(layers)), tuple(json.loads(remedies))
    kind, until = OLD_KINDS.get(kind, str(kind)), None if end is None else int(end)
    return Finding(kind, named, int(begin), str(evidence), known, helps, bool(note), until)


def _floats(values: list[Any]) -> DoubleArray:
    return np.array([np.nan if value is None else float(value) for value in values], np.float64)
