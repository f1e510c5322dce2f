"""The real command in a real pseudo-terminal, its screen kept in memory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

QUESTION = b"\x1b[6n"
GRADTUI = str(Path(sys.executable).with_name("gradtui"))
# pyte does not know the kitty keyboard protocol nor mode queries, and would print them
UNKNOWN = re.compile(rb"\x1b\[[<>=][\d;]*u|\x1b\[\?[\d;]*\$p|\x1b\[>[\d;]*[qm]|\x1bP.*?\x1b\\", re.DOTALL)


class Terminal:
    """Starts `gradtui WORDS…` and reads what it draws.

    Args:
        answers: whether it says where its cursor is when it is asked, as every real terminal does.
        speed: bytes a second that it reads, as over a slow link; None for all that there are.
    """

    def __init__(
        self,
        *words: str,
        width: int = 120,
        height: int = 40,
        answers: bool = True,
        speed: float | None = None,
        **environment: str,
    ) -> None:
        self.speed = speed
        self._answers = answers
        self._allowed_at, self._allowed = time.monotonic(), 0.0
        self.screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.exit_code: int | None = None
        pid, self._fd = pty.fork()
        if pid == 0:
            # readline, which pytest loads, and the workers of its plugins set LINES and COLUMNS, which would win
            unset = ("LC_ALL", "LC_CTYPE", "LANG", "NO_COLOR", "COLORTERM", "TERM", "LINES", "COLUMNS")
            plain = {name: value for name, value in os.environ.items() if name not in unset}
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
            os.execve(GRADTUI, [GRADTUI, *words], {**plain, "TERM": "xterm-256color", "LANG": "C.UTF-8", **environment})
        self.pid = pid

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._reap(os.WEXITED)
        with contextlib.suppress(OSError):
            os.close(self._fd)

    def resize(self, width: int, height: int) -> None:
        """As a window that is resized: the size, and the signal."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.screen.resize(height, width)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._fd, keys.encode())

    def hang_up(self) -> None:
        """As a connection that is lost."""
        os.close(self._fd)

    @property
    def text(self) -> str:
        """What stands on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait_for(self, what: str | Callable[[str], object], seconds: float = 40.0) -> str:
        """Read until some text stands on the screen, or a condition holds for it."""
        holds = (lambda text: what in text) if isinstance(what, str) else what
        deadline = time.monotonic() + seconds
        while not holds(self.text):
            if time.monotonic() > deadline:
                raise AssertionError(f"never came: {what}\n{self.text}\n{self.raw[-2000:]!r}")
            self._read(0.1)
        return self.text

    def settle(self, seconds: float = 0.6) -> None:
        """Read what comes for a while."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._read(0.05)

    def wait_for_exit(self, seconds: float = 20.0) -> int:
        """Read until the program has ended; its exit code, negative for a signal."""
        deadline = time.monotonic() + seconds
        while self.exit_code is None:
            assert time.monotonic() < deadline, f"it goes on\n{self.text}"
            self._read(0.05)
            self._reap(os.WNOHANG)
        self._read(0.1)
        return self.exit_code

    def _reap(self, how: int) -> None:
        pid, status = os.waitpid(self.pid, how if how == os.WNOHANG else 0)
        if pid:
            self.exit_code = os.waitstatus_to_exitcode(status)

    def _read(self, seconds: float) -> None:
        most = 1 << 16 if self.speed is None else self._allowance()
        if most < 1:
            time.sleep(min(seconds, 0.01))
        elif select.select([self._fd], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                data = os.read(self._fd, most)
                self._allowed -= len(data)
                # a sequence that was cut in two is whole in the second
                asked = (self.raw[-len(QUESTION) + 1 :] + data).count(QUESTION)
                self.raw += data
                self._stream.feed(UNKNOWN.sub(b"", data))
                if self._answers:
                    os.write(self._fd, asked * b"\x1b[1;1R")

    def _allowance(self) -> int:
        assert self.speed is not None
        now = time.monotonic()
        # what a tenth of a second carries at most, however long nothing was sent
        self._allowed = min(self._allowed + self.speed * (now - self._allowed_at), self.speed / 10)
        self._allowed_at = now
        return int(self._allowed)
