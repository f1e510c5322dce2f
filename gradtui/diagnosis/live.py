"""The diagnosis of a run while it is recorded: what begins, changes and ends, at a bounded cost and in bounded room."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradtui.diagnosis.kinds import FINDINGS, Finding, Thresholds
from gradtui.diagnosis.search import find
from gradtui.diagnosis.series import Evidence
from gradtui.runfile.blocks import Rows, optimizer_bits, pad_layers
from gradtui.runfile.history import History
from gradtui.runfile.schema import Layer, Origin

LEAST_REST = 1.0  # s between two passes
HISTORY_BYTES = 16 << 20  # of the history of a net of many layers, which gets fewer buckets
FEWEST_BUCKETS, MOST_BUCKETS = 64, 4096
WAITING_BYTES = 4 << 20  # of rows that wait for the next pass before they are folded into the history
SEVERAL = 3  # passes in which a finding has to have held to be kept when it does not any more
MOST_CLEARED = 8  # findings of one kind and layers that are kept after they have ended

Change = tuple[int, Finding | None]  # a finding's number, and what it is now; None takes it back


class LiveDiagnosis:
    """Takes the rows of a run as they are written, and tells what changes. Call all but `tell` from one thread.

    Args:
        measures: the names of the columns of a row's BLOB.
        thresholds: the numbers that decide.
        share: of the time, that it may take; one pass when the run is closed comes on top.
        on_finding: called by `tell` for each finding that begins.
        clock: seconds.
        cpu: seconds that this thread has worked.

    Attributes:
        news: findings that have begun and wait to be told.
        thresholds: the numbers that decide.
    """

    def __init__(
        self,
        measures: Sequence[str],
        thresholds: Thresholds,
        share: float,
        on_finding: Callable[[Finding], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self.news: deque[Finding] = deque()
        self.thresholds = thresholds
        self._measures, self._share, self._on_finding = list(measures), share, on_finding
        self._clock, self._cpu = clock, cpu
        self._layers: Sequence[Layer] = ()
        self._origins: list[Origin] = []
        self._history: History | None = None
        self._waiting: list[tuple[Any, ...]] = []
        self._waiting_bytes = 0
        self._tracker = FindingTracker(thresholds.patience)
        self._last_step = 0
        self._is_stale = False
        self._next_at = -math.inf
        self._origins_seen = 0

    def know(self, layers: Sequence[Layer]) -> None:
        """Learn the layers; those of before come first. May be called from any thread."""
        self._layers = list(layers)

    def broke(self, origin: Origin) -> None:
        """Learn where a NaN or ∞ began; may be called from any thread."""
        self._origins.append(origin)

    def take(self, rows: Sequence[tuple[Any, ...]], last: bool = False) -> list[Change]:
        """Rows as they are written; after the `last` the run is closed.

        A row is (step, epoch, time, loss, learning rate, BLOB, number of the optimizer). Returns what has changed of
        the findings, if it was time for a look.
        """
        begin, now = self._cpu(), self._clock()
        layers, origins = self._layers, len(self._origins)
        self._waiting += rows
        self._waiting_bytes += sum(len(row[5] or b"") + 100 for row in rows)
        self._is_stale |= bool(rows)
        changes: list[Change] = []
        # a NaN cannot wait: the training may be stopped for it
        is_due = (self._is_stale and (last or now >= self._next_at)) or origins > self._origins_seen
        if layers and (is_due or self._waiting_bytes > WAITING_BYTES):
            self._fold(len(layers))
        if layers and is_due:
            changes = self._look(layers, origins)
            self._next_at = max(self._next_at, now + LEAST_REST)
        self._next_at = max(self._next_at, now) + (self._cpu() - begin) / self._share  # what it took is owed
        return changes

    def tell(self) -> None:
        """Call back for what has begun; whatever that raises is the training's own affair."""
        while self.news and self._on_finding is not None:
            self._on_finding(self.news.popleft())

    def _fold(self, layers: int) -> None:
        """Take the waiting rows into the history."""
        rows, self._waiting, self._waiting_bytes = self._waiting, [], 0
        measures = len(self._measures)
        if self._history is None:
            fitting = HISTORY_BYTES // (12 * layers * measures)
            buckets = min(MOST_BUCKETS, max(FEWEST_BUCKETS, 1 << max(1, fitting.bit_length() - 1)))
            self._history = History(layers, measures, buckets)
        self._history.widen(layers)
        if not rows:
            return
        epoch, seconds, loss, rate = (
            np.array([math.nan if row[i] is None else float(row[i]) for row in rows]) for i in (1, 2, 3, 4)
        )
        steps = np.array([row[0] for row in rows], np.int64)
        blobs = pad_layers([row[5] for row in rows], layers, measures)
        known = np.array([row[3] is not None for row in rows], np.bool_)
        optimizers = np.array([optimizer_bits(row[6], row[5] is not None) for row in rows], np.int64)
        self._history.add_rows(Rows(steps, epoch, seconds, loss, rate, blobs, known, optimizers))
        self._last_step = max(self._last_step, int(steps[-1]))

    def _look(self, layers: Sequence[Layer], origins: int) -> list[Change]:
        assert self._history is not None
        self._is_stale, self._origins_seen = False, origins
        evidence = Evidence(layers, self._measures, self._history.aggregates(), self._origins[:origins])
        changes, begun = self._tracker.update(find(evidence, self.thresholds), self._last_step)
        if self._on_finding is not None:
            self.news += begun
        return changes


@dataclass
class _Tracked:
    number: int
    finding: Finding
    begin: int  # the earliest that it was said to hold from: towards its end that is told ever later
    passes: int = 0
    held_until: int = 0


class FindingTracker:
    """Tells which findings of one pass are those of the pass before, which have begun, and which hold no more.

    One that holds no more is kept, with its end, if it held in several passes and for at least `patience` steps;
    otherwise it is taken back.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._numbers = 0
        self._open: list[_Tracked] = []
        self._cleared: list[_Tracked] = []

    def update(self, found: Sequence[Finding], step: int) -> tuple[list[Change], list[Finding]]:
        """What a pass over the steps up to `step` has found: what has changed, and what has begun."""
        changes: list[Change] = []
        begun: list[Finding] = []
        before, self._open = self._open, []
        for one in found:
            same = _match(one, before)
            if same is not None:
                before.remove(same)
            else:
                same = self._again(one)
            if same is None:
                self._numbers += 1
                same = _Tracked(self._numbers, one, one.begin)
                begun.append(one)
                changes.append((same.number, one))
            elif same.finding != one:
                changes.append((same.number, one))
            same.finding, same.begin = one, min(same.begin, one.begin)
            same.passes, same.held_until = same.passes + 1, step
            self._open.append(same)
        for gone in before:
            changes += self._end(gone)
        return changes, begun

    def _again(self, one: Finding) -> _Tracked | None:
        """The ended finding that this one goes on with: it overlaps it, or there were many like it."""
        like = [old for old in self._cleared if _is_like(old.finding, one)]
        if like and (one.begin <= like[-1].held_until or len(like) >= MOST_CLEARED):
            again = like[-1]
            self._cleared.remove(again)
            again.begin = one.begin
            return again
        return None

    def _end(self, gone: _Tracked) -> list[Change]:
        kind = FINDINGS.get(gone.finding.kind)
        if kind is not None and not kind.ends:
            self._open.append(gone)
            return []
        if gone.passes < SEVERAL or gone.held_until - gone.begin < self._patience:
            return [(gone.number, None)]
        gone.finding = replace(gone.finding, begin=gone.begin, end=gone.held_until)
        self._cleared.append(gone)
        return [(gone.number, gone.finding)]


def _is_like(one: Finding, other: Finding) -> bool:
    """Of one kind, and about some of the same layers or both about the whole net; of what cannot end there is one."""
    if one.kind != other.kind or one.note != other.note:
        return False
    kind = FINDINGS.get(one.kind)
    return one.layers == other.layers or bool(set(one.layers) & set(other.layers)) or not (kind is None or kind.ends)


def _match(one: Finding, before: Sequence[_Tracked]) -> _Tracked | None:
    like = [old for old in before if _is_like(old.finding, one)]
    return next((old for old in like if old.finding.layers == one.layers), like[0] if like else None)
