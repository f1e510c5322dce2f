"""A run file at a glance: what it is, whether it lives, how far it is. Needs no numpy, so a list of runs is quick."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

from gradtui.errors import RunFileBusyError, RunFileError
from gradtui.runfile.liveness import Status, judge
from gradtui.runfile.schema import APPLICATION_ID, SCHEMA_VERSION, Header

SQLITE_MAGIC = b"SQLite format 3\0"
LOSS_WITHIN = 4096  # recorded steps in which the last loss is sought: a run without any need not be read whole
READ_TIMEOUT = 2.0  # s that a reader waits for a lock; a commit on a network file system takes a fraction of it
Self = TypeVar("Self", bound="RunMetadata")


class RunMetadata:
    """An open run file; `clock` gives seconds since the epoch.

    Raises `RunFileError`, with a line that says what is wrong, from every method if the file is damaged or gone.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._connection = _connect(path)
        try:
            with self._reading():
                self.version = self._check_identity()
                self.header = _header(dict(self._all("SELECT key, value FROM header")))
        except RunFileError:
            self._connection.close()
            raise

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @property
    def run_id(self) -> str:
        """The file's name without its ending: what `gradtui attach` takes."""
        return self.path.stem

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
            # two queries in one: SQLite finds either end at once, but reads the whole table for both together
            first, last = self._one("SELECT (SELECT min(step) FROM steps), (SELECT max(step) FROM steps)") or (
                None,
                None,
            )
        return None if first is None else (int(first), int(last))

    def last_loss(self) -> float | None:
        """The loss of the newest step that has one; None if it is long ago."""
        found = self.newest_loss()
        return None if found is None else found[1]

    def newest_loss(self) -> tuple[int, float] | None:
        """The newest step that has a loss, and the loss; None if it is long ago."""
        newest = f"SELECT step, loss FROM steps ORDER BY step DESC LIMIT {LOSS_WITHIN}"
        with self._reading():
            found = self._one(f"SELECT step, loss FROM ({newest}) WHERE loss IS NOT NULL LIMIT 1")
        return None if found is None else (int(found[0]), float(found[1]))

    def last_accuracy(self) -> float | None:
        """The newest value of a metric with `accuracy` in its name."""
        with self._reading():
            found = self._one("SELECT value FROM scalars WHERE name LIKE '%accuracy%' ORDER BY scalar DESC LIMIT 1")
        return None if found is None or found[0] is None else float(found[0])

    def layer_count(self) -> int:
        """How many layers are recorded."""
        with self._reading():
            found = self._one("SELECT count(*) FROM layers")
        return int(found[0]) if found else 0

    def _check_identity(self) -> int:
        (application,) = self._one("PRAGMA application_id") or (0,)
        if application != APPLICATION_ID:
            raise RunFileError(f"{self.path} is an SQLite database but not a gradtui run")
        (version,) = self._one("PRAGMA user_version") or (0,)
        if version > SCHEMA_VERSION:
            raise RunFileError(
                f"{self.path} was written by a newer gradtui"
                f" (schema {version}, this one reads {SCHEMA_VERSION}): upgrade gradtui"
            )
        return int(version)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            raise _error(self.path, error) from error

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
    for mode in ("mode=ro", "mode=rw", "mode=ro&immutable=1"):
        # a process that was killed in a commit leaves a journal, which only a writer may roll back; and a read-only
        # folder takes neither that nor a shared-memory file: then read what the database itself holds
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?{mode}",
            uri=True,
            timeout=READ_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            break
        except sqlite3.DatabaseError as error:
            connection.close()
            if not isinstance(error, sqlite3.OperationalError) or _is_busy(error) or "immutable" in mode:
                raise _error(path, error) from error
    return connection


def _error(path: Path, error: Exception) -> RunFileError:
    return (RunFileBusyError if _is_busy(error) else RunFileError)(_explain(path, error))


def _is_busy(error: Exception) -> bool:
    # "database is locked" (SQLITE_BUSY) and "locking protocol" (SQLITE_PROTOCOL: a race for locks was lost)
    return isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "locking" in str(error))


def _explain(path: Path, error: Exception) -> str:
    if not path.exists():
        return f"{path} is gone"
    if _is_busy(error):
        return f"{path} is locked by another program; try again"
    return f"{path} is damaged or cut short ({error})"


def _header(facts: dict[str, str]) -> Header:
    known = {field.name for field in fields(Header)}
    return Header(**{key: json.loads(value) for key, value in facts.items() if key in known})
