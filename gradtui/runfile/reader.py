"""Reads a run file while it is written, after it ended, or after its process died."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtui.errors import RunFileError
from gradtui.runfile import checked
from gradtui.runfile.blocks import (
    Aggregates,
    DoubleArray,
    FloatArray,
    NeuronGrads,
    Rows,
    Scalars,
    ThroughTime,
    optimizer_bits,
    pad_layers,
)
from gradtui.runfile.optimizer_facts import OptimizerFacts, from_row
from gradtui.runfile.records import finding_of, known, layer_of, measure_of, pictures_of, schedule_of, set_of
from gradtui.runfile.schema import Event, Finding, Layer, Origin, Pictures, Schedule
from gradtui.runfile.summary import RunMetadata, reads

WHOLE_UP_TO = 4096  # recorded steps: a shorter run, or window, is read as it is
MOST_VALUES = 1 << 27  # measures that are read at once: of a very deep net, fewer steps
FEWEST_ROWS = 512  # a bucket, or what is kept whole, of however many layers
MOST_MEASURES, MOST_FINDINGS = 1_000, 5_000


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
                if len(found) > MOST_MEASURES:
                    raise ValueError(f"it has {len(found):,} measures")
                self.measures = [measure_of(row) for row in found]
        except RunFileError:
            self.close()
            raise

    @reads
    def layers(self) -> list[Layer]:
        """The layers in order of execution; empty until the first step."""
        with self._reading():
            more = "size, optimizers, branches" if self.version >= 4 else "'', '[]', '[]'"
            columns = f"name, kind, shapes, parameters, {more}, input_shape, output_shape"
            found = self._all(f"SELECT {columns} FROM layers ORDER BY layer")
        if len(found) > checked.MOST_LAYERS:
            raise ValueError(f"it has {len(found):,} layers")
        self._layers = [layer_of(row) for row in found]
        return self._layers

    @reads
    def optimizers(self) -> list[OptimizerFacts]:
        """The optimizers in the order in which they were met; none in files that are older than this table."""
        if self.version < 4:
            return []
        with self._reading():
            found = self._all("SELECT optimizer, kind, groups, course FROM optimizers ORDER BY optimizer")
            return [from_row(row) for row in found]

    def newer(self, than_step: int, limit: int = WHOLE_UP_TO) -> Rows:
        """Recorded steps after `than_step`, oldest first, at most `limit`."""
        return self._rows("WHERE step > ? ORDER BY step LIMIT ?", (than_step, self._most_rows(limit)))

    def last(self, count: int = 1) -> Rows:
        """The newest `count` recorded steps, oldest first."""
        newest = self._rows("ORDER BY step DESC LIMIT ?", (self._most_rows(count),))
        return Rows(*(getattr(newest, f.name)[::-1] for f in fields(Rows)))

    @reads
    def losses(self, newer_than: int = 0) -> tuple[npt.NDArray[np.int64], DoubleArray]:
        """The recorded steps after `newer_than` that have a loss, oldest first, and their losses."""
        with self._reading():
            found = self._all(
                "SELECT step, loss FROM steps WHERE step > ? AND loss IS NOT NULL ORDER BY step", (newer_than,)
            )
        return _steps([row[0] for row in found]), _floats([row[1] for row in found])

    def at(self, step: int, count: int = 1) -> Rows:
        """The newest `count` recorded steps that are not after `step` and have measures, newest first."""
        where = "WHERE step <= ? AND measures IS NOT NULL ORDER BY step DESC LIMIT ?"
        return self._rows(where, (step, self._most_rows(count)))

    def after(self, step: int) -> Rows:
        """The oldest recorded step after `step` that has measures (one row, or none)."""
        return self._rows("WHERE step > ? AND measures IS NOT NULL ORDER BY step LIMIT 1", (step,))

    def buckets(self) -> Aggregates:
        """The run in buckets that were folded while it was written; `rows` says how many steps each holds.

        The newest steps are in no bucket yet: `newer` gives them.
        """
        return self._thinned(0, 2**62)

    @reads
    def is_whole(self, after_step: int) -> bool:
        """True if all recorded steps after this one are there: of older ones the file keeps fewer and fewer."""
        if self.version < 2:
            return True
        with self._reading():
            found = self._one("SELECT whole_after FROM heartbeat")
        return found is None or found[0] is None or after_step >= checked.whole(found[0], "the newest thinned step")

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
        most = self._most_rows(WHOLE_UP_TO)
        rows = self._rows("WHERE step BETWEEN ? AND ? ORDER BY step LIMIT ?", (first, last, most + 1))
        if len(rows) <= most and self.is_whole(first - 1):
            return Aggregates.of_rows(rows)
        thinned = self._thinned(first, last)
        if not len(thinned):
            return Aggregates.of_rows(rows)
        between = "WHERE step BETWEEN ? AND ? ORDER BY step LIMIT ?"
        inside = self._rows(between, (first, min(last, int(thinned.first_step[0]) - 1), most))
        tail = self._rows(between, (int(thinned.last_step[-1]) + 1, last, most))
        ends = [Aggregates.of_rows(rows).merged(max(1, len(rows))) for rows in (inside, tail)]
        return Aggregates.join([ends[0], thinned, ends[1]])

    @reads
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
        grads = {checked.whole(layer, "a layer"): _float32("the neurons", blob) for _, layer, blob in found}
        return NeuronGrads(checked.whole(found[0][0], "a step"), grads)

    @reads
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
        norms = {checked.text(state, "a state"): _float32("the states", blob) for _, state, blob in found}
        return ThroughTime(checked.whole(found[0][0], "a step"), norms)

    @reads
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
        return tuple(one for rows in found for row in rows if (one := pictures_of(row)).rows * one.columns)

    @reads
    def scalars(self, newer_than: int = 0) -> tuple[dict[str, Scalars], int]:
        """The metrics by name, those added after `newer_than`; and the mark to ask with the next time."""
        with self._reading():
            found = self._all(
                "SELECT scalar, step, epoch, name, value FROM scalars WHERE scalar > ? ORDER BY scalar",
                (newer_than,),
            )
        by_name: dict[str, list[tuple[Any, ...]]] = {}
        for row in found:
            by_name.setdefault(checked.text(row[3], "a metric's name"), []).append(row)
        series = {
            name: Scalars(
                _steps([row[1] for row in rows], ordered=False),
                _floats([r[2] for r in rows], finite=True),
                _floats([r[4] for r in rows]),
            )
            for name, rows in by_name.items()
        }
        return series, (checked.whole(found[-1][0], "a metric's number") if found else newer_than)

    @reads
    def origins(self) -> list[Origin]:
        """Where the first NaN or ∞ came from; empty if there was none, or nobody saw it."""
        with self._reading():
            if not self._all("SELECT 1 FROM sqlite_master WHERE name = 'origins'"):
                return []  # written before anybody looked
            found = self._all("SELECT step, phase, layer, what FROM origins ORDER BY rowid")
        return [checked.row_as(Origin, row, "an origin") for row in found]

    @reads
    def findings(self) -> list[Finding] | None:
        """What the diagnosis said while the run was recorded, oldest first; None if the run is older than that."""
        if self.version < 3:
            return None
        columns = "kind, layers, first_step, evidence, numbers, remedies, note, last_step"
        with self._reading():
            found = self._all(f"SELECT {columns} FROM findings ORDER BY finding")
            if len(found) > MOST_FINDINGS:
                raise ValueError(f"it has {len(found):,} findings")
            return [finding_of(row) for row in found]

    @reads
    def schedules(self) -> list[Schedule]:
        """How often each optimizer was measured; empty if the run is older than that."""
        if self.version < 4:
            return []
        columns = "optimizer, steps, measured, last_measured, last_outputs"
        with self._reading():
            return [schedule_of(row) for row in self._all(f"SELECT {columns} FROM schedules ORDER BY optimizer")]

    @reads
    def events(self) -> list[Event]:
        """What happened, in order; the last thousand."""
        with self._reading():
            found = self._all("SELECT time, step, kind, text FROM events ORDER BY event DESC LIMIT 1000")
        return [checked.row_as(Event, row, "an event") for row in reversed(found)]

    # -- inside -----------------------------------------------------------------------------------------------------

    @reads
    def _rows(self, where: str, arguments: tuple[int, ...]) -> Rows:
        more = ", optimizer" if self.version >= 4 else ", NULL"
        with self._reading():
            columns = f"step, epoch, time, loss, learning_rate, measures{more}"
            found = self._all(f"SELECT {columns} FROM steps {where}", arguments)
        epoch, seconds = (_floats([row[column] for row in found], finite=True) for column in (1, 2))
        loss, rate = (_floats([row[column] for row in found]) for column in (3, 4))
        return Rows(
            _steps([row[0] for row in found]),
            epoch,
            seconds,
            loss,
            rate,
            self._decode([row[5] for row in found]),
            np.array([row[3] is not None for row in found], np.bool_),
            np.array([optimizer_bits(known(row[6]), row[5] is not None) for row in found], np.int64),
        )

    @reads
    def _thinned(self, first: int, last: int) -> Aggregates:
        columns = (
            "first_step, last_step, rows, epoch, time, loss_minimum, loss_maximum, loss_mean, minimum, maximum, mean, "
        ) + ("optimizers" if self.version >= 4 else "-1")
        with self._reading():
            found = self._all(
                f"SELECT {columns} FROM envelope WHERE first_step >= ? AND last_step <= ? ORDER BY first_step",
                (first, last),
            )
        first_step, last_step = (_steps([row[column] for row in found]) for column in (0, 1))
        rows = _steps([row[2] for row in found], ordered=False)
        if (first_step[1:] <= last_step[:-1]).any() or (first_step > last_step).any() or (rows < 1).any():
            raise ValueError("its buckets overlap, or are empty")
        epoch, seconds = (_floats([row[column] for row in found], finite=True) for column in (3, 4))
        low, high, losses = (_floats([row[column] for row in found]) for column in (5, 6, 7))
        minimum, maximum, mean = (self._decode([row[column] for row in found]) for column in (8, 9, 10))
        optimizers = np.array([set_of(row[11]) for row in found], np.int64)
        blocks = (minimum, maximum, mean, optimizers)
        return Aggregates(first_step, last_step, rows, epoch, seconds, low, high, losses, *blocks)

    def _decode(self, blobs: list[bytes | None]) -> FloatArray:
        layers = self._layers or self.layers()
        for blob in blobs:
            if blob is not None and len(checked.floats32(blob, "the measures")) % max(4, 4 * len(self.measures)):
                raise ValueError(f"the measures of a step are {len(blob):,} bytes")
        if len(blobs) * len(layers) * len(self.measures) > 4 * MOST_VALUES:
            raise ValueError(f"{len(layers):,} layers of {len(blobs):,} steps are too many")
        return pad_layers(blobs, len(layers), len(self.measures))

    def _most_rows(self, asked: int) -> int:
        """How many of the steps that are asked for are read at once."""
        width = max(1, len(self._layers) * len(self.measures))
        return min(asked, max(FEWEST_ROWS, MOST_VALUES // width))


def _steps(values: list[Any], *, ordered: bool = True) -> npt.NDArray[np.int64]:
    """Steps, in the order that was asked for, or counts."""
    if any(type(value) is not int for value in values):
        raise ValueError(f"a step is {checked.shown(next(one for one in values if type(one) is not int))}")
    found = np.array(values, np.int64)
    if len(found) and not 0 <= found.min() <= found.max() <= checked.MOST_COUNT:
        raise ValueError(f"a step is {found.min() if found.min() < 0 else found.max()}")
    apart = np.diff(found)
    if ordered and not ((apart > 0).all() or (apart < 0).all()):
        raise ValueError("its steps are not in order")
    return found


def _floats(values: list[Any], *, finite: bool = False) -> DoubleArray:
    """Numbers, NaN for NULL; with `finite`, times and epochs, none of the others is NaN or ∞."""
    found = np.array([np.nan if one is None else checked.any_float(one, "a number") for one in values], np.float64)
    if finite and not (np.abs(found[[one is not None for one in values]]) <= checked.LATEST).all():
        raise ValueError("a time or an epoch is out of range")
    return found


def _float32(what: str, blob: Any) -> FloatArray:
    return np.frombuffer(checked.floats32(blob, what), "<f4")
