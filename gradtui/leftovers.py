"""Deletes what killed processes left in a folder of runs: unfinished files, and notes that a run will be written."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
from pathlib import Path
from urllib.parse import quote

from gradtui.run_request import clear_marks
from gradtui.runfile.private_files import clear_drafts
from gradtui.runfolder import ENDING, starting_mark

_OF_A_RUN = re.compile(r"-\d{4}-\d{6}(-\d+)?\.log$")  # as `new_run_path` names a run
COMPARISONS = ".compare"  # ends the name of a folder of runs that are compared


def clear_leftovers(folder: Path) -> None:
    """Delete what processes that have ended left in the folder, and in those of comparisons; never what is in use."""
    with contextlib.suppress(OSError):
        parts = [Path(entry.path) for entry in os.scandir(folder) if _is_comparison(entry)]
        for part in (folder, *parts, *(part / "tuning" for part in parts)):
            clear_drafts(part)
            clear_marks(part)
            _clear_journals(part)
        _clear_logs(folder)


def _is_comparison(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(COMPARISONS) and entry.is_dir(follow_symlinks=False)


def _clear_logs(folder: Path) -> None:
    """Delete logs with nothing in them, of trainings that were killed before they had a run."""
    for log in folder.glob("*.log"):
        run = log.with_suffix(ENDING)
        if _OF_A_RUN.search(log.name) and not os.path.lexists(starting_mark(run)) and not os.path.lexists(run):
            with contextlib.suppress(OSError):
                facts = log.lstat()
                if stat.S_ISREG(facts.st_mode) and not facts.st_size:
                    log.unlink()


def _clear_journals(folder: Path) -> None:
    """Delete the journals of writers that were killed, after what they had begun was undone."""
    for journal in folder.glob(f"*{ENDING}-journal"):
        run = Path(str(journal).removesuffix("-journal"))
        with contextlib.suppress(OSError, sqlite3.Error):
            if not run.exists():
                journal.unlink()
                continue
            address = f"file:{quote(os.fsencode(run))}?mode=rw"
            with contextlib.closing(
                sqlite3.connect(address, uri=True, timeout=0.0, isolation_level=None)
            ) as connection:
                # undoes what the journal holds; then no other process is writing, so what is left of it is of no use
                connection.execute("BEGIN IMMEDIATE")
                journal.unlink(missing_ok=True)
                connection.execute("ROLLBACK")
