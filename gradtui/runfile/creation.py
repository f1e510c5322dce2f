"""Makes a run file: its tables, its header, its measures; and connects to it for writing."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from gradtui.format import plain
from gradtui.runfile.private_files import create, draft_of, make_folder, publish
from gradtui.runfile.schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION, Header, Measure
from gradtui.runfile.storable import storable

COMPANIONS = ("-journal", "-wal", "-shm")  # what SQLite may keep beside a database
LOCK_WAIT = 1.0  # s that a commit waits for readers, while it lets no new ones in


def create_run(path: Path, header: Header, measures: Sequence[Measure], started: float) -> int:
    """Make a run file; its inode. `started` is the first heartbeat, in seconds since the epoch.

    Raises `OSError`, as where a file is there already, or `sqlite3.Error`.
    """
    make_folder(path.parent)
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "a run is there already", str(path))
    # made beside its place and moved there whole, so that no reader meets half a file
    unfinished = draft_of(path)
    handle = create(unfinished)
    try:
        _fill(unfinished, header, measures, started)
        os.fsync(handle)
        for companion in COMPANIONS:  # of a run of that name that was deleted without it: SQLite would take it for ours
            Path(f"{path}{companion}").unlink(missing_ok=True)
        publish(unfinished, path)
    finally:
        os.close(handle)
        unfinished.unlink(missing_ok=True)
    return path.stat().st_ino


def _fill(path: Path, header: Header, measures: Sequence[Measure], started: float) -> None:
    connection = connect(path)
    try:
        # nobody else knows the file: what is left of it after a crash is thrown away
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; BEGIN; {SCHEMA}"
        )
        facts = {**asdict(header), "schema_version": SCHEMA_VERSION, "journal": "delete"}
        connection.executemany(
            "INSERT INTO header VALUES (?, ?)", [(key, json.dumps(plain(value))) for key, value in facts.items()]
        )
        connection.executemany(
            "INSERT INTO measures VALUES (?, ?, ?, ?, ?, ?, ?)",
            [storable((i, m.name, m.symbol, m.unit, m.definition, m.title, m.source)) for i, m in enumerate(measures)],
        )
        connection.execute("INSERT INTO heartbeat VALUES (1, ?, 0, 0, NULL)", (started,))
        connection.execute("COMMIT")
    finally:
        connection.close()


def connect(path: Path) -> sqlite3.Connection:
    """A connection of the writer's thread; each transaction is begun explicitly.

    Nothing of the file is mapped into memory, as a write-ahead log would have it: where somebody cuts a mapped file
    short, the system ends the process, here the training. So commits go through a rollback journal, which SQLite
    deletes after each: readers and the writer wait for each other for moments.
    """
    address = f"file:{quote(os.fsencode(path))}?mode=rw"  # makes no new file where the old one was deleted
    connection = sqlite3.connect(address, uri=True, timeout=LOCK_WAIT, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA mmap_size = 0")
    # FULL syncs each commit, so that a power cut loses no more than the rows since the last one
    connection.execute("PRAGMA synchronous = FULL")
    return connection
