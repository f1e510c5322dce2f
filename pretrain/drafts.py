"""Files that are written whole or not at all: to a draft beside their place, which is then moved there."""

from __future__ import annotations

import os
from pathlib import Path


def new_draft(path: Path) -> Path:
    """An empty draft beside `path`; never what somebody else has put there, such as a link to another file.

    Raises `OSError` if it cannot be made.
    """
    draft = path.with_name(path.name + ".draft")
    draft.unlink(missing_ok=True)  # of a process that was killed
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666))
    return draft
