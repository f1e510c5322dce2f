"""Diagnoses a run while it is recorded, in the writer's thread, and hands what it finds to the training's thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradtui.diagnosis import Evidence, Finding, Thresholds, diagnose
from gradtui.measures import MEASURES
from gradtui.runfile import Layer, Rows
from gradtui.runfile.blocks import pad_layers
from gradtui.runfile.history import History
from gradtui.runfile.schema import Origin

REST = 30  # times what a diagnosis took before the next one: 3 % of a core at most
LEAST_REST = 1.0  # s


class Watchdog:
    """Looks at the rows of a run, and calls back once for each kind of finding and the layers it is about.

    Args:
        on_finding: what to call; in the training's thread, between two steps.
        thresholds: the numbers that decide.
    """

    def __init__(self, on_finding: Callable[[Finding], None], thresholds: Thresholds | None = None) -> None:
        self.news: deque[Finding] = deque()
        self.layers: Sequence[Layer] = ()
        self.origins: list[Origin] = []
        self._on_finding, self._thresholds = on_finding, thresholds
        self._history: History | None = None
        self._width = 0
        self._told: set[tuple[str, tuple[str, ...]]] = set()
        self._next = 0.0

    def take(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows (step, epoch, time, loss, learning rate, BLOB) as they are written."""
        layers = self.layers
        if not layers or not rows:
            return
        if self._history is None or self._width != len(layers):
            self._history, self._width = History(len(layers), len(MEASURES)), len(layers)
        epoch, seconds, loss, rate = (
            np.array([np.nan if row[i] is None else float(row[i]) for row in rows]) for i in (1, 2, 3, 4)
        )
        self._history.add_rows(
            Rows(
                np.array([row[0] for row in rows], np.int64),
                epoch,
                seconds,
                loss,
                rate,
                pad_layers([row[5] for row in rows], len(layers), len(MEASURES)),
                np.array([row[3] is not None for row in rows], np.bool_),
            )
        )
        if time.monotonic() >= self._next:
            self.look()

    def look(self) -> None:
        """Diagnose what there is; new findings wait to be told."""
        if self._history is None:
            return
        begin = time.monotonic()
        evidence = Evidence(self.layers, list(MEASURES), self._history.envelope(), list(self.origins))
        for finding in diagnose(evidence, self._thresholds):
            if (finding.kind, finding.layers) not in self._told:
                self._told.add((finding.kind, finding.layers))
                self.news.append(finding)
        end = time.monotonic()
        self._next = end + max(LEAST_REST, REST * (end - begin))

    def tell(self) -> None:
        """Call back for what is new; whatever that raises is the training's own affair."""
        while self.news:
            self._on_finding(self.news.popleft())
