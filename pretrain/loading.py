"""Says on a terminal that torch is being loaded, where that takes long. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

PATIENCE = 1.0  # s before it is said


@contextlib.contextmanager
def loading(name: str = "torch", *, stream: TextIO | None = None, patience: float = PATIENCE) -> Iterator[None]:
    """Within, modules are imported: on a terminal, "loading torch …" stands there once it takes over a second.

    Ctrl-C then ends the process at once, silently, with status 130.
    """
    line = _Line(f"loading {name} …", sys.stderr if stream is None else stream)
    timer = threading.Timer(patience, line.say)
    timer.daemon = True

    def leave(number: int, _: object) -> None:
        # not an exception: modules that are half imported may swallow it, or say it with a traceback
        line.wipe()
        os._exit(128 + number)

    before: Any = None
    if threading.current_thread() is threading.main_thread():
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, leave)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        line.wipe()
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


class _Line:
    """A line on a terminal that is removed again."""

    def __init__(self, text: str, stream: TextIO | None) -> None:
        self._text, self._stream = text, stream
        self._is_over = self._is_there = False
        self._lock = threading.RLock()  # a signal may come while this thread holds it

    def say(self) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._stream is not None and self._stream.isatty() and not self._is_over:
                self._is_there = True
                try:
                    self._stream.write(self._text)
                except UnicodeEncodeError:
                    self._stream.write(self._text.replace("…", "..."))
                self._stream.flush()

    def wipe(self) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._is_over = True
            if self._is_there and self._stream is not None:
                self._is_there = False
                self._stream.write("\n" if os.environ.get("TERM") == "dumb" else "\r\x1b[K")
                self._stream.flush()
