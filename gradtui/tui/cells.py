"""Widgets that draw themselves cell by cell and repaint only the cells that look different.

Textual writes whatever is refreshed, changed or not; over a slow link that is what costs. So a widget here says what
each line looks like, and `repaint` compares that with what is on the screen.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.geometry import Offset, Region
from textual.strip import Strip
from textual.widget import Widget

Cell = tuple[str, Style]  # one character; the cell behind a wide one holds ""
JOIN_GAP = 12  # unchanged cells between two changed ones that cost less to send than to jump over


def cells(text: str, style: Style) -> list[Cell]:
    """`text` as cells, one entry a terminal column."""
    if text.isascii():
        return [(character, style) for character in text]
    found: list[Cell] = []
    for character in text:
        width = cell_len(character)
        if width:
            found.append((character, style))
            found.extend([("", style)] * (width - 1))
    return found


def fit_cells(line: list[Cell], width: int, style: Style) -> list[Cell]:
    """`line` in exactly `width` cells."""
    if len(line) > width:
        line = line[:width]
        if line and line[-1][0] and cell_len(line[-1][0]) > 1:
            line[-1] = (" ", line[-1][1])
    return line + [(" ", style)] * (width - len(line))


def to_strip(line: list[Cell]) -> Strip:
    """Cells as a strip, one segment for each run of a style; a space takes the style before it if it looks the same."""
    segments: list[Segment] = []
    start = 0
    for position in range(1, len(line) + 1):
        if position == len(line) or not _continues(line[position], line[start][1]):
            segments.append(Segment("".join(text for text, _ in line[start:position]), line[start][1]))
            start = position
    return Strip(segments, len(line))


def _continues(cell: Cell, style: Style) -> bool:
    if cell[1] is style:
        return True
    return cell[0] == " " and cell[1].bgcolor == style.bgcolor and not (style.underline or style.reverse)


def changed_runs(old: list[Cell], new: list[Cell]) -> list[tuple[int, int]]:
    """Where two lines of the same length differ, as (start, stop), near ones joined."""
    runs: list[tuple[int, int]] = []
    for position, (before, after) in enumerate(zip(old, new, strict=True)):
        if before[0] == after[0] and (before[1] is after[1] or before[1] == after[1]):
            continue
        if runs and position - runs[-1][1] < JOIN_GAP:
            runs[-1] = (runs[-1][0], position + 1)
        else:
            runs.append((position, position + 1))
    return runs


class CellWidget(Widget):
    """A widget whose lines are cells. Subclasses say what line `y` of the visible content looks like: `line`."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._on_screen: dict[int, list[Cell]] = {}
        self._drawn: dict[int, tuple[tuple[int, Offset], list[Cell]]] = {}  # due to be rendered, and for which place
        self._title = ""

    def set_title(self, title: str) -> None:
        """Set the title in the border, as plain text; the same title again draws nothing."""
        if title != self._title:
            self._title = title
            self.border_title = Content(title)

    def line(self, y: int, width: int) -> list[Cell]:
        """The cells of line `y`, exactly `width` of them."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        """Draw a line, and remember it."""
        width = self.content_size.width
        place, drawn = self._drawn.pop(y, (None, []))
        if place != (width, self.scroll_offset):
            drawn = self.line(y, width)
        self._on_screen[y] = drawn
        return to_strip(drawn)

    def repaint(self) -> None:
        """Refresh the cells that look different from what is on the screen."""
        width, height = self.content_size
        regions = []
        for y in range(height):
            new = self.line(y, width)
            old = self._on_screen.get(y)
            runs = changed_runs(old, new) if old is not None and len(old) == width else [(0, width)]
            if runs:
                self._drawn[y] = ((width, self.scroll_offset), new)
            else:
                self._drawn.pop(y, None)
            for start, stop in runs:
                if not new[start][0] and start:
                    start -= 1
                regions.append(Region(start, y, stop - start, 1))
        if regions:
            self.refresh(*regions)
