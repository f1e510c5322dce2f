"""Keeps a reader of a damaged or forged run file from running what stands in it, hanging, or filling the memory."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradtui.runfile.schema import SCHEMA

READ_SECONDS = 1.0  # of processor time that one read may take: some millions of rows
MOST_BYTES = 2 << 30  # that one read may bring
UNCOUNTED_BYTES = 16 << 20  # up to which the size of the file is not asked for
LONGEST_VALUE = 256 << 20  # bytes: the measures of five million layers
MOST_OBJECTS = 200  # tables, indices, views of a file
LIMIT_LENGTH = 0  # sqlite3.SQLITE_LIMIT_LENGTH, which Python 3.10 lacks
INSTRUCTIONS = 10_000  # of SQLite's machine between two looks at the clock
TABLES = frozenset(re.findall(r"CREATE TABLE (\w+)", SCHEMA))
NEEDED = frozenset({"header", "measures", "layers", "steps", "heartbeat", "ending", "scalars", "events"})


class Guard:
    """Bounds what reading from one connection may take; `path` is the file."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path
        self._deadline = float("inf")
        connection.text_factory = _as_text

    def set_up(self) -> None:
        """Bound the connection; raises `sqlite3.Error` if the file is damaged."""
        connection = self._connection
        if hasattr(connection, "setlimit"):  # Python 3.11
            connection.setlimit(LIMIT_LENGTH, LONGEST_VALUE)
        connection.set_progress_handler(self._is_over, INSTRUCTIONS)
        for setting in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON", "mmap_size = 0"):
            connection.execute(f"PRAGMA {setting}").fetchall()

    def begin(self) -> None:
        """One read begins."""
        self._deadline = time.thread_time() + READ_SECONDS

    def rows(self, query: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; raises `ValueError` where they are more than the file can hold."""
        found, size = [], 0
        most = UNCOUNTED_BYTES
        for row in self._connection.execute(query, arguments):
            found.append(row)
            for value in row:
                if type(value) is bytes or type(value) is str:
                    size += len(value)
            if size > most:
                most = self._most_bytes()
                if size > most:
                    raise ValueError(f"more than {most:,} bytes are asked for at once")
        return found

    def _most_bytes(self) -> int:
        """What the file holds: where it is whole, no byte of it is part of two values."""
        sizes = (Path(f"{self._path}{end}") for end in ("", "-wal"))
        return min(MOST_BYTES, sum(path.stat().st_size for path in sizes if path.exists()) + UNCOUNTED_BYTES)

    def _is_over(self) -> bool:
        return time.thread_time() > self._deadline


def check_tables(rows: Callable[[str], list[tuple[Any, ...]]]) -> None:
    """Raise `ValueError` if a table of a run is missing or something else: a view may run any query, and for ever."""
    found = rows(f"SELECT type, name, tbl_name, rootpage FROM sqlite_master LIMIT {MOST_OBJECTS + 1}")
    if len(found) > MOST_OBJECTS:
        raise ValueError(f"it has more than {MOST_OBJECTS} tables and indices")
    ours = {name: (kind, root) for kind, name, _, root in found if name in TABLES}
    missing = sorted(NEEDED - set(ours))
    if missing:
        raise ValueError(f"it has no table {missing[0]}")
    for name, (kind, root) in sorted(ours.items()):
        if kind != "table" or not root:  # a virtual table has no page of its own
            raise ValueError(f"its {name} is a {kind if kind != 'table' else 'virtual table'}")
    computed = "SELECT m.name FROM sqlite_master m, pragma_table_xinfo(m.name) x WHERE m.rootpage > 0 AND x.hidden > 0"
    for name in sorted({name for (name,) in rows(computed)} & TABLES):
        raise ValueError(f"a column of its table {name} is computed")
    for kind, name, table, _ in found:
        if kind == "trigger" and table in TABLES:
            raise ValueError(f"it has a trigger, {name!r}")


def _as_text(stored: bytes) -> str:
    """A flipped bit in a name does not cost the run."""
    return str(stored, "utf-8", "replace")
