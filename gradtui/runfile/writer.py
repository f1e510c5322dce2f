"""Writes a run file from a thread of its own, so that the training never waits for a disk.

Nothing here raises into the training: trouble is said once, on stderr and as an event in the run if it can be.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradtui.errors import one_line, say_on_stderr
from gradtui.runfile.blocks import FloatArray
from gradtui.runfile.creation import connect, create_run
from gradtui.runfile.fork_lock import inside_sqlite
from gradtui.runfile.retention import SAMPLED, Limits, RetainedTables
from gradtui.runfile.schema import Finding, Header, Layer, Measure, Origin, Outcome, Pictures, Schedule
from gradtui.runfile.small_tables import finding_row, write_findings, write_layers, write_schedules
from gradtui.runfile.storable import storable

FLUSH_EVERY = 0.25  # s; what a killed process can lose, and how old a viewer's picture can be
HEARTBEAT_EVERY = 1.0  # s
RETRY_EVERY = 2.0  # s between tries while the disk is full
TELL_LOCKED_AFTER = 5.0  # s for which readers may keep the writer waiting without a word
AFTER_LOCK = 0.02  # s between tries while it is locked, beside what SQLite itself waits
LOCKED_AT_END = 1.0  # s that the end of a training waits for a file that is locked
QUEUE_BYTES = 20 << 20  # what may wait in memory before rows are dropped
BATCH_BYTES = 4 << 20  # written at a time, as writing takes some times as much memory
LEAST_QUEUE = 64  # steps that may wait however large they are
ROW_OVERHEAD = 300  # bytes that a waiting row costs beside its BLOB
CLOSE_TIMEOUT = 5.0  # s that the end of a training may wait for the last rows

StepRow = tuple[Any, ...]  # step, epoch, seconds, loss, learning rate, measures, optimizer

DEFAULT_LIMITS = Limits()
REMOVED = "{} was removed or replaced; recording stops"


class RunWriter:
    """The one writer of a run file.

    The file is made when the writer is made (errors of that raise `OSError` or `sqlite3.Error`); everything after
    that is queued and written four times a second by a daemon thread. When the disk cannot keep up, or is full, new
    rows are dropped and counted: `dropped`.

    Args:
        path: the file to make; it must not exist.
        header: what is run.
        measures: the columns of each step's BLOB.
        say: where trouble is told, one line at a time.
        prepare: makes rows (step, epoch, seconds, loss, learning rate, measures, optimizer) ready to be written, a
            batch at a time, on the writer's thread; the measures may be anything before.
        diagnose: takes those rows, and whether they are the last, on the writer's thread; what it returns are changed
            findings, as `finding` takes them.
        limits: how much is kept.

    Attributes:
        schedules: tells how often each optimizer was measured so far; asked once a second, on the writer's thread.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        measures: Sequence[Measure],
        *,
        clock: Callable[[], float] = time.time,
        say: Callable[[str], None] = say_on_stderr,
        prepare: Callable[[list[StepRow]], list[StepRow]] = lambda rows: rows,
        diagnose: Callable[[list[StepRow], bool], list[tuple[int, Finding | None]]] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.path = path
        self.dropped = 0
        self.commands: deque[str] = deque()
        self._clock = clock
        self._say = say
        self._prepare, self._diagnose = prepare, diagnose
        self.schedules: Callable[[], Sequence[Schedule]] = tuple
        self._started = clock()
        self._measures = len(measures)
        self._queue: deque[tuple[str, tuple[Any, ...], int]] = deque()  # table, row, bytes
        self._backlog: list[tuple[str, tuple[Any, ...]]] = []
        self._backlog_bytes = 0
        self._row_bytes = ROW_OVERHEAD
        # bytes queued and bytes done with, each counted by one thread: the difference waits
        self._queued = self._done = 0
        self._layers: list[Layer] | None = None
        self._layer_count = 1
        self._tables = RetainedTables(limits, len(measures))
        self._last_step = 0
        self._broken = False
        self._told: set[str] = set()
        self._locked_since: float | None = None
        self._locked_until = math.inf
        self._ending: tuple[float, str, str] | None = None
        self._closing = threading.Event()
        self._pid = os.getpid()
        self._inode = create_run(path, header, measures, self._started)
        self._thread = threading.Thread(target=self._write_until_closed, name="gradtui-writer", daemon=True)
        self._thread.start()

    # -- called by the training -------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Rows that are queued and not written yet."""
        return len(self._queue) + len(self._backlog)

    def set_layers(self, layers: Sequence[Layer]) -> None:
        """Say which layers the rows of each step's BLOB are; may be called again when layers are added."""
        self._layer_count = max(1, len(layers))
        self._row_bytes = 4 * self._layer_count * self._measures + ROW_OVERHEAD
        self._layers = list(layers)

    def step(
        self,
        step: int,
        epoch: float | None,
        seconds: float,
        loss: float | None,
        learning_rate: float | None,
        measures: Any,
        optimizer: int | None = None,
    ) -> None:
        """Queue one recorded step; `seconds` since the start.

        `measures` is float32 [layers, measures] as bytes, None, or what `prepare` makes bytes of. `optimizer` is the
        number of the one that took it.
        """
        self._put("steps", (step, epoch, seconds, loss, learning_rate, measures, optimizer), self._row_bytes)

    def neurons(self, step: int, bias_grad: Mapping[int, FloatArray]) -> None:
        """Queue the per-neuron gradients of one step: layer index -> float32 [neurons]."""
        for layer, values in bias_grad.items():
            blob = np.ascontiguousarray(values, "<f4").tobytes()
            self._put("neurons", (step, layer, blob), len(blob) + ROW_OVERHEAD)

    def through_time(self, step: int, grad_norms: Mapping[str, FloatArray]) -> None:
        """Queue the gradient through time of one step: recurrent state -> float32 [time steps]."""
        for state, norms in grad_norms.items():
            blob = np.ascontiguousarray(norms, "<f4").tobytes()
            self._put("through_time", (step, state, blob), len(blob) + ROW_OVERHEAD)

    def pictures(self, pictures: Pictures) -> None:
        """Queue pictures of one kind."""
        one = pictures
        row = (one.step, one.name, one.layer, one.rows, one.columns, one.low, one.high, one.pixels)
        self._put("pictures", row, len(one.pixels) + ROW_OVERHEAD)

    def scalar(self, step: int, epoch: float | None, name: str, value: float) -> None:
        """Queue one value of a metric, e.g. the validation accuracy."""
        self._put("scalars", (step, epoch, name, value))

    def event(self, kind: str, text: str, step: int | None = None) -> None:
        """Queue something that happened, in words."""
        self._put("events", (self._clock() - self._started, step, kind, text), len(text) + ROW_OVERHEAD)

    def origin(self, origin: Origin) -> None:
        """Queue where the first NaN or ∞ came from."""
        row = (origin.step, origin.phase, origin.layer, origin.what)
        self._put("origins", row, len(origin.what) + ROW_OVERHEAD)

    def finding(self, number: int, finding: Finding | None) -> None:
        """Queue what the diagnosis says: a new finding, one that has changed, or None for one to be taken back."""
        self._put("findings", finding_row(number, finding))

    def optimizer(self, row: tuple[Any, ...]) -> None:
        """Queue what is known of an optimizer, as `optimizer_facts.as_row` has it; it replaces what was known."""
        self._put("optimizers", row, len(row[2]) + len(row[3]) + ROW_OVERHEAD)

    def close(self, outcome: Outcome = "finished", detail: str = "") -> None:
        """Write what is queued and how the run ended. Closing twice does nothing.

        Waits at most five seconds for a slow disk, and about one for a file that another program has locked.
        """
        if self._closing.is_set() or os.getpid() != self._pid:
            return
        self._ending = (self._clock(), outcome, detail)
        self._locked_until = time.monotonic() + LOCKED_AT_END
        self._closing.set()
        self._thread.join(CLOSE_TIMEOUT)
        if self._thread.is_alive():
            self._say(f"gave up waiting for {self.path}: its last rows may be missing")

    def _put(self, table: str, row: tuple[Any, ...], size: int = ROW_OVERHEAD) -> None:
        waiting = self._queued - self._done
        if self._broken or (waiting >= QUEUE_BYTES and waiting >= LEAST_QUEUE * self._row_bytes):
            self.dropped += 1
        else:
            self._queued += size
            self._queue.append((table, row, size))

    # -- the thread -------------------------------------------------------------------------------------------

    def _write_until_closed(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            with inside_sqlite():
                connection = connect(self.path)
            self._write_all(connection)
        except sqlite3.Error as error:
            self._give_up(REMOVED.format(self.path) if self._file_is_gone() else f"cannot write {self.path} ({error})")
        except Exception as error:  # nobody else would hear of it
            self._give_up(f"cannot write {self.path} ({one_line(error)})")
        finally:
            if connection is not None:
                with inside_sqlite():
                    connection.close()

    def _write_all(self, connection: sqlite3.Connection) -> None:
        next_heartbeat, written, full = 0.0, True, False
        while not self._broken:
            closing = self._closing.wait(0.0 if written and full else FLUSH_EVERY)
            if closing:  # what holds the file now will hold it on
                connection.execute(f"PRAGMA busy_timeout = {1000 * LOCKED_AT_END / 4:.0f}")
            last = self._drain(closing)
            full = self._backlog_bytes >= BATCH_BYTES
            heartbeat = last or time.monotonic() >= next_heartbeat
            if heartbeat:
                next_heartbeat = time.monotonic() + HEARTBEAT_EVERY
            with inside_sqlite():
                written = self._flush(connection, heartbeat, last)
            if written and last:
                return
            if self._locked_since is not None:  # the same rows again, as soon as the reader has read
                time.sleep(AFTER_LOCK)
            elif not written and closing:
                return
            elif not written and not self._broken:
                self._closing.wait(RETRY_EVERY)

    def _flush(self, connection: sqlite3.Connection, heartbeat: bool, last: bool) -> bool:
        """Write the backlog in one transaction; True if it was written (or there is no hope)."""
        if heartbeat and self._file_is_gone():
            self._give_up(REMOVED.format(self.path))
            return True
        if not (self._backlog or heartbeat):
            return True
        before, layers = self._tables.copy(), self._layers
        try:
            connection.execute("BEGIN IMMEDIATE")
            if layers is not None:
                write_layers(connection, layers)
            self._write_batch(connection)
            if heartbeat:
                self._beat(connection)
            if last and self._ending is not None:
                connection.execute("INSERT OR REPLACE INTO ending VALUES (1, ?, ?, ?)", self._ending)
            connection.execute("COMMIT")
        except Exception as error:
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            self._tables = before
            self._not_written(connection, error)
            return False
        self._locked_since = None
        self._backlog.clear()
        self._done += self._backlog_bytes
        self._backlog_bytes = 0
        if self._layers is layers:
            self._layers = None
        return True

    def _not_written(self, connection: sqlite3.Connection, error: Exception) -> None:
        """Say why, and whether it is tried again."""
        now, locked_since = time.monotonic(), self._locked_since
        self._locked_since = None
        if self._file_is_gone():
            self._give_up(REMOVED.format(self.path))
        elif not isinstance(error, sqlite3.OperationalError):
            text = f"{one_line(error)}; recording stops"
            with contextlib.suppress(sqlite3.Error):
                self._tables.write_events(
                    connection, [storable((self._clock() - self._started, self._last_step, "recorder", text))]
                )
            self._give_up(f"{self.path}: {text}")
        elif "locked" in str(error) and now < self._locked_until:
            self._locked_since = now if locked_since is None else locked_since
            if now - self._locked_since > TELL_LOCKED_AFTER:
                self._tell("locked", f"{self.path}: {error}; training goes on, rows are kept until it is unlocked")
        elif self._closing.is_set():
            self._tell("close", f"{self.path}: {error}; the last {self.waiting} rows are lost")
        else:
            self._tell(str(error), f"{self.path}: {error}; training goes on, rows are kept and tried again every 2 s")

    def _drain(self, closing: bool) -> bool:
        """Move as much of the queue to the backlog as is written at a time; True if that is the last there will be."""
        steps: list[StepRow] = []
        while self._queue and self._backlog_bytes < BATCH_BYTES:
            table, row, size = self._queue.popleft()
            if table == "steps":
                steps.append(row)
            else:
                self._backlog.append((table, row))
            self._backlog_bytes += size
        last = closing and not self._queue
        # a row that came from a device may be later than one that did not
        steps = sorted(self._prepare(steps), key=lambda row: int(row[0]))
        self._backlog += [("steps", row) for row in steps]
        if self._diagnose is not None:
            self._backlog += [("findings", finding_row(*change)) for change in self._diagnose(steps, last)]
        return last

    def _write_batch(self, connection: sqlite3.Connection) -> None:
        tables = ("steps", "scalars", "origins", "optimizers", "findings", "events", *SAMPLED)
        by_table: dict[str, list[tuple[Any, ...]]] = {table: [] for table in tables}
        for table, row in self._backlog:
            by_table[table].append(row if table == "steps" else storable(row))
        steps, events, now = by_table["steps"], by_table["events"], self._clock() - self._started
        if steps:
            steps.sort(key=lambda row: int(row[0]))
            self._last_step = max(self._last_step, steps[-1][0])
            self._tables.write_steps(connection, steps, self._layer_count)
        trouble = self._tables.write_scalars(connection, by_table["scalars"])
        if trouble:
            events.append((now, None, "note", trouble))
        for table in SAMPLED:
            self._tables.write_samples(connection, table, by_table[table], now)
        connection.executemany("INSERT INTO origins VALUES (?, ?, ?, ?)", by_table["origins"])
        connection.executemany("INSERT OR REPLACE INTO optimizers VALUES (?, ?, ?, ?)", by_table["optimizers"])
        write_findings(connection, by_table["findings"])
        self._tables.write_events(connection, events)

    def _beat(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE heartbeat SET time = ?, step = ?, rows = ?", (self._clock(), self._last_step, self._tables.rows)
        )
        write_schedules(connection, self.schedules())
        for command, name in connection.execute("SELECT command, name FROM commands WHERE taken = 0").fetchall():
            self.commands.append(name)
            connection.execute("UPDATE commands SET taken = 1 WHERE command = ?", (command,))
        if self.dropped and "dropped" not in self._told:
            self._told.add("dropped")
            text = "the disk could not keep up: some recorded steps are missing from here on"
            self._tables.write_events(connection, [(self._clock() - self._started, self._last_step, "gap", text)])

    def _file_is_gone(self) -> bool:
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def _give_up(self, text: str) -> None:
        self._broken = True
        self._queue.clear()
        self._tell("broken", f"{text}; training goes on unrecorded")

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._say(text)
