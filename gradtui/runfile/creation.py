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
from gradtui.runfile.schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION, Header, Measure

NETWORK_FILESYSTEMS = ("nfs", "cifs", "smb", "9p", "afs", "lustre", "fuse.sshfs", "beegfs", "gpfs", "ceph")
NO_LOG = "a rollback journal is used, for the file system takes no write-ahead log: viewers may wait"


def create_run(path: Path, header: Header, measures: Sequence[Measure], started: float) -> int:
    """Make a run file; its inode. `started` is the first heartbeat, in seconds since the epoch.

    Raises `OSError`, as where a file is there already, or `sqlite3.Error`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise FileExistsError(errno.EEXIST, "a run is there already", str(path))
    # made beside its place and moved there whole, so that no reader meets half a file
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _fill(unfinished, header, measures, started)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path.stat().st_ino


def _fill(path: Path, header: Header, measures: Sequence[Measure], started: float) -> None:
    connection = connect(path, "rwc")
    try:
        journal = choose_journal(connection, path)
        connection.executescript(
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; BEGIN; {SCHEMA} COMMIT;"
        )
        facts = {**asdict(header), "schema_version": SCHEMA_VERSION, "journal": journal}
        with connection:
            connection.executemany(
                "INSERT INTO header VALUES (?, ?)", [(key, json.dumps(plain(value))) for key, value in facts.items()]
            )
            connection.executemany(
                "INSERT INTO measures VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(i, m.name, m.symbol, m.unit, m.definition, m.title, m.source) for i, m in enumerate(measures)],
            )
            connection.execute("INSERT INTO heartbeat VALUES (1, ?, 0, 0, NULL)", (started,))
            if journal != "wal":
                connection.execute("INSERT INTO events (time, kind, text) VALUES (0.0, 'note', ?)", (NO_LOG,))
    finally:
        connection.close()


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """A connection of the writer's thread; each transaction is begun explicitly."""
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
