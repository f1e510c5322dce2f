"""The end of a recording that nobody closed: the interpreter exits, the process forks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from gradtui.record.patches import at_exit, in_forked_child
from gradtui.runfile import Outcome


class Closable(Protocol):
    """A recording, as it is seen here."""

    def close(self, outcome: Outcome = "finished", detail: str = "") -> None:
        """End the recording."""

    def disable(self) -> None:
        """Record nothing any more, in a forked child that must not write."""


_live: list[Closable] = []
_undo: list[Callable[[], None]] = []
_forks: list[bool] = []


def register(recording: Closable) -> None:
    """Close `recording` when the interpreter exits, and disable it in forked children."""
    if not _undo:
        _undo.append(at_exit(_at_exit))
    if not _forks:
        _forks.append(True)
        in_forked_child(_in_child)
    _live.append(recording)


def unregister(recording: Closable) -> None:
    """Nobody needs to close it any more."""
    if recording in _live:
        _live.remove(recording)
    while _undo and not _live:
        _undo.pop()()


def how_it_ended(error: BaseException | None) -> tuple[Outcome, str]:
    """Outcome and detail of a training that `error` ended, or nothing did."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "finished", ""
    if isinstance(error, KeyboardInterrupt):
        return "stopped", "interrupted"
    text = str(error).strip().splitlines()
    return "failed", f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def _at_exit() -> None:
    # an uncaught exception is left in `sys` by the interpreter; at an interactive prompt it may be an old one
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    outcome, detail = how_it_ended(None if hasattr(sys, "ps1") else error)
    for recording in list(_live):
        recording.close(outcome, detail)


def _in_child() -> None:
    for recording in list(_live):
        recording.disable()
    _live.clear()
