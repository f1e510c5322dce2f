"""Output of the commands while they run: a progress bar on a terminal, a line per epoch, JSON lines."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from pretrain.drafts import new_draft
from pretrain.errors import DataError

REFRESH = 0.1  # seconds between two updates of the bar
WIDTH = 28  # characters of the bar


class Progress:
    """A line per epoch on `stream`; below it on a terminal a bar of the work done out of `total`, and the time left."""

    def __init__(self, total: float, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._stream, self._clock = total, stream, clock
        self._live = stream.isatty()
        self._started = self._shown = clock()
        self._done_before: float | None = None  # by an earlier run, or by none
        self._drawn = False

    def line(self, text: str) -> None:
        """Write a line."""
        self._wipe()
        print(text, file=self._stream, flush=True)

    def update(self, done: float, text: str) -> None:
        """Show how much of the work is done."""
        now = self._clock()
        if self._done_before is None:
            self._done_before, self._started = done, now
        if not self._live or now - self._shown < REFRESH:
            return
        self._shown = now
        share = min(1.0, done / self._total) if self._total else 1.0
        filled = round(share * WIDTH)
        bar = "━" * filled + "─" * (WIDTH - filled)
        self._stream.write(f"\r\x1b[K{text}  {bar} {share:4.0%}  {self._left(done, now)}")
        self._stream.flush()
        self._drawn = True

    def close(self) -> None:
        """Remove the bar."""
        self._wipe()
        self._stream.flush()

    def _left(self, done: float, now: float) -> str:
        new = done - (self._done_before or 0.0)
        if new <= 0 or now - self._started < 1:
            return ""
        return f"{duration((now - self._started) / new * (self._total - done))} left"

    def _wipe(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._drawn = False


def duration(seconds: float) -> str:
    """Seconds in words: 45s, 3m20s, 2h05m."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Metrics:
    """A file of JSON lines, one per epoch; lines of epochs that a resumed training repeats are removed first."""

    def __init__(self, path: Path, keep: Callable[[Mapping[str, Any]], bool]) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            old = path.read_text().splitlines() if path.exists() else []
            kept = [line for line in old if _fits(line, keep)]
            if len(kept) < len(old):
                draft = new_draft(path)
                draft.write_text("".join(f"{line}\n" for line in kept))
                draft.replace(path)
            self._file = path.open("a")
        except OSError as error:
            raise DataError(f"cannot write {path}: {error}") from error

    def write(self, **values: Any) -> None:
        """Add a line; NaN and infinities, which JSON does not have, are text."""
        plain = {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        try:
            self._file.write(json.dumps(plain) + "\n")
            self._file.flush()
        except OSError as error:
            raise DataError(f"cannot write {self._path}: {error}") from error

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _fits(line: str, keep: Callable[[Mapping[str, Any]], bool]) -> bool:
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return False  # cut short by a kill
    return isinstance(values, dict) and keep(values)


class Stop:
    """Whether SIGTERM or Ctrl-C has asked to stop; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.signal != 0

    @property
    def code(self) -> int:
        """The exit status, 128 plus the signal's number."""
        return 128 + self.signal

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, the signals are handled."""
        names = (signal.SIGTERM, signal.SIGINT)
        before = {name: signal.getsignal(name) for name in names}
        for name in names:
            signal.signal(name, self._handle)
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
        print("stopping after this step…", file=sys.stderr, flush=True)
