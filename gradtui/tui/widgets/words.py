"""A few lines of text, wrapped; of new text only the cells that changed are drawn."""

from __future__ import annotations

from rich.text import Text

from gradtui.tui.cells import Cell, CellWidget, cells, fit_cells
from gradtui.tui.palette import theme_style


class Words(CellWidget):
    """Lines of plain text; a line that starts in capitals is an alarm, and drawn as one."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[str] = []
        self._wrapped: tuple[int, list[tuple[str, bool]]] = (0, [])

    def show(self, lines: list[str]) -> None:
        """Show other lines; text is clean already (`tui.text.clean`)."""
        if lines != self._lines:
            self._lines = lines
            self._wrapped = (0, [])
            self.repaint()

    def line(self, y: int, width: int) -> list[Cell]:
        """One wrapped line."""
        if self._wrapped[0] != width:
            self._wrapped = (width, self._wrap(width))
        plain = theme_style(self.app, "foreground")
        if y >= len(self._wrapped[1]):
            return fit_cells([], width, plain)
        text, alarm = self._wrapped[1][y]
        return fit_cells(cells(text, theme_style(self.app, "error", bold=True) if alarm else plain), width, plain)

    def _wrap(self, width: int) -> list[tuple[str, bool]]:
        wrapped = []
        for line in self._lines:
            alarm = line.split("  ")[0].isupper()
            pieces = Text(line).wrap(self.app.console, max(10, width))
            wrapped += [(piece.plain.rstrip(), alarm) for piece in pieces]
        return wrapped
