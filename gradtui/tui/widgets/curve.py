"""Curves over time as braille, one colour a layer, with the ends of the axis written into the corners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.style import Style

from gradtui.tui.bars import short
from gradtui.tui.cells import Cell, CellWidget, cells
from gradtui.tui.palette import layer_style, theme_style

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
        self._data: tuple[npt.NDArray[np.int64], npt.NDArray[np.floating], npt.NDArray[np.floating]] | None = None
        self._shown_curves: list[int] = []
        self._of = 1
        self._gutter = 0
        self._cursor: float | None = None
        self._empty = "not measured yet"
        self._single: tuple[tuple[object, ...], tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]] | None = None

    def show(
        self,
        steps: npt.NDArray[np.int64],
        minimum: npt.NDArray[np.floating],
        maximum: npt.NDArray[np.floating],
        *,
        cursor: float | None = None,
        empty: str = "not measured yet",
    ) -> None:
        """Show curves; `cursor` (0 to 1) marks the step that is shown elsewhere, None marks nothing."""
        same = self._data is not None and all(
            a is b for a, b in zip(self._data, (steps, minimum, maximum), strict=True)
        )
        self._empty = empty
        if same and cursor == self._cursor:
            return
        self._cursor = cursor
        if not same:
            self._data = (steps, minimum, maximum)
            self._redraw()
        self.repaint()

    def show_line(
        self,
        steps: npt.NDArray[np.int64],
        minimum: npt.NDArray[np.floating],
        maximum: npt.NDArray[np.floating],
        *,
        cursor: float | None = None,
        empty: str = "not measured yet",
    ) -> None:
        """Show a single curve, [buckets]."""
        key = (steps, minimum, maximum)
        if self._single is None or any(a is not b for a, b in zip(self._single[0], key, strict=True)):
            self._single = (key, (minimum[:, None], maximum[:, None]))
        self.show(steps, *self._single[1], cursor=cursor, empty=empty)

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._redraw()
        self.refresh()

    def _redraw(self) -> None:
        if self._data is None:
            return
        from gradtui.tui.braille import draw

        steps, minimum, maximum = self._data
        width, height = self.content_size
        if width < 2 or height < 1:
            return
        self._of = minimum.shape[1]
        stride = max(1, -(-self._of // MOST_CURVES))
        self._shown_curves = sorted({*range(0, self._of, stride), self._of - 1})
        pick = self._shown_curves
        self._gutter = len(str(self._of)) + 1 if self._of > 1 else 0
        self._plot = draw(steps, minimum[:, pick], maximum[:, pick], width - self._gutter, height, log=self._log)

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
