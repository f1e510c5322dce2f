"""Makes files and folders that only their owner can read, and never writes through a link that somebody planted.

What is written whole or not at all is written to a draft first; its name says which process writes it, so that what a
killed process left behind can be told from what is being written now.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from gradtui.runfile.liveness import machine_identity, process_start

ABANDONED_AFTER = 3600.0  # s after which a file that was to be filled at once, and names no process, is not filled
SILENT_FOR = 7 * 24 * 3600.0  # s after which a process of another machine counts as gone
_DRAFT = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]+)-(?P<started>[0-9]*)(-journal)?")
_OLD_DRAFT = re.compile(r"\..+\.gradtui\.(?P<pid>[0-9]+)(-journal|-wal|-shm)?")  # of gradtui up to 0.2
_NO_LINKS = ("EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EXDEV", "EINVAL")


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, as far as they are not there; what is made is its owner's alone."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    try:
        path.mkdir(mode=0o700)
        path.chmod(0o700)  # whatever the umask
    except FileExistsError:
        if not path.is_dir():
            raise


def create(path: Path, *, private: bool = True) -> int:
    """Make a new file; its descriptor, for writing. Raises `FileExistsError` if anything is there, a link too."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path, flags, 0o600 if private else 0o666)
    if private:
        with contextlib.suppress(OSError):  # a file system without modes
            os.fchmod(handle, 0o600)  # whatever the umask
    return handle


def open_to_append(path: Path) -> int:
    """A file that is made if it is not there; its descriptor. Raises `OSError` if it is a link."""
    with contextlib.suppress(FileExistsError):
        os.close(create(path))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)


def write_whole(path: Path, content: str | bytes, *, private: bool = True) -> None:
    """Write a file whole or not at all, in place of one that is there; raises `OSError`."""
    draft = draft_of(path)
    clear_drafts(path.parent, path.name)
    try:
        with os.fdopen(create(draft, private=private), "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def publish(draft: Path, path: Path) -> None:
    """Move a draft to its place; raises `FileExistsError` if anything is there."""
    try:
        os.link(draft, path)
    except OSError as error:
        if errno.errorcode.get(error.errno or 0) not in _NO_LINKS:
            raise
        os.close(create(path))
        draft.replace(path)
    else:
        draft.unlink()


def write_mark(path: Path) -> None:
    """Make a file that names this process, whole or not at all; raises `FileExistsError` if anything is there."""
    draft = draft_of(path)
    try:
        with os.fdopen(create(draft), "w", encoding="utf-8") as mark:
            mark.write("\n".join(map(str, this_process())))
        publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """Where this thread of this process writes what is to be moved to `path` whole."""
    machine, pid, started = this_process()
    return path.with_name(f".{path.name}.{threading.get_ident():x}.{_short(machine)}-{pid}-{started}")


def this_process() -> tuple[str, int, str]:
    """This process: its machine, its id there, and when it started."""
    pid = os.getpid()
    return machine_identity(), pid, process_start(pid) or ""


def is_gone(machine: str, pid: int, started: str | None, silent: float) -> bool:
    """Whether a process has ended; one of another machine counts as gone after a week.

    `started` is None if it is not known.
    """
    if machine != machine_identity():
        return silent > SILENT_FOR
    now = process_start(pid)
    return now is None or (started is not None and now != started)


def clear_drafts(folder: Path, name: str = "") -> None:
    """Delete drafts in a folder that their processes can finish no more: those of `name`, or all."""
    with contextlib.suppress(OSError):
        for entry in _regular_files(folder):
            if entry.name.startswith(f".{name}") and _is_abandoned(entry):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    """Whether a file is a draft that nobody will finish."""
    with contextlib.suppress(OSError):
        silent = time.time() - entry.stat(follow_symlinks=False).st_mtime
        ours = _DRAFT.fullmatch(entry.name)
        if ours:
            here = machine_identity()
            machine = here if ours["machine"] == _short(here) else ours["machine"]
            return is_gone(machine, int(ours["pid"]), ours["started"], silent)
        old = _OLD_DRAFT.fullmatch(entry.name)
        return old is not None and silent > ABANDONED_AFTER and process_start(int(old["pid"])) is None
    return False


def _regular_files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                    yield entry


@functools.cache
def _short(machine: str) -> str:
    return hashlib.blake2b(machine.encode(errors="surrogateescape"), digest_size=4).hexdigest()
