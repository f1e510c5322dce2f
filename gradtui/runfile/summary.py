"""A run file at a glance: what it is, whether it lives, how far it is. Needs no numpy, so a list of runs is quick."""

from __future__ import annotations

import errno
import functools
import math
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from gradtui.errors import RunFileBusyError, RunFileError, one_line
from gradtui.format import printable
from gradtui.runfile import checked
from gradtui.runfile.hardening import Guard, check_tables
from gradtui.runfile.liveness import Status, judge
from gradtui.runfile.schema import APPLICATION_ID, SCHEMA_VERSION, Header

SQLITE_MAGIC = b"SQLite format 3\0"
OTHERS = "`gradtui runs` lists the runs there are"
LOSS_WITHIN = 4096  # recorded steps in which the last loss is sought: a run without any need not be read whole
LONGEST_REASON = 200  # characters of what SQLite says
MOST_PID = 1 << 31
READ_TIMEOUT = 2.0  # s that a reader waits for a lock; a commit on a network file system takes a fraction of it
DAMAGES = (
    sqlite3.Error, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError,
)  # fmt: skip

RECENT_LOSSES = 20  # losses that are averaged for the one that a run is told by

Self = TypeVar("Self", bound="RunMetadata")
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class RecentLoss:
    """The mean of so many losses, of steps from `first_step` to `last_step`."""

    mean: float
    count: int
    first_step: int
    last_step: int


def reads(method: Callable[Concatenate[Self, P], T]) -> Callable[Concatenate[Self, P], T]:
    """What a method of a reader raises over odd content becomes a `RunFileError`."""

    @functools.wraps(method)
    def reading(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._reading():
            return method(self, *args, **kwargs)

    return reading


class RunMetadata:
    """An open run file; `clock` gives seconds since the epoch.

    Raises `RunFileError`, with a line that says what is wrong, from every method if the file is damaged or gone.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._connection = _connect(path)
        self._guard = Guard(self._connection, path)
        try:
            with self._reading():
                self._guard.set_up()
                self.version = self._check_identity()
                check_tables(self._all)
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
            found = self._one("SELECT outcome, detail FROM ending")
            heartbeat = self._one("SELECT time FROM heartbeat")
            ending = found and (checked.text(found[0], "the outcome"), checked.text(found[1] or "", "the detail"))
            beat = checked.moment(heartbeat[0], "the heartbeat") if heartbeat else self.header.started
        header = self.header
        status = judge(ending or None, beat, header.machine, header.pid, header.process_start, self._clock())
        return replace(status, nan_since=self._nan_since())

    def duration(self) -> float:
        """Seconds from the start to the end, or to the last sign of life."""
        with self._reading():
            ending = self._one("SELECT time FROM ending")
            heartbeat = self._one("SELECT time FROM heartbeat")
            last = ending or heartbeat
            return max(0.0, checked.moment(last[0], "the end") - self.header.started) if last else 0.0

    def recorded(self) -> int:
        """About how many steps are recorded (as of the last heartbeat)."""
        with self._reading():
            found = self._one("SELECT rows FROM heartbeat")
            return checked.whole(found[0], "the number of rows") if found else 0

    def measured(self) -> int:
        """How many steps have measures, and not only a loss; those that are thinned away since among them."""
        with self._reading():
            if self.version < 2:
                found = self._all("SELECT 1, count(*) - 1 FROM steps WHERE measures IS NOT NULL")
            else:
                found = self._all("SELECT measured, max(place) FROM steps WHERE measured > 0 GROUP BY measured")
            return sum(checked.whole(place, "a place", least=-1) + 1 for _, place in found)

    def span(self) -> tuple[int, int] | None:
        """The first and the last recorded step; None if there is none yet."""
        with self._reading():
            # two queries in one: SQLite finds either end at once, but reads the whole table for both together
            first, last = self._one("SELECT (SELECT min(step) FROM steps), (SELECT max(step) FROM steps)") or (
                None,
                None,
            )
            return None if first is None else (checked.whole(first, "a step"), checked.whole(last, "a step"))

    def last_loss(self) -> float | None:
        """The loss of the newest step that has one; None if it is long ago."""
        found = self.newest_loss()
        return None if found is None else found[1]

    def newest_loss(self) -> tuple[int, float] | None:
        """The newest step that has a loss, and the loss; None if it is long ago."""
        newest = f"SELECT step, loss FROM steps ORDER BY step DESC LIMIT {LOSS_WITHIN}"
        with self._reading():
            found = self._one(f"SELECT step, loss FROM ({newest}) WHERE loss IS NOT NULL LIMIT 1")
            return found and (checked.whole(found[0], "a step"), checked.any_float(found[1], "a loss"))

    def recent_loss(self) -> RecentLoss | None:
        """The mean of the last recorded losses; None if there is none, or it is long ago.

        Of the last 20, or a tenth of the steps recorded where that is less. It is not finite if the last one is not.
        """
        newest = f"SELECT step, loss FROM steps ORDER BY step DESC LIMIT {LOSS_WITHIN}"
        count = max(1, min(RECENT_LOSSES, self.recorded() // 10))
        with self._reading():
            rows = self._all(f"SELECT step, loss FROM ({newest}) WHERE loss IS NOT NULL LIMIT {count}")
            found = [(checked.whole(step, "a step"), checked.any_float(loss, "a loss")) for step, loss in rows]
        if not found:
            return None
        finite = [loss for _, loss in found if math.isfinite(loss)]
        last = found[0][1]
        mean = math.fsum(finite) / len(finite) if math.isfinite(last) else last
        return RecentLoss(mean, len(found), found[-1][0], found[0][0])

    def last_accuracy(self) -> float | None:
        """The newest value of a metric with `accuracy` in its name."""
        with self._reading():
            found = self._one("SELECT value FROM scalars WHERE name LIKE '%accuracy%' ORDER BY scalar DESC LIMIT 1")
            return None if found is None or found[0] is None else checked.any_float(found[0], "a metric")

    def layer_count(self) -> int:
        """How many layers are recorded."""
        with self._reading():
            found = self._one("SELECT count(*) FROM layers")
        return int(found[0]) if found else 0

    def _nan_since(self) -> int | None:
        """The step since which the loss is NaN or infinite, or something on the way to it where none is known."""
        loss = None
        with self._reading():
            if self.version >= 3:
                found = self._one("SELECT min(first_step) FROM findings WHERE kind = 'nan' AND last_step IS NULL")
                if found is None or type(found[0]) is not int:  # what is odd about a finding is told with the findings
                    return None
                loss = self.newest_loss()
                return None if loss is not None and math.isfinite(loss[1]) else found[0]
        loss = self.newest_loss()
        return None if loss is None or math.isfinite(loss[1]) else loss[0]

    def _check_identity(self) -> int:
        (application,) = self._one("PRAGMA application_id") or (0,)
        if application != APPLICATION_ID:
            raise RunFileError(f"{self.path} is an SQLite database but not a gradtui run")
        (version,) = self._one("PRAGMA user_version") or (0,)
        checked.whole(version, "the schema", least=1)
        if version > SCHEMA_VERSION:
            raise RunFileError(
                f"{self.path} was written by a newer gradtui"
                f" (schema {version}, this one reads {SCHEMA_VERSION}): upgrade gradtui"
            )
        return int(version)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._guard.begin()
        try:
            yield
        except DAMAGES as error:
            raise _error(self.path, error) from error

    def _all(self, query: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._guard.rows(query, arguments)

    def _one(self, query: str) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(query).fetchone()
        return row


def request(path: Path, command: str, *, clock: Callable[[], float] = time.time) -> None:
    """Ask the training that writes `path` for something, e.g. "stop"; it answers within about a second.

    Raises `RunFileError` if the file cannot be written.
    """
    RunMetadata(path).close()  # a forged file may have triggers, which writing would set off
    try:
        with sqlite3.connect(_address(path, "mode=rw"), uri=True, timeout=5.0) as connection:
            connection.execute("INSERT INTO commands (time, name) VALUES (?, ?)", (clock(), command))
        connection.close()
    except sqlite3.Error as error:
        raise RunFileError(f"cannot ask the training to {command}: {_explain(path, error)}") from error


def _connect(path: Path) -> sqlite3.Connection:
    try:
        # not opened: closing it would take away the locks that SQLite holds in this process, as POSIX has it
        facts = path.stat()
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise RunFileError(f"cannot open {path}: {error.strerror or error}") from error
    if not (stat.S_ISREG(facts.st_mode) and facts.st_size):
        what = "is empty" if stat.S_ISREG(facts.st_mode) else "is not a gradtui run"
        raise RunFileError(f"{path} {what}: {OTHERS}")
    for mode in ("mode=ro", "mode=rw", "mode=ro&immutable=1"):
        # a process that was killed in a commit leaves a journal, which only a writer may roll back; and a read-only
        # folder takes neither that nor a shared-memory file: then read what the database itself holds
        connection = sqlite3.connect(
            _address(path, mode),
            uri=True,
            timeout=READ_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            break
        except (sqlite3.DatabaseError, ValueError) as error:  # what SQLite says need not be UTF-8
            connection.close()
            if not isinstance(error, sqlite3.OperationalError) or _is_busy(error) or "immutable" in mode:
                raise _error(path, error) from error
    return connection


def _address(path: Path, mode: str) -> str:
    return f"file:{quote(os.fsencode(path))}?{mode}"  # a name need not be UTF-8


def _error(path: Path, error: Exception) -> RunFileError:
    return (RunFileBusyError if _is_busy(error) else RunFileError)(_explain(path, error))


def _is_busy(error: Exception) -> bool:
    # "database is locked" (SQLITE_BUSY) and "locking protocol" (SQLITE_PROTOCOL: a race for locks was lost)
    return isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "locking" in str(error))


def _explain(path: Path, error: Exception) -> str:
    if not path.exists():
        return f"{path} is gone"
    if "not a database" in str(error) and not _is_sqlite(path):
        return f"{path} is not a gradtui run: {OTHERS}"
    if _is_busy(error):
        return f"{path} is locked by another program; try again"
    if isinstance(error, sqlite3.OperationalError) and "interrupted" in str(error):
        return f"{path} is damaged (reading it takes too long)"
    reason = str(error) if isinstance(error, (sqlite3.Error, ValueError)) else one_line(error)
    return f"{path} is damaged or cut short ({printable(reason, LONGEST_REASON)})"


def _is_sqlite(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
    return False


def _header(facts: dict[Any, Any]) -> Header:
    known = {field.name for field in fields(Header)}
    values = {key: checked.parsed(value, f"{key} in the header") for key, value in facts.items() if key in known}
    header = checked.record(Header, values, "the header")
    checked.moment(header.started, "the start")
    checked.whole(header.pid, "the process", most=MOST_PID)
    checked.whole(header.total_steps or 0, "the number of steps")
    checked.number(header.total_epochs or 0, "the number of epochs", 0.0, float(checked.MOST_COUNT))
    return header
