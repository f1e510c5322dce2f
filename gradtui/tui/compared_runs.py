"""What the screen of several runs shows: one column a run, and the curves of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from gradtui.tui.run_follower import RunFollower

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gradtui.runfile import Measure, RunReader

GRID = 200  # points of a curve: more than a panel has columns
MOST_LOSSES = 4000  # that are kept of a run


@dataclass(frozen=True)
class Source:
    """A run that is to be shown: what it is called, and its file, which need not be there yet."""

    label: str
    path: Path


@dataclass(frozen=True)
class ComparedRun:
    """One run. `values` are of its layers, the input's first; None where the measure does not exist.

    Attributes:
        state: waiting, live, finished, stopped, failed, died; `detail` says more.
        progress: share of the steps that are done, 0 to 1; None if unknown.
        accuracy: of the test images once they are measured (`tested`), of the validation before.
        epochs, accuracies: the validation over time.
        steps, losses: of a run without any, thinned evenly where it is long.
    """

    label: str
    path: Path
    state: str = "waiting"
    detail: str = ""
    progress: float | None = None
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
    def speed_ratio(self) -> float | None:
        """Fastest over slowest layer; ∞ if one stands still, None unless two layers have finite values."""
        known = [value for value in self.values if value is not None]
        if len(known) < 2 or not all(math.isfinite(value) for value in known):
            return None
        return max(known) / min(known) if min(known) > 0 else math.inf


@dataclass(frozen=True)
class Comparison:
    """All runs at one moment, and the measure that they show."""

    runs: tuple[ComparedRun, ...]
    measures: tuple[Measure, ...] = ()
    measure: int = 0


class ComparisonView:
    """Comparisons of runs whose files may not be there yet; a `follow_thread.View`."""

    starting = False

    def __init__(self, sources: Sequence[Source]) -> None:
        self._columns: dict[Source, _Column] = {}
        self._sources: tuple[Source, ...] = ()
        self._measure = 0
        self._shown: Comparison | None = None
        self._asked = True
        self.show(sources)

    def show(self, sources: Sequence[Source]) -> None:
        """Show other runs from now on; those that are the same stay open."""
        for gone in set(self._columns) - set(sources):
            self._columns.pop(gone).follower.close()
        self._columns |= {source: _Column(source) for source in sources if source not in self._columns}
        self._sources, self._asked = tuple(sources), True

    def choose(self, measure: int) -> None:
        """Show another measure."""
        self._measure, self._asked = measure, True

    def poll(self) -> bool:
        """Read what is new of each run; True if anything is."""
        changed = [self._columns[source].poll() for source in self._sources]
        return any(changed)

    def next(self, changed: bool, ready: bool) -> Comparison | None:
        """What is to be shown now, if anything is."""
        if not self._asked and not (changed and ready):
            return None
        columns = [self._columns[source] for source in self._sources]
        measures = next((column.follower.measures for column in columns if column.follower.measures), ())
        measure = min(self._measure, max(0, len(measures) - 1))
        name = measures[measure].name if measures else ""
        newest = Comparison(tuple(column.compared(name) for column in columns), measures, measure)
        self._asked = False
        if newest == self._shown:
            return None
        self._shown = newest
        return newest

    def close(self) -> None:
        """Close the files."""
        for column in self._columns.values():
            column.follower.close()


class _Column:
    """One run: its follower, and the curve of its loss."""

    def __init__(self, source: Source) -> None:
        self.follower = RunFollower(lambda: source.path, waits=True, keeps_history=False)
        self._run = ComparedRun(source.label, source.path)
        self._made_for: str | None = None
        self._loss_mark = 0

    def poll(self) -> bool:
        """Read what is new; True if anything is."""
        follower = self.follower
        before = follower.problem
        changed = follower.poll() or follower.problem != before
        if changed:
            self._made_for = None
            if follower.status is not None and "val_accuracy" not in follower.scalars:
                follower.attempt(self._read_losses)
        return changed

    def compared(self, measure: str) -> ComparedRun:
        """The run as it is now, with the values of a measure."""
        if self._made_for != measure:
            made = self.follower.attempt(lambda _: self._made(measure))
            if made is not None:
                self._run, self._made_for = made, measure
            if self.follower.problem:
                self._run = replace(self._run, state="failed", detail=self.follower.problem)
        return self._run

    def _made(self, measure: str) -> ComparedRun:
        from gradtui.view import known, telling

        follower, run = self.follower, self._run
        assert follower.status is not None
        total = follower.header.total_steps
        if follower.last >= 0:
            run = replace(run, progress=follower.last / total if total else None, loss=follower.loss)
        # runs of different versions may have different measures
        column = next((i for i, one in enumerate(follower.measures) if one.name == measure), None)
        if follower.newest is not None:
            names = tuple(layer.name for layer in follower.layers)
            newest, measures = follower.newest, follower.measures
            values = (None,) * len(names) if column is None else known(telling(newest, measures, column))
            run = replace(run, names=names, values=values)
        return replace(self._with_accuracy(run), state=follower.status.state, detail=follower.status.detail)

    def _with_accuracy(self, run: ComparedRun) -> ComparedRun:
        seen, tested = (self.follower.scalars.get(name) for name in ("val_accuracy", "test_accuracy"))
        if seen is not None:
            run = replace(run, epochs=tuple(seen.epoch.tolist()), accuracies=tuple(seen.value.tolist()))
        newest = tested or seen
        if newest is None:
            return run
        return replace(run, accuracy=float(newest.value[-1]), tested=tested is not None)

    def _read_losses(self, reader: RunReader) -> None:
        steps, losses = reader.losses(self._loss_mark)
        if not len(steps):
            return
        self._loss_mark = int(steps[-1])
        run = self._run
        every = max(1, (len(run.steps) + len(steps)) // MOST_LOSSES)
        together = (*run.steps, *steps.tolist()), (*run.losses, *losses.tolist())
        self._run = replace(run, steps=together[0][::every], losses=together[1][::every])


def aligned(runs: Sequence[ComparedRun]) -> tuple[ComparedRun, ...]:
    """The runs without layers for which the measure does not exist, so that the same layers stand side by side.

    Of nets with the same layers, those go that have it in no run; of different nets each loses its own.
    """
    same = len({run.names for run in runs if run.names}) <= 1
    known = [[value is not None for value in run.values] for run in runs]
    somewhere = [any(row) for row in zip(*(of_run for of_run in known if of_run), strict=True)] if same else []
    return tuple(_only(run, somewhere if same else of_run) for run, of_run in zip(runs, known, strict=True))


def _only(run: ComparedRun, kept: Sequence[bool]) -> ComparedRun:
    if not run.values or all(kept):
        return run
    return replace(run, names=tuple(compress(run.names, kept)), values=tuple(compress(run.values, kept)))


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
