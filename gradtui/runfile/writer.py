"""Writes a run file from a thread of its own, so that the training never waits for a disk.

Nothing here raises into the training: trouble is said once, on stderr and as an event in the run if it can be.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from gradtui.errors import say_on_stderr
from gradtui.runfile.blocks import FloatArray, block_of
from gradtui.runfile.retention import SAMPLED, Limits, ThinTables
from gradtui.runfile.schema import (
    APPLICATION_ID,
    SCHEMA,
    SCHEMA_VERSION,
    Finding,
    Header,
    Layer,
    Measure,
    Origin,
    Outcome,
    Pictures,
)

FLUSH_EVERY = 0.25  # s; what a killed process can lose, and how old a viewer's picture can be
HEARTBEAT_EVERY = 1.0  # s
RETRY_EVERY = 2.0  # s between tries while the disk is full or the file is locked
QUEUE_BYTES = 20 << 20  # what may wait in memory before rows are dropped
BATCH_BYTES = 4 << 20  # written at a time, as writing takes some times as much memory
LEAST_QUEUE = 64  # steps that may wait however large they are
ROW_OVERHEAD = 300  # bytes that a waiting row costs beside its BLOB
CLOSE_TIMEOUT = 5.0  # s that the end of a training may wait for the last rows

DEFAULT_LIMITS = Limits()
REMOVED = "{} was removed or replaced; recording stops"

NETWORK_FILESYSTEMS = ("nfs", "cifs", "smb", "9p", "afs", "lustre", "fuse.sshfs", "beegfs", "gpfs", "ceph")


class RunWriter:
    """The one writer of a run file.

    The file is made when the writer is made (errors of that raise `OSError` or `sqlite3.Error`); everything after
    that is queued and written four times a second by a daemon thread. When the disk cannot keep up, or is full, new
    rows are dropped and counted: `dropped`. `on_rows` is called on the writer's thread with each batch of steps,
    (steps, [rows, layers, measures]), before it is written.

    Args:
        path: the file to make; it must not exist.
        header: what is run.
        measures: the columns of each step's BLOB.
        say: where trouble is told, one line at a time.
        on_rows: looks at each batch; what it returns is added as events (step, kind, text).
        prepare: makes rows (step, epoch, seconds, loss, learning rate, measures) ready to be written, a batch at a
            time, on the writer's thread; the measures may be anything before.
        limits: how much is kept.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        measures: Sequence[Measure],
        *,
        clock: Callable[[], float] = time.time,
        say: Callable[[str], None] = say_on_stderr,
        on_rows: Callable[[Sequence[int], FloatArray], list[tuple[int, str, str]]] | None = None,
        prepare: Callable[[list[tuple[Any, ...]]], list[tuple[Any, ...]]] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.path = path
        self.dropped = 0
        self.commands: deque[str] = deque()
        self._clock = clock
        self._say = say
        self._on_rows = on_rows
        self._prepare = prepare
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
        self._tables = ThinTables(limits, len(measures))
        self._last_step = 0
        self._broken = False
        self._told: set[str] = set()
        self._ending: tuple[float, str, str] | None = None
        self._closing = threading.Event()
        self._pid = os.getpid()
        self._inode = self._create(header, measures)
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
    ) -> None:
        """Queue one recorded step; `seconds` since the start.

        `measures` is float32 [layers, measures] as bytes, None, or what `prepare` makes bytes of.
        """
        self._put("steps", (step, epoch, seconds, loss, learning_rate, measures), self._row_bytes)

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
        row: tuple[Any, ...] = (number,)
        if finding is not None:
            numbers = {name: value if math.isfinite(value) else str(value) for name, value in finding.numbers.items()}
            lists = [json.dumps(value) for value in (finding.layers, numbers, finding.remedies)]
            row += (finding.kind, lists[0], finding.begin, finding.end, finding.evidence, *lists[1:], finding.note)
        self._put("findings", row)

    def close(self, outcome: Outcome = "finished", detail: str = "") -> None:
        """Write what is queued and how the run ended; waits at most five seconds. Closing twice does nothing."""
        if self._closing.is_set() or os.getpid() != self._pid:
            return
        self._ending = (self._clock(), outcome, detail)
        self._closing.set()
        self._thread.join(CLOSE_TIMEOUT)
        if self._thread.is_alive():
            self._say(f"gave up waiting for {self.path}: its last rows may be missing")

    def abandon(self) -> None:
        """Stop without an ending, as a killed process does."""
        self._closing.set()
        self._thread.join(CLOSE_TIMEOUT)

    def _put(self, table: str, row: tuple[Any, ...], size: int = ROW_OVERHEAD) -> None:
        waiting = self._queued - self._done
        if self._broken or (waiting >= QUEUE_BYTES and waiting >= LEAST_QUEUE * self._row_bytes):
            self.dropped += 1
        else:
            self._queued += size
            self._queue.append((table, row, size))

    # -- the file ---------------------------------------------------------------------------------------------

    def _create(self, header: Header, measures: Sequence[Measure]) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            raise FileExistsError(errno.EEXIST, "a run is there already", str(self.path))
        # made beside its place and moved there whole, so that no reader meets half a file
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self._fill(unfinished, header, measures)
            unfinished.rename(self.path)
        finally:
            unfinished.unlink(missing_ok=True)
        return self.path.stat().st_ino

    def _fill(self, path: Path, header: Header, measures: Sequence[Measure]) -> None:
        connection = _connect(path, "rwc")
        try:
            journal = choose_journal(connection, path)
            connection.executescript(
                f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
                f" BEGIN; {SCHEMA} COMMIT;"
            )
            facts = {**asdict(header), "schema_version": SCHEMA_VERSION, "journal": journal}
            with connection:
                connection.executemany(
                    "INSERT INTO header VALUES (?, ?)",
                    [(key, json.dumps(value)) for key, value in facts.items()],
                )
                connection.executemany(
                    "INSERT INTO measures VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(i, m.name, m.symbol, m.unit, m.definition, m.title, m.source) for i, m in enumerate(measures)],
                )
                connection.execute("INSERT INTO heartbeat VALUES (1, ?, 0, 0, NULL)", (self._started,))
                if journal != "wal":
                    text = "a rollback journal is used, for the file system takes no write-ahead log: viewers may wait"
                    self._tables.write_events(connection, [(0.0, None, "note", text)])
        finally:
            connection.close()

    # -- the thread -------------------------------------------------------------------------------------------

    def _write_until_closed(self) -> None:
        try:
            connection = _connect(self.path)
        except sqlite3.Error as error:
            self._give_up(REMOVED.format(self.path) if self._file_is_gone() else f"cannot write {self.path} ({error})")
            return
        next_heartbeat, written = 0.0, True
        try:
            while not self._broken:
                closing = self._closing.wait(0.0 if written and self._queue else FLUSH_EVERY)
                self._drain()
                last = closing and not self._queue
                heartbeat = last or time.monotonic() >= next_heartbeat
                if heartbeat:
                    next_heartbeat = time.monotonic() + HEARTBEAT_EVERY
                written = self._flush(connection, heartbeat, last)
                if last or (closing and not written):
                    break
                if not written and not self._broken:
                    self._closing.wait(RETRY_EVERY)
            if self._ending is not None and not self._broken:
                self._leave_one_file(connection)
        finally:
            connection.close()

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
                _write_layers(connection, layers)
            self._write_batch(connection)
            if heartbeat:
                self._beat(connection)
            if last and self._ending is not None:
                connection.execute("INSERT OR REPLACE INTO ending VALUES (1, ?, ?, ?)", self._ending)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._tables = before
            if self._file_is_gone():
                self._give_up(REMOVED.format(self.path))
            elif self._closing.is_set():
                self._tell("close", f"{self.path}: {error}; the last {self.waiting} rows are lost")
            elif isinstance(error, sqlite3.OperationalError):
                self._tell(
                    str(error),
                    f"{self.path}: {error}; training goes on, rows are kept and tried again every 2 s",
                )
            else:
                self._give_up(f"{self.path}: {error}; recording stops")
            return False
        self._backlog.clear()
        self._done += self._backlog_bytes
        self._backlog_bytes = 0
        if self._layers is layers:
            self._layers = None
        return True

    def _drain(self) -> None:
        """Move as much of the queue to the backlog as is written at a time."""
        fresh = []
        while self._queue and self._backlog_bytes < BATCH_BYTES:
            table, row, size = self._queue.popleft()
            fresh.append((table, row))
            self._backlog_bytes += size
        if self._prepare is not None:
            steps = self._prepare([row for table, row in fresh if table == "steps"])
            fresh = [entry for entry in fresh if entry[0] != "steps"] + [("steps", row) for row in steps]
        self._backlog += fresh

    def _write_batch(self, connection: sqlite3.Connection) -> None:
        tables = ("steps", "scalars", "origins", "findings", "events", *SAMPLED)
        by_table: dict[str, list[tuple[Any, ...]]] = {table: [] for table in tables}
        for table, row in self._backlog:
            by_table[table].append(row)
        steps, events, now = by_table["steps"], by_table["events"], self._clock() - self._started
        if steps:
            # a row that came from a device may be later than one that did not
            steps.sort(key=lambda row: int(row[0]))
            events += self._look_at(steps)
            self._last_step = max(self._last_step, steps[-1][0])
            self._tables.write_steps(connection, steps, self._layer_count)
        trouble = self._tables.write_scalars(connection, by_table["scalars"])
        if trouble:
            events.append((now, None, "note", trouble))
        for table in SAMPLED:
            self._tables.write_samples(connection, table, by_table[table], now)
        connection.executemany("INSERT INTO origins VALUES (?, ?, ?, ?)", by_table["origins"])
        _write_findings(connection, by_table["findings"])
        self._tables.write_events(connection, events)

    def _look_at(self, steps: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        if self._on_rows is None:
            return []
        whole = [row for row in steps if row[5] is not None]
        # layers added since make later rows longer: look at rows of one length at a time
        found: list[tuple[Any, ...]] = []
        for size in sorted({len(row[5]) for row in whole}):
            alike = [row for row in whole if len(row[5]) == size]
            found += [
                (self._clock() - self._started, step, kind, text)
                for step, kind, text in self._on_rows(
                    [row[0] for row in alike], block_of([row[5] for row in alike], self._measures)
                )
            ]
        return found

    def _beat(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE heartbeat SET time = ?, step = ?, rows = ?", (self._clock(), self._last_step, self._tables.rows)
        )
        for command, name in connection.execute("SELECT command, name FROM commands WHERE taken = 0").fetchall():
            self.commands.append(name)
            connection.execute("UPDATE commands SET taken = 1 WHERE command = ?", (command,))
        if self.dropped and "dropped" not in self._told:
            self._told.add("dropped")
            text = "the disk could not keep up: some recorded steps are missing from here on"
            self._tables.write_events(connection, [(self._clock() - self._started, self._last_step, "gap", text)])

    def _leave_one_file(self, connection: sqlite3.Connection) -> None:
        """Fold the write-ahead log back, so that a finished run is one file; not while a viewer holds it open."""
        try:
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error:
            pass

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


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    address = f"file:{quote(str(path))}?mode={mode}"  # "rw" makes no new file where the old one was deleted
    connection = sqlite3.connect(address, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False)
    # FULL syncs each commit, so that a power cut loses no more than the rows since the last one
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def choose_journal(connection: sqlite3.Connection, path: Path) -> str:
    """Set the journal: a write-ahead log, or a rollback journal where shared memory fails (NFS and its like)."""
    if filesystem_of(path).startswith(NETWORK_FILESYSTEMS):
        return str(connection.execute("PRAGMA journal_mode = TRUNCATE").fetchone()[0])
    try:
        return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    except sqlite3.OperationalError:
        return str(connection.execute("PRAGMA journal_mode = TRUNCATE").fetchone()[0])


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the file system that holds `path`, e.g. "ext4"; "" where the system does not tell."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    real = path.resolve()
    best, kind = -1, ""
    for line in lines:
        _, mount_point, filesystem, *_ = line.split(" ")
        point = Path(mount_point.encode().decode("unicode_escape"))
        if real.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), filesystem
    return kind


def _write_findings(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    for row in rows:
        if len(row) == 1:
            connection.execute("DELETE FROM findings WHERE finding = ?", row)
        else:
            connection.execute(f"INSERT OR REPLACE INTO findings VALUES ({', '.join('?' * len(row))})", row)


def _write_layers(connection: sqlite3.Connection, layers: Sequence[Layer]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                index,
                layer.name,
                layer.kind,
                json.dumps(layer.shapes),
                layer.parameters,
                None if layer.input_shape is None else json.dumps(layer.input_shape),
                None if layer.output_shape is None else json.dumps(layer.output_shape),
            )
            for index, layer in enumerate(layers)
        ],
    )
