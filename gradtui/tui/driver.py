"""Textual's driver for terminals on Unix, with output that is measured and can never hang the program."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from textual.drivers.linux_driver import LinuxDriver
from textual.events import CursorPosition
from textual.message import Message

from gradtui.tui.link import STALL, Link
from gradtui.tui.textual_private import app_of, file_of, loop_of, write_to

if TYPE_CHECKING:
    from textual.app import App

    from gradtui.tui.painter import Painter

GIVE_UP = 1.0  # s after which leaving no longer waits for a terminal that takes nothing


class PacedApp(Protocol):
    """What the driver asks of the app."""

    link: Link
    painter: Painter


class PacedDriver(LinuxDriver):
    """Writes through a `TerminalFile`, and takes the terminal's answers for the app's link."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)
        self._link = cast("PacedApp", app).link
        self._terminal = TerminalFile(file_of(self), self._link)
        write_to(self, self._terminal)

    @property
    def hung_up(self) -> bool:
        """Whether the terminal is gone, which a lost SIGHUP would leave unknown."""
        poll = select.poll()
        poll.register(self.fileno, select.POLLIN)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def process_message(self, message: Message) -> None:
        """Take the answers to the link's questions out of what is typed (on the thread that reads)."""
        if isinstance(message, CursorPosition):
            self._link.answered()
            cast("PacedApp", app_of(self)).painter.wake(loop_of(self))
        else:
            super().process_message(message)

    def stop_application_mode(self) -> None:
        """Give the terminal back, without answers on their way to the shell, and without waiting for ever."""
        if not self.hung_up:
            self._link.wait_for_answers()
        self._terminal.patience = time.monotonic() + GIVE_UP
        super().stop_application_mode()


class TerminalFile:
    """What Textual's writer thread writes to: never blocks for longer than `patience`, a time of the monotonic clock.

    The terminal is opened once more where it can be: a descriptor that does not block must not be the shell's own.
    """

    def __init__(self, file: TextIO, link: Link) -> None:
        self.patience = float("inf")
        self._link = link
        self._encoding = file.encoding
        self._file = file
        self._descriptor = file.fileno()
        with contextlib.suppress(OSError):
            self._descriptor = os.open(os.ttyname(self._descriptor), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)

    def fileno(self) -> int:
        """The terminal's own descriptor."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """As the terminal says."""
        return self._file.isatty()

    def flush(self) -> None:
        """Nothing waits here."""

    def write(self, text: str) -> None:
        """Write all of it, and tell the link how long that took; what a lost terminal does not take is dropped."""
        left = memoryview(text.encode(self._encoding, "replace"))
        waited_since: float | None = None
        size = 0
        while left:
            try:
                taken = os.write(self._descriptor, left)
            except BlockingIOError:
                taken = 0
            except OSError:
                break  # hung up: a signal tells the app, or it polls
            left = left[taken:]
            if waited_since is not None:
                size += taken
            if left and not taken:
                now = time.monotonic()
                if now > self.patience:
                    break
                waited_since = now if waited_since is None else waited_since
                if now - waited_since > STALL:
                    self._link.stalled()
                select.select([], [self._descriptor], [], 0.1)
        if waited_since is not None:
            self._link.waited(size, time.monotonic() - waited_since)
