"""What the screen of one run shows: which step, which measure, and the snapshot of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gradtui.tui.run_follower import RunFollower, newest_loss

if TYPE_CHECKING:
    from gradtui.runfile import Pictures, RunReader, Scalars
    from gradtui.runfile.blocks import FloatArray
    from gradtui.view import Curves, Snapshot

CURVES_EVERY = 1.0  # s between redrawings of the curves
MOST_PLAYED = 1.0  # s of a replay between two pictures on a slow link
REPLAY_SECONDS = 20.0  # how long a replay takes from end to end


@dataclass(frozen=True)
class Wants:
    """What the screen asks for. `measure` is None for the run's own; `cursor` the step to show, None for the newest."""

    measure: int | None = None
    layer: int = 0
    cursor: int | None = None
    playing: bool = False


@dataclass(frozen=True)
class Waiting:
    """There is nothing to show yet, or no more: `text` says why; `log` holds the last lines the training printed."""

    text: str
    log: tuple[str, ...] = ()
    failed: bool = False


class RunView:
    """Snapshots of one run; a `follow_thread.View`.

    `starting_problem` is asked while there is no file yet: it returns None as long as the training is still starting,
    and otherwise a line that says how that went wrong. `log` gives the last lines that the training printed.
    """

    def __init__(
        self,
        follower: RunFollower,
        *,
        starting_problem: Callable[[], str | None] = lambda: None,
        log: Callable[[], tuple[str, ...]] = lambda: (),
    ) -> None:
        self.follower = follower
        self._starting_problem = starting_problem
        self._log = log
        self._wants = Wants()
        self._shown: Wants | None = None
        self._told = ""  # the last `Waiting`
        self._played = time.monotonic()  # when a replay last moved on
        self._pictures: tuple[Pictures, ...] = ()
        self._curves: Curves | None = None
        self._curves_key: tuple[int, int] = (-1, -1)
        self._curves_drawn = 0.0

    @property
    def starting(self) -> bool:
        """Whether the training is just starting."""
        return self.follower.waiting

    def poll(self) -> bool:
        """Read what is new; True if anything is."""
        return self.follower.poll() or (self.follower.newest is not None and self._curves_are_due())

    def close(self) -> None:
        """Close the file."""
        self.follower.close()

    def next(self, changed: bool, ready: bool) -> Snapshot | Waiting | None:
        """What is to be shown now, if anything is: what was asked for at once, and the rest when there is room."""
        follower = self.follower
        if follower.problem:
            return self._tell(follower.problem, failed=True)
        if follower.waiting:
            problem = self._starting_problem()
            return self._tell(problem or "The training is starting …", failed=problem is not None)
        if follower.newest is None:
            return None if self._shown is not None else self._tell(self._why_nothing())
        now = time.monotonic()
        if ready and self._wants.playing:
            self._wants = self._play(min(now - self._played, MOST_PLAYED))
        asked = self._wants != self._shown or (ready and self._wants.playing)
        if ready or not self._wants.playing:
            self._played = now
        return follower.attempt(self._snapshot) if asked or (changed and ready) else None

    def _tell(self, text: str, failed: bool = False) -> Waiting | None:
        if not text or text == self._told:
            return None
        self._told = text
        return Waiting(text, self._log(), failed)

    def _why_nothing(self) -> str:
        status = self.follower.status
        if status is None:
            return ""
        if status.live:
            return "The training has started; no step is recorded yet …"
        return f"The run is over ({status.state}), and no layer was measured in it."

    # -- what is asked for --------------------------------------------------------------------------------------------

    def want(self, **changes: object) -> None:
        """Change what is asked for: measure, layer, cursor or playing."""
        self._wants = replace(self._wants, **changes)  # type: ignore[arg-type]

    def walk(self, rows: int) -> None:
        """Move the shown step by so many recorded steps, back if negative; past the newest means follow."""
        self.follower.attempt(lambda reader: self._walk(reader, rows))

    def _walk(self, reader: RunReader, rows: int) -> None:
        cursor = self._cursor
        for _ in range(abs(rows)):
            found = reader.after(cursor) if rows > 0 else reader.at(cursor - 1)
            if not len(found):
                break
            cursor = int(found.step[0])
        self._wants = self._moved(cursor, back=rows < 0)

    def jump(self, share: float) -> None:
        """Move the shown step by a share of the recorded span, back if negative."""
        if self.follower.newest is not None:
            self._wants = self._jumped(share)

    def toggle_pause(self) -> None:
        """Pause or follow a live run; replay an ended one, or pause that."""
        wants, follower = self._wants, self.follower
        if follower.newest is None:
            return
        if wants.playing:
            self._wants = replace(wants, playing=False)
        elif follower.status is not None and follower.status.live:
            self._wants = replace(wants, cursor=follower.last if wants.cursor is None else None)
        else:
            from_start = wants.cursor is None or wants.cursor >= follower.last
            self._wants = replace(wants, cursor=follower.first if from_start else wants.cursor, playing=True)

    @property
    def _cursor(self) -> int:
        return self.follower.last if self._wants.cursor is None else self._wants.cursor

    def _jumped(self, share: float) -> Wants:
        stride = max(1, round(abs(share) * (self.follower.last - self.follower.first)))
        return self._moved(self._cursor + (stride if share > 0 else -stride), back=share < 0)

    def _play(self, seconds: float) -> Wants:
        """On by so much of the replay's time."""
        moved = self._jumped(seconds / REPLAY_SECONDS)
        return replace(moved, playing=moved.cursor is not None)

    def _moved(self, cursor: int, back: bool) -> Wants:
        first, last = self.follower.first, self.follower.last
        at_end = cursor >= last and not back
        return replace(self._wants, cursor=None if at_end else min(max(cursor, first), last))

    # -- what is shown ------------------------------------------------------------------------------------------------

    def _snapshot(self, reader: RunReader) -> Snapshot:
        from gradtui import view

        follower, wants = self.follower, self._wants
        assert follower.newest is not None and follower.row is not None and follower.status is not None
        following = wants.cursor is None
        values, row, loss = follower.newest, follower.row, follower.loss
        if wants.cursor is not None:
            back = reader.at(max(wants.cursor, follower.first), follower.look_back)
            if len(back):
                values, row, loss = view.newest_known(back.measures), back, newest_loss(back)
        step = int(row.step[0])
        layer = min(wants.layer, len(follower.layers) - 1)
        if wants.measure is None:
            wants = self._wants = replace(wants, measure=view.default_measure(follower.measures, values))
        measure = min(wants.measure or 0, len(follower.measures) - 1)
        neurons, states = reader.neurons(step), reader.through_time(step)
        grads = neurons.bias_grad.get(layer) if neurons else None
        self._pictures = reader.pictures(step, self._pictures)
        shown = view.known(values[:, measure])
        lines = self._lines(reader, values, measure)
        snapshot = view.Snapshot(
            header=reader.header,
            run_id=reader.run_id,
            status=follower.status,
            first_step=follower.first,
            last_step=follower.last,
            step=step,
            epoch=None if row.epoch[0] != row.epoch[0] else float(row.epoch[0]),
            seconds=float(row.time[0]),
            steps_per_second=follower.steps_per_second(),
            loss=loss,
            metrics=tuple((name, _value_at(s, step)) for name, s in follower.scalars.items()),
            layers=follower.layers,
            measures=follower.measures,
            measure=measure,
            values=shown,
            before=view.known(follower.second_ago()[:, measure]) if following else (None,) * len(shown),
            layer=layer,
            neurons=None if grads is None else tuple(grads.tolist()),
            neurons_step=neurons.step if neurons else None,
            through_time=() if states is None else tuple((s, tuple(n.tolist())) for s, n in states.grad_norm.items()),
            through_time_step=None if states is None else states.step,
            pictures=self._pictures,
            curves=self._draw_curves(measure),
            accuracy=next((s for name, s in follower.scalars.items() if "accuracy" in name), None),
            findings=follower.findings,
            findings_problem=follower.findings_problem,
            lines=tuple(lines),
            following=following,
            playing=wants.playing,
        )
        self._shown, self._told = wants, ""
        return snapshot

    def _lines(self, reader: RunReader, values: FloatArray, measure: int) -> list[str]:
        """What there is to say: the findings, what the values [layers, measures] say, what does not train, by what."""
        from gradtui import view
        from gradtui.report_optimizers import do_not_train, in_one_line

        follower, optimizers = self.follower, reader.optimizers()
        assert follower.newest is not None and follower.status is not None
        said = view.describe(follower.layers, values, follower.measures, measure)
        frozen = [follower.layers[i].name for i in view.untrained(follower.newest, follower.measures, optimizers)]
        said += [text for text in (do_not_train(frozen), in_one_line(optimizers)) if text]
        lines = view.describe_run(follower.findings, said, follower.status, reader.events())
        return [follower.findings_problem, *lines] if follower.findings_problem else lines

    def _curves_are_due(self) -> bool:
        stale = self._curves_key[1] != self.follower.last
        return stale and time.monotonic() - self._curves_drawn >= CURVES_EVERY

    def _draw_curves(self, measure: int) -> Curves:
        from gradtui.view import curves

        assert self.follower.history is not None
        if self._curves is None or measure != self._curves_key[0] or self._curves_are_due():
            self._curves = curves(self.follower.history.aggregates(), measure)
            self._curves_key = measure, self.follower.last
            self._curves_drawn = time.monotonic()
        return self._curves


def _value_at(series: Scalars, step: int) -> float:
    before = int(series.step.searchsorted(step, side="right"))
    return float(series.value[max(0, before - 1)])
