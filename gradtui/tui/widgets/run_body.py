"""What stands under the header of a run: bars, neurons, curves, words. Made when there is a first step to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from gradtui.format import called
from gradtui.tui.text import clean, title_of
from gradtui.tui.widgets.bars import BarRows, Bars
from gradtui.tui.widgets.curve import Curve
from gradtui.tui.widgets.neuron_strip import NeuronStrip
from gradtui.tui.widgets.words import Words

if TYPE_CHECKING:
    from gradtui.view import Snapshot


class RunBody(Horizontal):
    """Draws snapshots; of a new one only the cells that look different."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._named: tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]] = ((), (), ())
        self._named_for: object = None

    def compose(self) -> ComposeResult:
        """The widgets, as they stand on the screen."""
        with Vertical(id="run-left"):
            yield Bars(id="bars")
            yield NeuronStrip(id="strip")
        with Vertical(id="run-right"):
            with Horizontal(id="run-progress"):
                yield Curve(log=False, colour="warning", id="loss")
                yield Curve(log=False, colour="success", id="accuracy")
            yield Curve(log=True, id="speeds")
            yield Words(id="words")

    def on_mount(self) -> None:
        """Title the panels."""
        self.query_one("#loss", Curve).set_title("Loss")
        self.query_one("#accuracy", Curve).set_title("Accuracy")
        self.query_one(Words).set_title("In words")

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        title = title_of(snapshot.measures[snapshot.measure])
        numbers, names, notes = self._names(snapshot)
        bars = self.query_one(Bars)
        bars.set_title(title)
        bars.show(BarRows(numbers, names, notes, snapshot.values, snapshot.before))
        strip = self.query_one(NeuronStrip)
        strip.set_title(f"Neurons of {called(clean(snapshot.layers[snapshot.layer].name))}")
        strip.show(snapshot.neurons, snapshot.layer, len(names))
        self._show_curves(snapshot, f"{title} over time")
        words = self.query_one(Words)
        has_findings = bool(snapshot.holding or snapshot.findings_problem)
        self.query_one("#run-right").set_class(has_findings, "-findings")
        words.set_title("Findings" if has_findings else "In words")
        words.show([clean(line) for line in snapshot.lines])

    def _names(self, snapshot: Snapshot) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
        if self._named_for is not snapshot.layers:
            from gradtui.view import numbered

            self._named_for = snapshot.layers
            numbers, names = numbered(snapshot.layers)
            self._named = (
                numbers,
                tuple(map(clean, names)),
                tuple(clean(layer.shape) for layer in snapshot.layers),
            )
        return self._named

    def _show_curves(self, snapshot: Snapshot, title: str) -> None:
        curves = snapshot.curves
        span = snapshot.last_step - snapshot.first_step
        cursor = None if snapshot.following or span <= 0 else (snapshot.step - snapshot.first_step) / span
        speeds = self.query_one("#speeds", Curve)
        speeds.set_title(title)
        speeds.show(curves.last_step, curves.mean, broken=curves.broken, cursor=cursor)
        loss = self.query_one("#loss", Curve)
        empty = "no finite loss" if curves.loss_broken.any() else "no loss logged"
        loss.show(curves.last_step, curves.loss, broken=curves.loss_broken, cursor=cursor, empty=empty)
        accuracy = self.query_one("#accuracy", Curve)
        accuracy.set_class(snapshot.accuracy is None, "-absent")
        if snapshot.accuracy is not None:
            accuracy.show(snapshot.accuracy.step, snapshot.accuracy.value)
