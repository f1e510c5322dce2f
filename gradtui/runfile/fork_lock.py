"""Keeps a process from forking while its writer is inside SQLite: a child must not inherit a lock or a transaction."""

from __future__ import annotations

import functools
import os
import threading

LONGEST_WAIT = 1.0  # s that a fork waits for a commit


class _ForkLock(threading.local):
    """Which thread holds the lock for a fork; the lock itself is one for the process."""

    lock = threading.Lock()
    held = False

    def before(self) -> None:
        self.held = type(self).lock.acquire(timeout=LONGEST_WAIT)

    def in_parent(self) -> None:
        if self.held:
            type(self).lock.release()

    def in_child(self) -> None:
        type(self).lock = threading.Lock()


@functools.cache
def _fork_lock() -> _ForkLock:
    found = _ForkLock()
    os.register_at_fork(before=found.before, after_in_parent=found.in_parent, after_in_child=found.in_child)
    return found


def inside_sqlite() -> threading.Lock:
    """The lock that is held while SQLite is at work: `with inside_sqlite(): …`."""
    return _fork_lock().lock
