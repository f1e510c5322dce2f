"""What one command of a reader may take."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 2.0  # s of processor time
MOST_MEMORY = 512 << 10  # KiB that one command may add to the most that the process ever had


class BrokenPromiseError(Exception):
    """A reader did what it must not."""


class HangError(BaseException):
    """A command takes too long; no `except Exception` may stop it."""


@contextmanager
def bounded() -> Iterator[None]:
    """Bounds processor time and memory of what is done inside."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGPROF, _raise_hang)
    signal.setitimer(signal.ITIMER_PROF, LONGEST, 0.5)  # again, where it was swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if more > MOST_MEMORY:
        raise BrokenPromiseError(f"{more >> 10} MiB of memory")


def _raise_hang(number: int, frame: object) -> None:
    raise HangError
