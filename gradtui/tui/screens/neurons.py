"""All neurons of one layer, sortable, with the exact number of the one under the cursor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType

from gradtui.format import called
from gradtui.tui import bindings
from gradtui.tui.messages import RowSelected
from gradtui.tui.screens.detail import DetailScreen, RunControls
from gradtui.tui.text import clean
from gradtui.tui.widgets.bars import BarRows, Bars

if TYPE_CHECKING:
    from gradtui.view import Snapshot

ORDERS = ("in order", "largest first", "smallest first")


class NeuronsScreen(DetailScreen):
    """The gradient of the mean cost by each bias of one layer, ∂C/∂b."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings.ALWAYS,
        Binding("s", "sort", "sort", tooltip="in order, largest first, smallest first"),
        *bindings.TIME,
        *bindings.bracket_keys("layer", "layer", "the layer before", "the next layer"),
        bindings.LOG_AXIS,
        bindings.back("n"),
    ]

    def __init__(self, run: RunControls) -> None:
        super().__init__(run)
        self._order = 0
        self._ranks: list[int] = []

    def draw(self, snapshot: Snapshot) -> None:
        """Draw one bar a neuron."""
        values = snapshot.neurons or ()
        self._ranks = list(range(len(values)))
        if self._order:
            sign = -1 if self._order == 1 else 1
            self._ranks.sort(key=lambda i: sign * (math.inf if math.isnan(values[i]) else abs(values[i])))
        name = called(clean(snapshot.layers[snapshot.layer].name))
        title = f"Neurons of {name}  ∂C/∂b  {ORDERS[self._order]}"
        self.bars.set_title(title)
        self.bars.show(
            BarRows(
                tuple(i + 1 for i in self._ranks),
                ("",) * len(values),
                ("",) * len(values),
                tuple(values[i] for i in self._ranks),
                colours=(snapshot.layer, len(snapshot.layers)),
            )
        )
        self._say_exactly()

    def _say_exactly(self) -> None:
        snapshot, bars = self._snapshot, self.query_one(Bars)
        if snapshot is None or not self._ranks or snapshot.neurons is None:
            text = "No gradient by a bias is recorded for this layer at this step."
        else:
            neuron = self._ranks[bars.cursor]
            text = (
                f"neuron {neuron + 1} of {len(self._ranks):,}   ∂C/∂b = {snapshot.neurons[neuron]:.8e}"
                f"   at step {snapshot.neurons_step:,}"
            )
        self.say(text)

    @on(RowSelected)
    def say_selected(self) -> None:
        """Say the number under the cursor."""
        self._say_exactly()

    def action_sort(self) -> None:
        """Go on to the next order."""
        self._order = (self._order + 1) % len(ORDERS)
        if self._snapshot is not None:
            self.show(self._snapshot)

    def action_layer(self, by: int) -> None:
        """Go to another layer."""
        if self._snapshot is not None:
            layer = min(max(0, self._snapshot.layer + by), len(self._snapshot.layers) - 1)
            self._run.select_layer(layer)
