"""The neurons of one layer as a strip of small vertical bars."""

from __future__ import annotations

import math

from gradtui.tui.cells import Cell, CellWidget, cells, fit_cells
from gradtui.tui.palette import layer_style, theme_style
from gradtui.tui.scales import column


class NeuronStrip(CellWidget):
    """|∂C/∂b| of each neuron as a share of the largest; where neurons outnumber columns, the largest of each group."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._values: tuple[float, ...] | None = None
        self._layer, self._layers = 0, 1

    def show(self, values: tuple[float, ...] | None, layer: int, layers: int) -> None:
        """Show signed gradients; None if this layer's neurons are not measured."""
        self._values, self._layer, self._layers = values, layer, layers
        self.repaint()

    def line(self, y: int, width: int) -> list[Cell]:
        """One line of the strip."""
        dim = theme_style(self.app, "dim")
        height = self.content_size.height
        if not self._values:
            message = "this layer has no biases, or none measured yet" if y == height // 2 else ""
            return fit_cells(cells(message, dim), width, dim)
        sizes = [abs(value) for value in self._values]
        group = max(1, math.ceil(len(sizes) / max(1, width)))
        tallest = [max(sizes[i : i + group], key=_nan_first) for i in range(0, len(sizes), group)]
        largest = max((size for size in sizes if math.isfinite(size)), default=0.0)
        repeat = max(1, min(3, width // len(tallest)))
        colour = layer_style(self.app, self._layer, self._layers)
        alarm = theme_style(self.app, "error", bold=True)
        drawn: list[Cell] = []
        for size in tallest:
            if not math.isfinite(size):
                drawn += cells("!" * repeat, alarm)
                continue
            level = column(size / largest if largest > 0 else 0.0, height)[y]
            shown = level * (repeat - 1) + " " if repeat > 1 else level
            drawn += cells(shown, colour)
        return fit_cells(drawn, width, dim)


def _nan_first(size: float) -> float:
    return math.inf if math.isnan(size) else size
