"""Curves over time as braille, one colour a layer, with the ends of the axis written into the corners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.style import Style

from gradtui.tui.cells import Cell, CellWidget, cells
from gradtui.tui.palette import layer_style, theme_style
from gradtui.tui.scales import short

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gradtui.tui.braille import Plot

MOST_CURVES = 32  # more than that cannot be told apart in a panel


class Curve(CellWidget):
    """Draws [buckets, curves] over steps, in the layers' colours or in one colour of the theme."""

    def __init__(self, *, log: bool, colour: str | None = None, id: str | None = None) -> None:
        super().__init__(id=id)
        self._log = log
        self._colour = colour
        self._plot: Plot | None = None
        self._data: tuple[npt.NDArray[np.int64], npt.NDArray[np.floating], npt.NDArray[np.bool_] | None] | None = None
        self._broken: set[int] = set()
        self._shown_curves: list[int] = []
        self._of = 1
        self._gutter = 0
        self._cursor: float | None = None
        self._empty = "not measured yet"

    def show(
        self,
        steps: npt.NDArray[np.int64],
        values: npt.NDArray[np.floating],
        *,
        broken: npt.NDArray[np.bool_] | None = None,
        cursor: float | None = None,
        empty: str = "not measured yet",
    ) -> None:
        """Show `values`, [buckets] or [buckets, curves]; `broken` [buckets] marks where one was NaN or ∞.

        `cursor` (0 to 1) marks the step that is shown elsewhere; `empty` is said while there is nothing to draw.
        """
        same = self._data is not None and self._data[0] is steps and self._data[1] is values
        self._empty = empty
        if same and cursor == self._cursor:
            return
        self._cursor = cursor
        if not same:
            self._data = (steps, values, broken)
            self._redraw()
        self.repaint()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._redraw()
        self.refresh()

    def _redraw(self) -> None:
        if self._data is None:
            return
        from gradtui.tui.braille import draw

        steps, values, broken = self._data
        if values.ndim == 1:
            values = values[:, None]
        width, height = self.content_size
        if width < 2 or height < 1:
            return
        self._of = values.shape[1]
        stride = max(1, -(-self._of // MOST_CURVES))
        self._shown_curves = sorted({*range(0, self._of, stride), self._of - 1})
        pick = self._shown_curves
        self._gutter = len(str(self._of)) + 1 if self._of > 1 else 0
        self._plot = draw(steps, values[:, pick], width - self._gutter, height, log=self._log)
        span = max(1, steps[-1] - steps[0]) if len(steps) else 1
        marked = steps[broken] if broken is not None else steps[:0]
        self._broken = set(((marked - steps[:1]) / span * (width - self._gutter - 1)).round().astype(int).tolist())

    def line(self, y: int, width: int) -> list[Cell]:
        """One line of the plot, with axis labels over it."""
        dim = theme_style(self.app, "dim")
        plot = self._plot
        wide_enough = plot is not None and y < len(plot.rows) and len(plot.rows[y]) == width - self._gutter
        if plot is None or not wide_enough or plot.high != plot.high:
            message = self._empty if y == self.content_size.height // 2 else ""
            return cells(message[:width].center(width), dim)
        styles = [
            theme_style(self.app, self._colour) if self._colour else layer_style(self.app, shown, self._of)
            for shown in self._shown_curves
        ]
        drawn: list[Cell] = [
            (character, styles[owner] if owner >= 0 else dim)
            for character, owner in zip(plot.rows[y], plot.owner[y], strict=True)
        ]
        if self._cursor is not None:
            column = round(self._cursor * (width - self._gutter - 1))
            drawn[column] = ("│", theme_style(self.app, "accent"))
        if y == 0:
            for column in self._broken:
                drawn[column] = ("!", theme_style(self.app, "error", bold=True))
        drawn += self._number(y, styles, dim)
        height = self.content_size.height
        label = short(plot.high) if y == 0 else short(plot.low) if y == height - 1 and height > 1 else ""
        rounded = f"{float(f'{plot.high if y == 0 else plot.low:.2g}'):g}" if label else ""
        for position, cell in enumerate(cells(rounded, dim)[:width]):
            drawn[position] = cell
        return drawn

    def _number(self, y: int, styles: list[Style], dim: Style) -> list[Cell]:
        """The number of the layer whose curve ends in this line: colour alone says nothing."""
        assert self._plot is not None
        for style, shown, end in zip(styles, self._shown_curves, self._plot.ends, strict=False):
            if end == y and self._gutter:
                return cells(f"{shown + 1:>{self._gutter}}", style)
        return cells(" " * self._gutter, dim)
