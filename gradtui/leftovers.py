"""Deletes what killed processes left in a folder of runs: unfinished files, and notes that a run will be written."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from gradtui.errors import RunFileError
from gradtui.run_request import clear_marks
from gradtui.runfile.private_files import clear_drafts
from gradtui.runfolder import ENDING

COMPARISONS = ".compare"  # ends the name of a folder of runs that are compared
SETTLED_AFTER = 60.0  # s after which a process that begins to write must have written more


def clear_leftovers(folder: Path) -> None:
    """Delete what processes that have ended left in the folder, and in those of comparisons; never what is in use."""
    with contextlib.suppress(OSError):
        parts = [Path(entry.path) for entry in os.scandir(folder) if _is_comparison(entry)]
        for part in (folder, *parts, *(part / "tuning" for part in parts)):
            clear_drafts(part)
            clear_marks(part)
            _clear_journals(part)


def _is_comparison(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(COMPARISONS) and entry.is_dir(follow_symlinks=False)


def _clear_journals(folder: Path) -> None:
    """Delete journals with nothing in them, of runs that have ended; a reader deletes one that holds something."""
    with contextlib.suppress(OSError):
        for journal in folder.glob(f"*{ENDING}-journal"):
            facts = journal.lstat()
            silent = time.time() - facts.st_mtime > SETTLED_AFTER
            if not facts.st_size and silent and _has_ended(Path(str(journal).removesuffix("-journal"))):
                journal.unlink()


def _has_ended(run: Path) -> bool:
    from gradtui.runfile.summary import RunMetadata

    if not run.exists():
        return True
    try:
        with RunMetadata(run) as facts:
            return not facts.status().live
    except RunFileError:
        return False
