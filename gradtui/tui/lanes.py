"""What the Compare screen shows: one lane a run, and the thread that follows all of them.

numpy and sqlite3 are imported on that thread, after the first frame is on the screen.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from gradtui.errors import GradtuiError, RunFileBusyError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gradtui.runfile import Measure, RunReader, Scalars

LOOK_BACK = 64  # rows in which a sampled measure (the update ratio) is sought
LOOK_BACK_OF_MANY = 4  # the same where a row is large
MANY_LAYERS = 300
STATUS_EVERY = 1.0  # s between looks at whether a run still lives
GRID = 200  # points of a curve: more than a panel has columns
MOST_LOSSES = 4000  # that are kept of a run


@dataclass(frozen=True)
class Source:
    """A run that is to be shown: what it is called, and its file, which need not be there yet."""

    label: str
    path: Path


@dataclass(frozen=True)
class Lane:
    """One run. `values` are of its layers, the input's first; None where the measure does not exist.

    Attributes:
        state: waiting, live, finished, stopped, failed, died; `detail` says more.
        progress: share of the steps that are done, 0 to 1; None if unknown.
        accuracy: of the test images once they are measured (`tested`), of the validation before.
        epochs, accuracies: the validation over time.
        steps, losses: of a run without any, thinned evenly where it is long.
        numbers: what stands in the run beside: the learning rate, the epoch, the loss.
    """

    label: str
    path: Path
    state: str = "waiting"
    detail: str = ""
    progress: float | None = None
    step: int = 0
    epoch: float | None = None
    learning_rate: float | None = None
    loss: float | None = None
    names: tuple[str, ...] = ()
    values: tuple[float | None, ...] = ()
    accuracy: float | None = None
    tested: bool = False
    epochs: tuple[float, ...] = ()
    accuracies: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()

    @property
    def spread(self) -> float | None:
        """Fastest over slowest layer; ∞ if one stands still, None unless two layers have finite values."""
        known = [value for value in self.values if value is not None]
        if len(known) < 2 or not all(math.isfinite(value) for value in known):
            return None
        return max(known) / min(known) if min(known) > 0 else math.inf


@dataclass(frozen=True)
class Comparison:
    """All lanes at one moment, and the measure that they show."""

    lanes: tuple[Lane, ...]
    measures: tuple[Measure, ...] = ()
    measure: int = 0


class LaneFeed(threading.Thread):
    """Follows runs until it is stopped; calls `deliver` on its thread when something changed.

    `ready` says whether the last picture is on the terminal: until it is, only what is asked for is handed over.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        deliver: Callable[[Comparison], None],
        *,
        frames_per_second: float = 4.0,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(name="gradtui-lanes", daemon=True)
        self._sources = tuple(sources)
        self._deliver = deliver
        self._interval = 1.0 / frames_per_second
        self._ready = ready
        self._measure = 0
        self._wake = threading.Event()
        self._stopped = threading.Event()

    def want(self, *, measure: int) -> None:
        """Show another measure."""
        self._measure = measure
        self._wake.set()

    def show(self, sources: Sequence[Source]) -> None:
        """Follow other runs from now on; those that are the same stay open."""
        self._sources = tuple(sources)
        self._wake.set()

    def stop(self) -> None:
        """End the thread soon."""
        self._stopped.set()
        self._wake.set()

    def run(self) -> None:
        """Look at each run, a few times a second."""
        following: dict[Source, _LaneFollower] = {}
        shown: Comparison | None = None
        asked: tuple[object, ...] = ()
        while not self._stopped.is_set():
            started = time.monotonic()
            sources = self._sources
            for gone in set(following) - set(sources):
                following.pop(gone).close()
            for source in sources:
                if source not in following:
                    following[source] = _LaneFollower(source)
            followers = [following[source] for source in sources]
            measures = next((f.measures for f in followers if f.measures), ())
            measure = min(self._measure, max(0, len(measures) - 1))
            newest = Comparison(tuple(follower.look(measure) for follower in followers), measures, measure)
            asks = (sources, measure)
            if newest != shown and (asks != asked or self._ready()):
                shown, asked = newest, asks
                self._deliver(newest)
            self._wake.wait(max(0.02, self._interval - (time.monotonic() - started)))
            self._wake.clear()
        for follower in following.values():
            follower.close()


class _LaneFollower:
    """The state of following one run."""

    def __init__(self, source: Source) -> None:
        self.measures: tuple[Measure, ...] = ()
        self._source = source
        self._reader: RunReader | None = None
        self._lane = Lane(source.label, source.path)
        self._names: tuple[str, ...] = ()
        self._mark = self._loss_mark = 0
        self._step = -1
        self._shown_measure = -1
        self._status_read = -math.inf
        self._over = False

    def look(self, measure: int) -> Lane:
        """The lane as it is now; trouble with the file is told in it."""
        try:
            if self._reader is None and not self._open():
                return self._lane
            assert self._reader is not None
            self._lane = self._look(self._reader, measure)
        except RunFileBusyError:
            pass  # a lock, as of a commit on a network file system, passes
        except GradtuiError as error:
            self._lane = replace(self._lane, state="failed", detail=str(error))
            self.close()
        return self._lane

    def close(self) -> None:
        """Let go of the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open(self) -> bool:
        if self._over or not self._source.path.exists():
            return False
        from gradtui.runfile.reader import open_run

        self._reader = open_run(self._source.path)
        self.measures = tuple(self._reader.measures)
        self._step, self._mark, self._names = -1, 0, ()
        self._loss_mark = 0
        return True

    def _look(self, reader: RunReader, measure: int) -> Lane:
        was_over = self._over
        lane = self._look_at_status(reader, self._lane)
        if was_over and measure == self._shown_measure:
            return lane
        span = reader.span()
        if span is not None and (span[1] != self._step or measure != self._shown_measure):
            lane = self._look_at_steps(reader, lane, span[1], measure)
        series, self._mark = reader.scalars(self._mark)
        lane = _with_accuracy(lane, series)
        return lane if lane.accuracies else self._with_losses(reader, lane)

    def _with_losses(self, reader: RunReader, lane: Lane) -> Lane:
        steps, losses = reader.losses(self._loss_mark)
        if not len(steps):
            return lane
        self._loss_mark = int(steps[-1])
        every = max(1, (len(lane.steps) + len(steps)) // MOST_LOSSES)
        together = (*lane.steps, *steps.tolist()), (*lane.losses, *losses.tolist())
        return replace(lane, steps=together[0][::every], losses=together[1][::every])

    def _look_at_status(self, reader: RunReader, lane: Lane) -> Lane:
        now = time.monotonic()
        if now - self._status_read < STATUS_EVERY or self._over:
            return lane
        self._status_read = now
        status = reader.status()
        # what was written before the ending is read after it, and then no more
        self._over = not status.live
        return replace(lane, state=status.state, detail=status.detail)

    def _look_at_steps(self, reader: RunReader, lane: Lane, last: int, measure: int) -> Lane:
        from gradtui.view import known, newest_known

        if not self._names:
            self._names = tuple(layer.name for layer in reader.layers())
        rows = reader.at(last, LOOK_BACK if len(self._names) < MANY_LAYERS else LOOK_BACK_OF_MANY)
        self._step, self._shown_measure = last, measure
        if not len(rows):
            return lane
        values = known(newest_known(rows.measures)[:, measure])
        total = reader.header.total_steps
        epoch, rate = float(rows.epoch[0]), float(rows.learning_rate[0])
        return replace(
            lane,
            step=last,
            progress=last / total if total else None,
            epoch=None if math.isnan(epoch) else epoch,
            learning_rate=None if math.isnan(rate) else rate,
            loss=reader.last_loss(),
            names=self._names,
            values=tuple(values),
        )


def _with_accuracy(lane: Lane, series: dict[str, Scalars]) -> Lane:
    seen = series.get("val_accuracy")
    if seen is not None and len(seen.value):
        lane = replace(
            lane,
            epochs=(*lane.epochs, *seen.epoch.tolist()),
            accuracies=(*lane.accuracies, *seen.value.tolist()),
            accuracy=lane.accuracy if lane.tested else float(seen.value[-1]),
        )
    tested = series.get("test_accuracy")
    if tested is not None and len(tested.value):
        lane = replace(lane, accuracy=float(tested.value[-1]), tested=True)
    return lane


def aligned(lanes: Sequence[Lane]) -> tuple[Lane, ...]:
    """The lanes without layers for which the measure does not exist, so that the same layers stand side by side.

    Of nets with the same layers, those go that have it in no lane; of different nets each loses its own.
    """
    same = len({lane.names for lane in lanes if lane.names}) <= 1
    known = [[value is not None for value in lane.values] for lane in lanes]
    somewhere = [any(column) for column in zip(*(of_lane for of_lane in known if of_lane), strict=True)] if same else []
    return tuple(_only(lane, somewhere if same else of_lane) for lane, of_lane in zip(lanes, known, strict=True))


def _only(lane: Lane, kept: Sequence[bool]) -> Lane:
    if not lane.values or all(kept):
        return lane
    return replace(lane, names=tuple(compress(lane.names, kept)), values=tuple(compress(lane.values, kept)))


def on_one_grid(
    curves: Sequence[tuple[Sequence[float], Sequence[float]]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Curves, each of places and values, over one axis: hundredths of places [GRID], and values [GRID, curves].

    NaN where a curve has no value: before its first place, and after its last.
    """
    import numpy as np

    longest = max((places[-1] for places, _ in curves if places), default=1.0)
    grid = np.linspace(0.0, longest, GRID)
    values = np.full((GRID, len(curves)), np.nan)
    for column, (places, of_curve) in enumerate(curves):
        if places:
            values[:, column] = np.interp(grid, places, of_curve, left=np.nan, right=np.nan)
    return (grid * 100).astype(np.int64), values
