"""How fast the terminal takes what is sent to it, and how much more may be sent without a queue before it.

A terminal over SSH lies behind buffers that take whole screens at once: the kernel's, the SSH server's, the network's.
So each piece that is sent ends in a question (where is the cursor?), and the answer says that the terminal has drawn
the piece. A terminal that never answers is judged by how long the kernel makes us wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

QUESTION = "\x1b[6n"  # device status report, ECMA-48: every terminal in use answers with its cursor's place

LEAST_WINDOW = 800  # bytes; at 5 kB/s a key press waits 0.16 s behind them
LEAST_PIECE = 200  # bytes; smaller ones would be questions more than answers
MOST_WINDOW = 1 << 16  # bytes; a few whole screens
QUEUED_SHORT = 0.07  # s in a queue under which more is sent at once the next time
SHORT_IN_A_ROW = 3  # times that it has to be so: a link that was idle takes the first bytes at once
QUEUED_LONG = 0.2  # s in a queue over which less is
WITHOUT_ANSWER = 3.0  # s after the first question in which a terminal that answers has done so, if it is not very slow
UNTIL_KNOWN = 0.5  # s between frames until then
LOST_AFTER = 5.0  # s after which an answer is taken for lost, as when a terminal multiplexer changes its terminal
LOST_IN_A_ROW = 3  # lost answers after which the terminal counts as one that does not answer
STALL = 0.05  # s that the kernel makes us wait: the link is slow, and not just the computer busy
MOST_WAIT = 1.0  # s that leaving may wait for the last answers
SAFETY = 0.7  # share of the measured rate that is used where nothing answers


class Link:
    """The way to the terminal. Thread-safe.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.unsent = False  # whether something drawn waits for room: kept by who draws
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: deque[tuple[float, int]] = deque()  # when, and how many bytes
        self._first_asked: float | None = None
        self._last_sent = 0.0
        self._answers = False
        self._lost = 0
        self._window = MOST_WINDOW
        self._least_round_trip = float("inf")
        self._short = 0  # full windows in a row that were answered soon
        self._stalled = False  # whether the kernel makes us wait right now
        self._rate: float | None = None  # bytes/s of a terminal that does not answer; None until it made us wait
        self._total = 0
        self._capacity = 0.0
        self._backlog = 0.0
        self._backlog_at = 0.0

    @property
    def ready(self) -> bool:
        """Whether the terminal has taken the last frame, so that there is a point in another one."""
        with self._lock:
            now = self._clock()
            self._forget_lost(now)
            if self.unsent or self._stalled:
                return False
            if self._answers:
                return not self._asked
            if self._first_asked is not None and now - self._first_asked < WITHOUT_ANSWER:
                return now - self._last_sent >= UNTIL_KNOWN
            return self._rate is None or self._drained(now) <= 0

    def room(self) -> int:
        """Bytes that may be sent now."""
        with self._lock:
            now = self._clock()
            self._forget_lost(now)
            if self._stalled:
                return 0
            if self._answers:
                left = self._window - sum(size for _, size in self._asked)
            elif self._rate is None:
                left = MOST_WINDOW
            else:
                most = max(LEAST_PIECE, self._rate * QUEUED_LONG * SAFETY)
                left = int(min(most, MOST_WINDOW) - max(0.0, self._drained(now)))
            return left if left >= LEAST_PIECE else 0

    def sent(self, size: int) -> None:
        """So many bytes, a question at their end, were handed to the kernel or soon will be."""
        with self._lock:
            now = self._last_sent = self._clock()
            self._first_asked = now if self._first_asked is None else self._first_asked
            self._total += size
            self._asked.append((now, size))
            if self._rate is not None:
                self._backlog, self._backlog_at = max(0.0, self._drained(now)) + size, now

    def answered(self) -> None:
        """The terminal answered the oldest question."""
        with self._lock:
            if not self._asked:
                return
            now = self._clock()
            before = sum(size for _, size in self._asked)
            asked, _ = self._asked.popleft()
            self._lost = 0
            if not self._answers:
                self._answers = True
                if now - asked > QUEUED_LONG:
                    self._window = LEAST_PIECE  # a small one first, whose time is nearly that of the way alone
                    return
            self._least_round_trip = min(self._least_round_trip, now - asked)
            queued = now - asked - self._least_round_trip
            if queued > QUEUED_LONG:
                # what would have queued for half as long as is too long
                self._window = max(LEAST_WINDOW, min(self._window, int(before * QUEUED_LONG / 2 / queued)))
                self._short = 0
            elif 4 * before >= 3 * self._window:
                self._short = self._short + 1 if queued < QUEUED_SHORT else 0
                if self._short == SHORT_IN_A_ROW:
                    self._window, self._short = min(MOST_WINDOW, self._window * 2), 0

    def stalled(self) -> None:
        """The kernel does not take what was sent for now."""
        self._stalled = True

    def waited(self, size: int, seconds: float) -> None:
        """The kernel took so many bytes in the end, for which it had let us wait so long."""
        with self._lock:
            self._stalled = False
            if seconds < STALL:
                return
            now = self._clock()
            rate = size / seconds
            if self._rate is None:
                drained = rate * (now - (self._first_asked if self._first_asked is not None else now))
                self._capacity = min(max(self._total - drained, 1 << 12), 1 << 15)
                self._rate = rate
            else:
                self._rate = (self._rate + rate) / 2
            self._backlog, self._backlog_at = self._capacity, now

    def wait_for_answers(self) -> None:
        """Wait until every answer that is likely to come has come, so that the shell does not get it; 1 s at most."""
        began = self._clock()
        while self._asked and not self._stalled:
            known = self._answers or (self._first_asked or 0.0) > began - WITHOUT_ANSWER
            if self._clock() - began > (MOST_WAIT if self._answers else MOST_WAIT / 4 if known else 0.0):
                return
            time.sleep(0.01)

    def _drained(self, now: float) -> float:
        """What is left of the backlog, in bytes, where nothing answers."""
        return self._backlog - (self._rate or 0.0) * SAFETY * (now - self._backlog_at)

    def _forget_lost(self, now: float) -> None:
        if self._asked and now - self._asked[0][0] > LOST_AFTER:
            self._asked.clear()
            self._lost += 1
            if self._lost >= LOST_IN_A_ROW:
                self._answers = False
