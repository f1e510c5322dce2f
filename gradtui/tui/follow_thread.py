"""The one thread of a screen that shows runs: it polls, and hands over what there is to show when that has changed."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

FRAMES_PER_SECOND = 4.0
STARTING_EVERY = 0.05  # s between polls while a training starts
LEAST_PAUSE = 0.01  # s between two frames, however long one takes


class View(Protocol[T_co]):
    """What is shown of one run or several; used on the thread alone."""

    @property
    def starting(self) -> bool:
        """Whether a training is just starting, so that its file may be there any moment."""

    def poll(self) -> bool:
        """Read what is new; True if anything is."""

    def next(self, changed: bool, ready: bool) -> T_co | None:
        """What is to be shown now, frozen; None if nothing is.

        `changed` says whether something was new since the last one, `ready` whether the last one is on the terminal:
        until it is, only what is asked for is handed over.
        """

    def close(self) -> None:
        """Close the files."""


class FollowThread(threading.Thread, Generic[T]):
    """Polls `view` until it is stopped, and calls `deliver` on this thread with what it has to show.

    `ready` says whether the last picture is on the terminal.
    """

    def __init__(
        self,
        view: View[T],
        deliver: Callable[[T], None],
        *,
        frames_per_second: float = FRAMES_PER_SECOND,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(name="gradtui-follow", daemon=True)
        self._view = view
        self._deliver = deliver
        self._interval = 1.0 / frames_per_second
        self._ready = ready
        self._asked: deque[Callable[[], object]] = deque()
        self._wake = threading.Event()
        self._stopped = threading.Event()

    def ask(self, change: Callable[[], object]) -> None:
        """Have `change` called on this thread soon, and show what it has changed at once."""
        self._asked.append(change)
        self._wake.set()

    def stop(self) -> None:
        """End the thread soon."""
        self._stopped.set()
        self._wake.set()

    def run(self) -> None:
        """Poll a few times a second, and whenever something is asked for."""
        changed = False
        try:
            while not self._stopped.is_set():
                started = time.monotonic()
                changed = self._view.poll() or changed
                while self._asked:
                    self._asked.popleft()()
                newest = self._view.next(changed, self._ready())
                if newest is not None:
                    changed = False
                    self._deliver(newest)
                interval = STARTING_EVERY if self._view.starting else self._interval
                self._wake.wait(max(LEAST_PAUSE, interval - (time.monotonic() - started)))
                self._wake.clear()
        finally:
            self._view.close()
