"""Follows one run file on a thread of its own and hands frozen snapshots over, never more than one at a time.

numpy and sqlite3 are imported on that thread, after the first frame is on the screen.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gradtui.errors import GradtuiError, RunFileBusyError

if TYPE_CHECKING:
    from gradtui.diagnosis import Finding
    from gradtui.runfile import Pictures, Rows, RunReader, Scalars, Status
    from gradtui.runfile.blocks import FloatArray
    from gradtui.runfile.history import History
    from gradtui.view import Curves, LayerFacts, Snapshot

FRAMES_PER_SECOND = 4.0
CURVES_EVERY = 1.0  # s between redrawings of the curves
DIAGNOSIS_REST = 30  # times what a diagnosis took before the next one: 3 % of a core at most
STATUS_EVERY = 1.0  # s between looks at the heartbeat
ROWS_PER_READ = 2048  # bounds the work of one frame
BEHIND = 20_000  # recorded steps; a viewer further behind starts again from an overview
LOOK_BACK = 512  # rows in which a sampled measure (the update ratio) is sought before the shown step
MOST_PLAYED = 1.0  # s of a replay between two pictures on a slow link
REPLAY_SECONDS = 20.0  # how long a replay takes from end to end


@dataclass(frozen=True)
class Wants:
    """What the screen asks for. `cursor` is the step to show, None to follow the newest."""

    measure: int = 0
    layer: int = 0
    cursor: int | None = None
    playing: bool = False


@dataclass(frozen=True)
class Waiting:
    """There is nothing to show yet, or no more: `text` says why; `log` holds the last lines the training printed."""

    text: str
    log: tuple[str, ...] = ()
    failed: bool = False


class Feed(threading.Thread):
    """Reads a run until it is stopped, and calls `deliver` with a `Snapshot` or a `Waiting` when something changed.

    `find` says which run, and `deliver` takes what there is to show; both are called on this thread. `path` is None
    until the run is found. `starting` is asked while there is no file yet: it returns None as long as the
    training is still starting, and otherwise a line that says how that went wrong. `ready` says whether the last
    picture is on the terminal: until it is, only what is asked for is handed over.
    """

    def __init__(
        self,
        find: Callable[[], Path],
        deliver: Callable[[Snapshot | Waiting], None],
        *,
        frames_per_second: float = FRAMES_PER_SECOND,
        ready: Callable[[], bool] = lambda: True,
        starting: Callable[[], str | None] | None = None,
        log: Callable[[], tuple[str, ...]] = lambda: (),
    ) -> None:
        super().__init__(name="gradtui-feed", daemon=True)
        self.path: Path | None = None
        self._find = find
        self._deliver = deliver
        self._interval = 1.0 / frames_per_second
        self._ready = ready
        self._starting = starting
        self._log = log
        self._wants = Wants()
        self._played = 0.0  # when a replay last moved on
        self._moves: deque[Callable[[_Follower, Wants], Wants]] = deque()
        self._wake = threading.Event()
        self._stopped = threading.Event()

    # -- called by the screen ---------------------------------------------------------------------------------

    def want(self, **changes: object) -> None:
        """Change what is asked for: measure, layer, cursor or playing."""
        self._moves.append(lambda _, wants: replace(wants, **changes))  # type: ignore[arg-type]
        self._wake.set()

    def walk(self, rows: int) -> None:
        """Move the shown step by so many recorded steps, back if negative; past the newest means follow."""
        self._moves.append(lambda follower, wants: follower.walk(wants, rows))
        self._wake.set()

    def jump(self, share: float) -> None:
        """Move the shown step by a share of the recorded span, back if negative."""
        self._moves.append(lambda follower, wants: follower.jump(wants, share))
        self._wake.set()

    def toggle_pause(self) -> None:
        """Pause or follow a live run; replay an ended one, or pause that."""
        self._moves.append(lambda follower, wants: follower.toggle_pause(wants))
        self._wake.set()

    def stop(self) -> None:
        """End the thread soon."""
        self._stopped.set()
        self._wake.set()

    # -- the thread -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Wait for the file, then follow it; a problem is delivered, and looked at again every second."""
        problem = ""
        while not self._stopped.is_set():
            try:
                reader = self._open()
                if reader is None:
                    return
                with reader:
                    self._follow(_Follower(reader))
                    return
            except GradtuiError as error:
                if str(error) != problem:
                    problem = str(error)
                    self._deliver(Waiting(problem, self._log(), failed=True))
                self._stopped.wait(1.0)
            except Exception as error:  # a run that nobody foresaw must not end in a traceback over the screen
                self._deliver(Waiting(f"this run cannot be shown ({type(error).__name__}: {error})", failed=True))
                return

    def _open(self) -> RunReader | None:
        from gradtui.runfile.reader import open_run

        path = self.path = self._find()
        told = False
        while self._starting is not None and not path.exists():
            trouble = self._starting()
            if trouble is not None:
                self._deliver(Waiting(trouble, self._log(), failed=True))
                self._stopped.wait()
                return None
            if not told:
                told = True
                self._deliver(Waiting("The training is starting …"))
            if self._stopped.wait(0.05):
                return None
        return open_run(path)

    def _follow(self, follower: _Follower) -> None:
        told = changed = False
        self._played = time.monotonic()
        while not self._stopped.is_set():
            started = time.monotonic()
            # a lock, as of a commit on a network file system, passes
            with contextlib.suppress(RunFileBusyError):
                changed = follower.pull() or changed
                snapshot = self._next(follower, changed)
                if snapshot is not None:
                    changed = False
                    self._deliver(snapshot)
                elif not told and not follower.ready:
                    told = True
                    self._deliver(Waiting(follower.why_nothing, self._log()))
            spent = time.monotonic() - started
            self._wake.wait(max(0.01, self._interval - spent))
            self._wake.clear()

    def _next(self, follower: _Follower, changed: bool) -> Snapshot | None:
        """What is to be shown now, if anything is: what was asked for at once, and the rest when there is room."""
        while self._moves:
            self._wants = self._moves.popleft()(follower, self._wants)
        asked, ready, now = self._wants != follower.shown, self._ready(), time.monotonic()
        if ready and self._wants.playing:
            self._wants = follower.play(self._wants, min(now - self._played, MOST_PLAYED))
            asked = True
        if ready or not self._wants.playing:
            self._played = now
        return follower.snapshot(self._wants) if asked or (changed and ready) else None


class _Follower:
    """The state of following one run: history, the newest row, and what was shown last."""

    def __init__(self, reader: RunReader) -> None:
        import gradtui.view

        self._view = gradtui.view
        self._reader = reader
        self.shown: Wants | None = None
        self._status: Status = reader.status()
        self._status_read = time.monotonic()
        self._layers: tuple[LayerFacts, ...] = ()
        self._history: History | None = None
        self._newest: FloatArray | None = None
        self._row: Rows | None = None
        self._loss: float | None = None  # the newest that is known: where several models train, not every row has one
        self._first, self._last = 0, -1
        self._past: deque[tuple[float, FloatArray]] = deque()
        self._pace: deque[tuple[float, int]] = deque()
        self._scalars: dict[str, Scalars] = {}
        self._scalar_mark = 0
        self._pictures: tuple[Pictures, ...] = ()
        self._curves: Curves | None = None
        self._curves_key: tuple[int, int] = (-1, -1)
        self._curves_drawn = 0.0
        self._has_more_layers = False
        self._findings: tuple[Finding, ...] = ()
        self._findings_key = -1
        self._next_diagnosis = 0.0

    @property
    def ready(self) -> bool:
        """True once there is a step to show."""
        return self._newest is not None

    @property
    def why_nothing(self) -> str:
        """What is said until then."""
        if self._status.live:
            return "The training has started; no step is recorded yet …"
        return f"The run is over ({self._status.state}), and no layer was measured in it."

    def pull(self) -> bool:
        """Read what is new; True if anything is."""
        status_changed = self._look_at_status()
        if not self._layers or self._has_more_layers:
            self._take_layers()
            if not self._layers:
                return status_changed
        span = self._reader.span()
        if span is None:
            return status_changed
        behind = span[1] - self._last > BEHIND or not self._reader.is_whole(self._last)
        if self._history is None or behind:
            self._load(span)
        changed = False
        while len(rows := self._reader.newer(self._last, ROWS_PER_READ)):
            self._take(rows)
            changed = True
            if len(rows) < ROWS_PER_READ:
                break
        return changed or status_changed or self._curves_are_due()

    def snapshot(self, wants: Wants) -> Snapshot | None:
        """The picture that is wanted; None if there is no step yet."""
        if self._newest is None or self._row is None:
            return None
        reader, view = self._reader, self._view
        following = wants.cursor is None
        values, row, loss = self._newest, self._row, self._loss
        if wants.cursor is not None:
            back = reader.at(max(wants.cursor, self._first), LOOK_BACK)
            if len(back):
                values, row, loss = view.newest_known(back.measures), back, _first_loss(back)
        step = int(row.step[0])
        layer = min(wants.layer, len(self._layers) - 1)
        measure = min(wants.measure, len(reader.measures) - 1)
        neurons = reader.neurons(step)
        grads = neurons.bias_grad.get(layer) if neurons else None
        states = reader.through_time(step)
        self._pictures = reader.pictures(step, self._pictures)
        series, self._scalar_mark = reader.scalars(self._scalar_mark)
        for name, added in series.items():
            self._scalars[name] = _extend(self._scalars.get(name), added)
        shown = view.known(values[:, measure])
        snapshot: Snapshot = view.Snapshot(
            name=reader.header.name,
            run_id=reader.run_id,
            status=self._status,
            first_step=self._first,
            last_step=self._last,
            step=step,
            epoch=_number(row.epoch[0]),
            total_epochs=reader.header.total_epochs,
            total_steps=reader.header.total_steps,
            seconds=float(row.time[0]),
            steps_per_second=self._steps_per_second() if self._status.live else None,
            loss=loss,
            metrics=tuple((name, _value_at(s, step)) for name, s in self._scalars.items()),
            sampling=reader.header.sampling,
            takes_stop="stop" in reader.header.takes_commands,
            pid=reader.header.pid,
            layers=self._layers,
            measures=tuple(reader.measures),
            measure=measure,
            values=shown,
            before=view.known(self._second_ago()[:, measure]) if following else (None,) * len(shown),
            layer=layer,
            neurons=None if grads is None else tuple(grads.tolist()),
            neurons_step=neurons.step if neurons else None,
            through_time=() if states is None else tuple((s, tuple(n.tolist())) for s, n in states.grad_norm.items()),
            through_time_step=None if states is None else states.step,
            pictures=self._pictures,
            recipe=reader.header.recipe,
            curves=self._draw_curves(measure),
            accuracy=next((s for name, s in self._scalars.items() if "accuracy" in name), None),
            findings=self._diagnose(),
            words=tuple(view.in_words(self._layers, shown, reader.measures[measure])),
            events=tuple(reader.events()),
            following=following,
            playing=wants.playing,
        )
        self.shown = wants
        return snapshot

    # -- moving through time ----------------------------------------------------------------------------------

    def walk(self, wants: Wants, rows: int) -> Wants:
        """By recorded steps."""
        cursor = self._last if wants.cursor is None else wants.cursor
        for _ in range(abs(rows)):
            found = self._reader.after(cursor) if rows > 0 else self._reader.at(cursor - 1)
            if not len(found):
                break
            cursor = int(found.step[0])
        return self._to(wants, cursor, back=rows < 0)

    def jump(self, wants: Wants, share: float) -> Wants:
        """By a share of the recorded span."""
        cursor = self._last if wants.cursor is None else wants.cursor
        stride = max(1, round(abs(share) * (self._last - self._first)))
        return self._to(wants, cursor + (stride if share > 0 else -stride), back=share < 0)

    def play(self, wants: Wants, seconds: float) -> Wants:
        """On by so much of the replay's time."""
        moved = self.jump(wants, seconds / REPLAY_SECONDS)
        return replace(moved, playing=moved.cursor is not None)

    def toggle_pause(self, wants: Wants) -> Wants:
        """Pause, go on, or start the replay of an ended run."""
        if wants.playing:
            return replace(wants, playing=False)
        if self._status.live:
            return replace(wants, cursor=self._last if wants.cursor is None else None)
        start = self._first if wants.cursor is None or wants.cursor >= self._last else wants.cursor
        return replace(wants, cursor=start, playing=True)

    def _to(self, wants: Wants, cursor: int, back: bool) -> Wants:
        at_end = cursor >= self._last and not back
        return replace(
            wants, cursor=None if at_end else min(max(cursor, self._first), self._last), playing=wants.playing
        )

    def _take_layers(self) -> None:
        """The layers, anew: a model that came late adds some, and may name the others again."""
        self._has_more_layers = False
        self._layers = tuple(self._view.facts(layer) for layer in self._reader.layers())
        self._history, self._newest = None, None
        self._past.clear()
        self._last = -1

    def _diagnose(self) -> tuple[Finding, ...]:
        """The findings of the run so far, looked for now and then."""
        now = time.monotonic()
        if self._history is None or self._findings_key == self._last or now < self._next_diagnosis:
            return self._findings
        from gradtui.diagnosis import Evidence, diagnose

        reader = self._reader
        names = [measure.name for measure in reader.measures]
        evidence = Evidence(reader.layers(), names, self._history.envelope(), reader.origins())
        self._findings, self._findings_key = tuple(diagnose(evidence)), self._last
        spent = time.monotonic() - now
        self._next_diagnosis = now + max(CURVES_EVERY, DIAGNOSIS_REST * spent)
        return self._findings

    # -- reading ----------------------------------------------------------------------------------------------

    def _look_at_status(self) -> bool:
        now = time.monotonic()
        if now - self._status_read < STATUS_EVERY:
            return False
        self._status_read = now
        before, self._status = self._status, self._reader.status()
        self._has_more_layers = self._reader.layer_count() != len(self._layers)
        return (before.state, before.detail) != (self._status.state, self._status.detail)

    def _load(self, span: tuple[int, int]) -> None:
        """Start from an overview: bounded work however long the run is."""
        from gradtui.runfile.history import History

        stretches = self._reader.stretches()
        self._history = History(len(self._layers), len(self._reader.measures))
        self._history.add(stretches)
        self._first = span[0]
        self._last = int(stretches.last_step[-1]) if len(stretches) else span[0] - 1
        newest = self._reader.at(span[1], LOOK_BACK)
        if len(newest):
            self._newest = self._view.newest_known(newest.measures)
            self._row, self._loss = newest, _first_loss(newest)
            self._remember()

    def _take(self, rows: Rows) -> None:
        from gradtui.runfile import is_measured

        assert self._history is not None
        self._history.add_rows(rows)
        self._last = int(rows.step[-1])
        with_loss = rows.loss_known.nonzero()[0]
        if len(with_loss):
            self._loss = float(rows.loss[with_loss[-1]])
        measured = is_measured(rows.measures).any(axis=(1, 2)).nonzero()[0]
        if len(measured):
            newest = int(measured[-1])
            last_rows = rows.measures[-LOOK_BACK:]
            self._newest = (
                self._view.newest_known(last_rows[::-1])
                if self._newest is None
                else self._view.update_known(self._newest, last_rows)
            )
            self._row = type(rows)(*(getattr(rows, name)[newest:] for name in rows.__dataclass_fields__))
            self._remember()

    def _remember(self) -> None:
        assert self._newest is not None and self._row is not None
        now = time.monotonic()
        self._past.append((now, self._newest))
        while len(self._past) > 1 and self._past[1][0] < now - 1.0:
            self._past.popleft()
        # by the training's own clock: what is read at once may have been written over a long time
        self._pace.append((float(self._row.time[0]), int(self._row.step[0])))
        while len(self._pace) > 2 and self._pace[0][0] < self._pace[-1][0] - 3.0:
            self._pace.popleft()

    def _second_ago(self) -> FloatArray:
        return self._past[0][1]

    def _steps_per_second(self) -> float | None:
        (start, first), (end, last) = self._pace[0], self._pace[-1]
        return (last - first) / (end - start) if end - start > 0.2 else None

    def _curves_are_due(self) -> bool:
        stale = self._curves_key[1] != self._last
        return stale and time.monotonic() - self._curves_drawn >= CURVES_EVERY

    def _draw_curves(self, measure: int) -> Curves:
        assert self._history is not None
        key = (measure, self._last)
        if self._curves is None or key[0] != self._curves_key[0] or self._curves_are_due():
            self._curves = self._view.curves(self._history.envelope(), measure)
            self._curves_key = key
            self._curves_drawn = time.monotonic()
        return self._curves


def _extend(known: Scalars | None, added: Scalars) -> Scalars:
    import numpy as np

    if known is None:
        return added
    return type(added)(*(np.concatenate([getattr(known, f), getattr(added, f)]) for f in added.__dataclass_fields__))


def _value_at(series: Scalars, step: int) -> float:
    before = int(series.step.searchsorted(step, side="right"))
    return float(series.value[max(0, before - 1)])


def _first_loss(rows: Rows) -> float | None:
    known = rows.loss_known.nonzero()[0]
    return float(rows.loss[known[0]]) if len(known) else None


def _number(value: float) -> float | None:
    return None if value != value else float(value)
