"""The one family of errors that the command line shows: what, where, what to do, and an exit code. How others are said.

Inside a training nothing may raise: there an error is told in one line on stderr.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from gradtui.format import printable


class GradtuiError(Exception):
    """Something the user can fix; the message is one line that says what, where and what to do."""

    exit_code = 1


class UsageError(GradtuiError):
    """The command or recipe asks for something that does not exist or does not fit together."""

    exit_code = 2


class RunFileError(GradtuiError):
    """A run file is missing, damaged, of another version, or not a run file at all."""

    exit_code = 3


class RunFileBusyError(RunFileError):
    """A run file is locked for longer than a reader waits; the next try may succeed."""


class DataMissingError(GradtuiError):
    """The data set a recipe asks for is not there or cannot be read."""

    exit_code = 4


class TerminalError(GradtuiError):
    """The viewer cannot draw where it was started."""

    exit_code = 5


class ExtraMissingError(GradtuiError, ImportError):
    """A library that an extra of gradtui installs is not there, or cannot be imported."""

    exit_code = 6

    def __init__(self, library: str, extra: str, cause: ImportError) -> None:
        super().__init__(f"{library} cannot be imported ({cause}): pip install 'gradtui[{extra}]' installs it")


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Raise `ExtraMissingError` for a library that is imported inside and is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in ("", "gradtui", "pretrain"):
            raise
        raise ExtraMissingError(library, extra, error) from None


def one_line(error: BaseException) -> str:
    """An error in one line: its type, and the first line of its message."""
    try:
        text = str(error).strip().splitlines()
    except Exception:  # an error of somebody else's may not know how to be told
        text = []
    return printable(f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__)


def say_on_stderr(text: str) -> None:
    """One line on stderr, even if stderr itself is gone."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(printable(f"gradtui: {text}"), file=sys.stderr, flush=True)


_said: set[str] = set()


def say_once(text: str) -> None:
    """As `say_on_stderr`, but the same line only once in a process."""
    if text not in _said:
        _said.add(text)
        say_on_stderr(text)
