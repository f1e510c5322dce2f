"""The state of following one run file: what is in it so far, read a little at a time.

numpy and sqlite3 are imported by the thread that follows, after the first frame is on the screen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gradtui.errors import GradtuiError, RunFileBusyError

if TYPE_CHECKING:
    from gradtui.runfile import Finding, Header, Measure, Rows, RunReader, Scalars, Status
    from gradtui.runfile.blocks import FloatArray
    from gradtui.runfile.history import History
    from gradtui.view import LayerFacts

T = TypeVar("T")

RETRY_EVERY = 1.0  # s between attempts to open a file that could not be read
STATUS_EVERY = 1.0  # s between polls of the heartbeat, and of the findings
ROWS_PER_READ = 2048  # bounds the work of one frame
READS_PER_POLL = 32  # the rest is read by the next poll
BEHIND = 20_000  # recorded steps; a follower further behind starts again from an overview
LOOK_BACK = 512  # rows in which a sampled measure (the update ratio) is sought before a step
VALUES_BACK = 1 << 22  # values in those rows at most: of a very deep net they are fewer
NEWEST_ROWS = 64  # read at a time where no history is kept
ENDED = ("finished", "stopped", "failed")  # a run that died may only have been suspended


class RunFollower:
    """Follows the run file that `find` names; used on one thread.

    Whatever is wrong with the file is said in `problem`, and the file is tried again: a file that is missing, damaged
    or locked raises nothing here.

    Args:
        find: which run; called until it returns, and may raise `GradtuiError`.
        waits: whether a file that is not there yet is waited for without a word.
        keeps_history: whether every recorded step and the findings are read, or the newest steps alone.

    Attributes:
        path: the file, None until it is found.
        problem: why it cannot be read, "" if it can.
        waiting: True while there is no file yet.
        status, header: of the run; `status` is None until the file is open.
        first, last: the recorded span; `last` is -1 before the first step.
        newest: [layers, measures], of each value the newest that was measured; None before the first.
        row: the newest step with measures.
        loss: the newest that is known: where several models train, not every step has one.
        findings: as the run file has them; `findings_problem` is a line if they cannot be read.
    """

    def __init__(self, find: Callable[[], Path], *, waits: bool = False, keeps_history: bool = True) -> None:
        self.path: Path | None = None
        self.problem = ""
        self.waiting = waits
        self.status: Status | None = None
        self.header: Header
        self._find = find
        self._waits = waits
        self._keeps_history = keeps_history
        self._reader: RunReader | None = None
        self._retry_at = 0.0
        self._reset()

    def _reset(self) -> None:
        """Nothing of the file is read yet."""
        self.measures: tuple[Measure, ...] = ()
        self.layers: tuple[LayerFacts, ...] = ()
        self.first, self.last = 0, -1
        self.newest: FloatArray | None = None
        self.row: Rows | None = None
        self.loss: float | None = None
        self.history: History | None = None
        self.scalars: dict[str, Scalars] = {}
        self.findings: tuple[Finding, ...] = ()
        self.findings_problem = ""
        self._scalar_mark = 0
        self._past: deque[tuple[float, FloatArray]] = deque()
        self._pace: deque[tuple[float, int]] = deque()
        self._status_at = 0.0
        self._has_more_layers = self._over = False
        self._findings_at = 0.0
        self._has_news = False  # kept where a lock comes between two reads

    # -- the file -----------------------------------------------------------------------------------------------------

    def poll(self) -> bool:
        """Read what is new; True if anything is."""
        if self._reader is None and not self._open():
            return False
        self.attempt(self._read)
        news, self._has_news = self._has_news, False
        return news

    def attempt(self, read: Callable[[RunReader], T]) -> T | None:
        """What `read` gives; None if the file is not open, or cannot be read now."""
        if self._reader is None:
            return None
        try:
            return read(self._reader)
        except RunFileBusyError:  # a lock, as of a commit on a network file system, passes
            return None
        except GradtuiError as error:
            self._fail(str(error))
        except Exception as error:  # an unforeseen one must not end in a traceback over the screen
            self._fail(f"this run cannot be shown ({type(error).__name__}: {error})", again=False)
        return None

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open(self) -> bool:
        if time.monotonic() < self._retry_at:
            return False
        try:
            path = self.path = self._find()
            self.waiting = self._waits and not path.exists()
            if self.waiting:
                return False
            from gradtui.measures import described
            from gradtui.runfile.reader import open_run

            self._reader = open_run(path)
            self._reset()
            self.status, self._status_at = self._reader.status(), time.monotonic()
        except GradtuiError as error:
            self._fail(str(error))
            return False
        self.problem, self.header = "", self._reader.header
        self.measures = tuple(map(described, self._reader.measures))
        return True

    def _fail(self, problem: str, again: bool = True) -> None:
        self.close()
        self.problem = problem
        self._retry_at = time.monotonic() + RETRY_EVERY if again else float("inf")

    # -- what is new in it --------------------------------------------------------------------------------------------

    def _read(self, reader: RunReader) -> None:
        if self._over:
            return
        self._has_news |= self._poll_status(reader)
        assert self.status is not None
        # what was written before the ending is read after it, and then no more
        ended = self.status.state in ENDED
        if not self.layers or self._has_more_layers:
            self._read_layers(reader)
        span = reader.span()
        if span is not None and not self._keeps_history:
            self._has_news |= self._read_newest(reader, span)
        elif span is not None and self.layers and self.measures:
            self._read_rows(reader, span)
        self._has_news |= self._read_scalars(reader)
        if self._keeps_history and self.newest is not None:
            self._has_news |= self._read_findings(reader, ended)
        is_behind = self.history is not None and span is not None and self.last < span[1]
        self._over = ended and not is_behind

    def _poll_status(self, reader: RunReader) -> bool:
        now = time.monotonic()
        if now - self._status_at < STATUS_EVERY:
            return False
        self._status_at = now
        before, self.status = self.status, reader.status()
        self._has_more_layers = reader.layer_count() != len(self.layers)
        return before is None or replace(before, silent=0.0) != replace(self.status, silent=0.0)

    def _read_layers(self, reader: RunReader) -> None:
        """The layers, anew: a model that came late adds some, and may name the others again."""
        from gradtui.view import facts

        self._has_more_layers = False
        self.layers = tuple(facts(layer) for layer in reader.layers())
        self.history, self.newest, self.last = None, None, -1
        self._past.clear()

    def _read_rows(self, reader: RunReader, span: tuple[int, int]) -> None:
        """Every step since the last poll."""
        behind = span[1] - self.last > BEHIND or not reader.is_whole(self.last)
        if self.history is None or behind:
            self._read_overview(reader, span)
        for _ in range(READS_PER_POLL):
            rows = reader.newer(self.last, ROWS_PER_READ)
            if not len(rows):
                break
            self._take(rows)
            self._has_news = True

    def _read_overview(self, reader: RunReader, span: tuple[int, int]) -> None:
        """Start from what was folded while the run was written: bounded work however long the run is."""
        from gradtui.runfile.history import History
        from gradtui.view import newest_known

        folded = reader.buckets()
        self.history = History(len(self.layers), len(self.measures))
        self.history.add(folded)
        self.first = span[0]
        self.last = int(folded.last_step[-1]) if len(folded) else span[0] - 1
        back = reader.at(span[1], self.look_back)
        if len(back):
            self.newest, self.row, self.loss = newest_known(back.measures), back, newest_loss(back)
            self._remember()

    def _take(self, rows: Rows) -> None:
        from gradtui.runfile import is_measured
        from gradtui.view import newest_known, update_known

        assert self.history is not None
        self.history.add_rows(rows)
        self.last = int(rows.step[-1])
        self.loss = newest_loss(rows, oldest_first=True, before=self.loss)
        measured = is_measured(rows.measures).any(axis=(1, 2)).nonzero()[0]
        if len(measured):
            last_rows = rows.measures[-self.look_back :]
            known = self.newest
            self.newest = newest_known(last_rows[::-1]) if known is None else update_known(known, last_rows)
            newest = int(measured[-1])
            self.row = type(rows)(*(getattr(rows, name)[newest:] for name in rows.__dataclass_fields__))
            self._remember()

    def _read_newest(self, reader: RunReader, span: tuple[int, int]) -> bool:
        """The newest steps alone."""
        from gradtui.view import newest_known, update_known

        if span[1] == self.last:
            return False
        count = self.look_back if self.newest is None else min(self.look_back, NEWEST_ROWS, span[1] - self.last)
        rows, self.loss = reader.at(span[1], count), reader.last_loss()
        self.first, self.last = span
        if len(rows):
            known = self.newest
            self.newest = newest_known(rows.measures) if known is None else update_known(known, rows.measures[::-1])
            self.row = rows
        return True

    def _read_scalars(self, reader: RunReader) -> bool:
        series, self._scalar_mark = reader.scalars(self._scalar_mark)
        for name, added in series.items():
            self.scalars[name] = _extended(self.scalars.get(name), added)
        return bool(series)

    def _read_findings(self, reader: RunReader, ended: bool) -> bool:
        """Those that are stored; of an older file, which stores none, they are computed once."""
        now = time.monotonic()
        is_done = reader.version < 3 and self._findings_at > 0
        if is_done or (now - self._findings_at < STATUS_EVERY and not ended):
            return False
        from gradtui.diagnosis import findings_of

        before = self.findings, self.findings_problem
        self._findings_at = now
        try:
            self.findings, self.findings_problem = tuple(map(_as_text, findings_of(reader))), ""
        except RunFileBusyError:
            raise
        except GradtuiError as error:  # the rest of the run may be whole
            self.findings_problem = str(error)
        except Exception as error:  # of one that a user has registered
            self.findings_problem = f"the findings of this run cannot be read ({type(error).__name__}: {error})"
        return before != (self.findings, self.findings_problem)

    @property
    def look_back(self) -> int:
        """How many rows before a step are searched for measures that are sampled."""
        return max(4, min(LOOK_BACK, VALUES_BACK // max(1, len(self.layers) * len(self.measures))))

    # -- a second ago -------------------------------------------------------------------------------------------------

    def _remember(self) -> None:
        assert self.newest is not None and self.row is not None
        now = time.monotonic()
        self._past.append((now, self.newest))
        while len(self._past) > 1 and self._past[1][0] < now - 1.0:
            self._past.popleft()
        # by the training's own clock: what is read at once may have been written over a long time
        self._pace.append((float(self.row.time[0]), int(self.row.step[0])))
        while len(self._pace) > 2 and self._pace[0][0] < self._pace[-1][0] - 3.0:
            self._pace.popleft()

    def second_ago(self) -> FloatArray:
        """`newest` as it was a second ago."""
        return self._past[0][1]

    def steps_per_second(self) -> float | None:
        """The pace of a live run over the last seconds; None if it is not known."""
        if self.status is None or not self.status.live or not self._pace:
            return None
        (start, first), (end, last) = self._pace[0], self._pace[-1]
        return (last - first) / (end - start) if end - start > 0.2 else None


def newest_loss(rows: Rows, *, oldest_first: bool = False, before: float | None = None) -> float | None:
    """The loss of the newest of the rows that has one, else `before`."""
    known = rows.loss_known.nonzero()[0]
    return float(rows.loss[known[-1 if oldest_first else 0]]) if len(known) else before


def _as_text(finding: Finding) -> Finding:
    """The finding with names that are text, so that it can be shown; raises what odd values raise."""
    safe = replace(finding, layers=tuple(map(str, finding.layers)), remedies=tuple(map(str, finding.remedies)))
    str(safe)  # how it will be shown
    return safe


def _extended(known: Scalars | None, added: Scalars) -> Scalars:
    import numpy as np

    if known is None:
        return added
    return type(added)(*(np.concatenate([getattr(known, f), getattr(added, f)]) for f in added.__dataclass_fields__))
