"""The end of a recording that nobody closed: the interpreter exits, the process forks."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Protocol

from gradtui.runfile import Outcome


class Recording(Protocol):
    """What is looked after here."""

    def close(self, outcome: Outcome = "finished", detail: str = "") -> None:
        """End the recording."""

    def forget(self) -> None:
        """Become deaf, in a forked child that must not write."""


_live: list[Recording] = []
_installed: list[bool] = []


def register(recording: Recording) -> None:
    """Close `recording` when the interpreter exits, and silence it in forked children."""
    if not _installed:
        _installed.append(True)
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_in_child)
    _live.append(recording)


def unregister(recording: Recording) -> None:
    """Nobody needs to look after it any more."""
    if recording in _live:
        _live.remove(recording)


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
    for recording in _live:
        recording.forget()
    _live.clear()
