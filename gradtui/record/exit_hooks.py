"""The end of a recording that nobody closed: the interpreter exits, the process forks."""

from __future__ import annotations

import sys
import threading
from _sitebuiltins import Quitter
from collections.abc import Callable
from typing import Any, Protocol

from gradtui.masking import masked_text
from gradtui.record.patches import Replaced, at_exit, at_worker_exit, in_forked_child
from gradtui.runfile import Outcome

LONGEST_ERROR = 10_000  # characters that are looked at


class Closable(Protocol):
    """A recording, as it is seen here."""

    @property
    def step(self) -> int:
        """Steps seen so far."""

    def close(self, outcome: Outcome = "finished", detail: str = "") -> None:
        """End the recording."""

    def disable(self) -> None:
        """Record nothing any more, in a forked child that must not write."""


_live: list[Closable] = []
_undo: list[Callable[[], object]] = []
_forks: list[bool] = []
_exits: list[
    tuple[int | str | None, int]
] = []  # the newest call of `sys.exit`: its code, and how many steps there were by then
STOPPED = {130: "interrupted", 143: "terminated"}  # exit codes of programs that a signal ended


def register(recording: Closable) -> None:
    """Close `recording` when the interpreter exits, and disable it in forked children."""
    if not _undo:
        _undo.append(at_exit(_at_exit))
        _undo.append(at_worker_exit(_at_worker_exit))
        # the interpreter drops the exit code before it calls what is registered with `atexit`
        _undo.extend(_notes_code(owner, name) for owner, name in ((sys, "exit"), (Quitter, "__call__")))
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
    if error is None:
        return "finished", ""
    if isinstance(error, SystemExit):
        return _of_code(error.code)
    if isinstance(error, KeyboardInterrupt):
        return "stopped", "interrupted"
    text = masked_text(str(error)[:LONGEST_ERROR]).strip().splitlines()
    return "failed", f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def _of_code(code: object) -> tuple[Outcome, str]:
    """Outcome and detail of a process that ends itself with this code, or with a text, which stands for 1."""
    if code is None or code == 0:
        return "finished", ""
    if code in STOPPED:
        return "stopped", STOPPED[code]
    text = "" if isinstance(code, int) else str(code).strip().partition("\n")[0][:300]
    return "failed", f"exit code {code:d}" if isinstance(code, int) else f"exit code 1: {text}"


def _notes_code(owner: Any, name: str) -> Callable[[], None]:
    """Note the code that a function is called with that ends the process; what takes that back."""

    def wrap(leave: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any, **named: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                given = [*named.values(), *(one for one in arguments if not isinstance(one, Quitter)), None]
                code = given[0] if given[0] is None or isinstance(given[0], (int, str)) else type(given[0]).__name__
                # what calls it may catch it and train on: then there are more steps at the end
                _exits[:] = [(code, _steps())]
            return leave(*arguments, **named)

        return noting

    replaced = Replaced(owner, name, wrap)

    def undo() -> None:
        replaced.undo()
        _exits.clear()

    return undo


def _steps() -> int:
    return sum(recording.step for recording in _live)


def _at_exit() -> None:
    # an uncaught exception is left in `sys` by the interpreter; at an interactive prompt it may be an old one
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    outcome, detail = how_it_ended(None if hasattr(sys, "ps1") else error)
    if outcome == "finished" and _exits and _exits[-1][1] == _steps():
        outcome, detail = _of_code(_exits[-1][0])
    for recording in list(_live):
        recording.close(outcome, detail)


def _at_worker_exit() -> None:
    """A child of `multiprocessing` ends, perhaps by an error; what is registered with `atexit` is not called in it."""
    outcome, detail = how_it_ended(sys.exc_info()[1])
    for recording in list(_live):
        recording.close(outcome, detail)


def _in_child() -> None:
    for recording in list(_live):
        recording.disable()
        unregister(recording)  # the child's own recordings end in the child's way
