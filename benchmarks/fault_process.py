"""Processes of the fault harness: forked from one that has torch loaded, so that a training begins in milliseconds."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

PR_SET_CHILD_SUBREAPER = 36
T = TypeVar("T")
_kept: list[object] = []


def adopt_orphans() -> None:
    """Children of a child that is killed become ours, so that it can be told how they end; on Linux."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def fork(work: Callable[[], object], output: Path) -> int:
    """Run `work` in a child, in a process group of its own; what it prints goes to `output`. Its id."""
    pid = os.fork()
    if pid == 0:
        become(work, output)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    return pid


def become(work: Callable[[], object], output: Path | None, *, own_group: bool = True) -> None:
    """Be a process that does this, and ends as an interpreter does; does not return."""
    atexit._clear()
    if own_group:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if output is not None:
        _kept.extend((sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))  # freed, they would close 1 and 2
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = sys.__stdout__ = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    code = 0
    try:
        result = work()
        code = result if isinstance(result, int) else 0
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


def wait(pid: int, seconds: float = 20.0) -> int | None:
    """How a child ended, negative for a signal; None if it did not, and was killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(ChildProcessError):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
        if not Path(f"/proc/{pid}").exists():
            return None
        time.sleep(0.002)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return None


def kill(pid: int, *, group: bool = False) -> None:
    """SIGKILL, if it is there still."""
    with contextlib.suppress(OSError):
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)


def in_workers(work: Callable[[int], list[T]], shares: list[int]) -> Iterator[T]:
    """What `work(share)` gives for each share, each in a process of its own, at the same time."""
    pipes: list[tuple[int, int]] = []
    for share in shares:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            become(partial(_send, work, share, writing), None)
        os.close(writing)
        pipes.append((pid, reading))
    for pid, reading in pipes:
        with os.fdopen(reading, "rb") as pipe:
            content = pipe.read()
        os.waitpid(pid, 0)
        if not content:
            raise RuntimeError("a worker of the harness ended without a result, see above")
        yield from pickle.loads(content)


def _send(work: Callable[[int], list[T]], share: int, writing: int) -> None:
    with os.fdopen(writing, "wb") as pipe:
        pickle.dump(work(share), pipe)
