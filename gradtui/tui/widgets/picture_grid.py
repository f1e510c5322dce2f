"""Small pictures side by side: the filters of a layer, samples of an RBM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradtui.tui.cells import Cell, CellWidget, cells, fit_cells
from gradtui.tui.half_blocks import LEVELS, Grid, fit, shades
from gradtui.tui.palette import shade_style, theme_style

if TYPE_CHECKING:
    from gradtui.runfile import Pictures

ASCII = " .:-=+*#%@"  # from nothing to much


class PictureGrid(CellWidget):
    """As many of the pictures as fit; signed values from blue over the background to orange, others in grey."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._pictures: Pictures | None = None
        self._levels: list[list[list[int]]] = []
        self._scale = 0

    def show(self, pictures: Pictures | None) -> None:
        """Show pictures, or that there are none."""
        if pictures != self._pictures:
            self._pictures, self._scale = pictures, 0
        self.repaint()

    @property
    def seen(self) -> int:
        """How many of the pictures fit."""
        if self._pictures is None:
            return 0
        grid = self._grid(self.content_size.width)
        fitting: int = min(self._pictures.count, grid.across * grid.down)
        return fitting

    def line(self, y: int, width: int) -> list[Cell]:
        """One line of tiles."""
        dim = theme_style(self.app, "dim")
        pictures = self._pictures
        if pictures is None:
            return fit_cells([], width, dim)
        grid = self._grid(width)
        if grid.scale != self._scale:
            self._scale = grid.scale
            self._levels = shades(pictures.pixels, pictures.rows, pictures.columns, grid.scale)
        row, inner = divmod(y, grid.lines + 1)
        if inner == grid.lines or row >= grid.down:
            return fit_cells([], width, dim)
        drawn: list[Cell] = []
        for tile in self._levels[row * grid.across : (row + 1) * grid.across]:
            below = tile[2 * inner + 1] if 2 * inner + 1 < grid.height else None
            drawn += self._tile_line(tile[2 * inner], below, pictures.signed)
            drawn += cells(" ", dim)
        return fit_cells(drawn, width, dim)

    def _tile_line(self, upper: list[int], lower: list[int] | None, signed: bool) -> list[Cell]:
        if getattr(self.app, "ascii_only", False):
            plain = theme_style(self.app, "foreground")
            both = upper if lower is None else [(a + b) // 2 for a, b in zip(upper, lower, strict=True)]
            return cells("".join(ASCII[level * len(ASCII) // LEVELS] for level in both), plain)
        ends = lower if lower is not None else [None] * len(upper)
        return [("▀", shade_style(self.app, a, b, LEVELS, signed)) for a, b in zip(upper, ends, strict=True)]

    def _grid(self, width: int) -> Grid:
        assert self._pictures is not None
        one = self._pictures
        return fit(one.count, one.rows, one.columns, width, self.content_size.height)
