"""One bar a row: a list of any length, of layers or of neurons, scrolled and selected."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView

from gradtui.tui.cells import Cell, CellWidget, cells, fit_cells
from gradtui.tui.messages import RowOpened, RowSelected
from gradtui.tui.palette import layer_style, theme_style
from gradtui.tui.scales import Scale, bar, choose_scale, number, ratio, trend
from gradtui.tui.text import fit, fit_left

VALUE_WIDTH = 8
RATIO_WIDTH = 7
HIGHEST_ROW = 3  # lines a row takes where there is room: the bar on all but the last


@dataclass(frozen=True)
class BarRows:
    """What the rows show; all tuples are as long as there are rows. Text is clean already (`tui.text.clean`).

    `numbers` are what stands before the names; `before` are the values of a second ago. A bar shows the size of a
    value; its sign stands in the number. All bars have the colour of layer `colours[0]` of `colours[1]`, or each its
    own.
    """

    numbers: tuple[int, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...]
    values: tuple[float | None, ...]
    before: tuple[float | None, ...] | None = None
    colours: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.values)


class Bars(CellWidget, ScrollView, can_focus=True, inherit_bindings=False):
    """Rows of number, name, note, bar, value and ratio to the largest.

    Posts `RowSelected` when the cursor moves and `RowOpened` when a row is clicked twice.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Select", show=False),
        Binding("down,j", "move(1)", "Select", show=False),
        Binding("pageup", "page(-1)", "Page", show=False),
        Binding("pagedown", "page(1)", "Page", show=False),
        Binding("g", "move(-1000000)", "First", show=False),
        Binding("G", "move(1000000)", "Last", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rows = BarRows((), (), (), ())
        self.cursor = 0
        self.log_axis = True
        self.scale = Scale(1e-3, 1.0, True)
        self._largest = 1.0
        self._pitch = 1

    def show(self, rows: BarRows) -> None:
        """Show other values; only cells that look different are drawn."""
        grown = len(rows) != len(self.rows) or rows.names != self.rows.names
        self.rows = rows
        self.cursor = min(self.cursor, max(0, len(rows) - 1))
        sizes = [abs(value) for value in rows.values if value is not None]
        self._largest = max((size for size in sizes if math.isfinite(size)), default=0.0)
        scale = choose_scale(sizes, self.log_axis, self.scale)
        if scale != self.scale or not self.border_subtitle:
            self.scale = scale
            self.border_subtitle = self.scale.label()
        if grown:
            self._lay_out()
        else:
            self.repaint()

    def on_resize(self) -> None:
        """Give each row as many lines as there are."""
        self._lay_out()

    def _lay_out(self) -> None:
        height, count = self.container_size.height, max(1, len(self.rows))
        self._pitch = max(1, min(HIGHEST_ROW, (height - 2) // count))
        self.virtual_size = Size(0, self._pitch * len(self.rows))
        self.refresh()

    def toggle_log(self) -> None:
        """Switch between a logarithmic and a linear axis."""
        self.log_axis = not self.log_axis
        self.show(self.rows)

    def select(self, row: int) -> None:
        """Move the cursor to a row and scroll it into view."""
        row = min(max(0, row), max(0, len(self.rows) - 1))
        if row != self.cursor:
            self.cursor = row
            self.repaint()
            self.post_message(RowSelected(row))
        self.scroll_to_region(Region(0, row * self._pitch, 1, self._pitch), animate=False, force=True)

    def action_move(self, rows: int) -> None:
        """Move the cursor."""
        self.select(self.cursor + rows)

    def action_page(self, pages: int) -> None:
        """Move the cursor by what is visible."""
        self.select(self.cursor + pages * max(1, self.content_size.height // self._pitch - 1))

    def on_click(self, event: Click) -> None:
        """Select the row under the mouse; open it if it was selected."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        row = (offset.y + int(self.scroll_offset.y)) // self._pitch
        if 0 <= row < len(self.rows):
            again = row == self.cursor
            self.select(row)
            if again and event.chain > 1:
                self.post_message(RowOpened(row))

    # -- drawing ----------------------------------------------------------------------------------------------

    def line(self, y: int, width: int) -> list[Cell]:
        """The cells of a visible row."""
        row, below = divmod(y + int(self.scroll_offset.y), self._pitch)
        plain = theme_style(self.app, "foreground")
        if not 0 <= row < len(self.rows) or (below and below == self._pitch - 1):
            return [(" ", plain)] * width
        ground = "panel" if row == self.cursor and len(self.rows) > 1 else "surface"
        drawn = self._draw_name(row, width, ground)
        value = self.rows.values[row]
        show_ratio = width >= 44
        tail_width = 2 + VALUE_WIDTH + (1 + RATIO_WIDTH if show_ratio else 0)
        bar_width = max(4, width - len(drawn) - tail_width)
        if below:
            drawn = cells(" " * len(drawn), drawn[-1][1])
        drawn += self._draw_bar(row, value, bar_width, ground)
        if not below:
            drawn += self._draw_tail(row, value, show_ratio, ground)
        return fit_cells(drawn, width, drawn[-1][1] if below else plain)

    def _draw_name(self, row: int, width: int, ground: str) -> list[Cell]:
        rows = self.rows
        index_width = len(str(max(rows.numbers, default=0)))
        longest = max((len(name) for name in rows.names[:200]), default=0)
        note_width = min(12, max((len(note) for note in rows.notes[:200]), default=0)) if width >= 50 else 0
        name_width = max(4, min(longest, 28, (width - 26 - note_width) // 2))
        selected = row == self.cursor
        dim = theme_style(self.app, "dim", background=ground)
        bright = theme_style(self.app, "foreground", background=ground, bold=selected)
        drawn = cells("▸" if selected else " ", theme_style(self.app, "accent", background=ground))
        drawn += cells(f"{rows.numbers[row]:>{index_width}} ", dim)
        drawn += cells(fit(rows.names[row], name_width) + " ", bright)
        if note_width:
            drawn += cells(fit(rows.notes[row], note_width) + " ", dim)
        return drawn

    def _draw_bar(self, row: int, value: float | None, width: int, ground: str) -> list[Cell]:
        alarm = theme_style(self.app, "error", background=ground, bold=True)
        dim = theme_style(self.app, "faint", background=ground)
        if value is None:
            return cells(" " * width, dim)
        if not math.isfinite(value):
            return cells(f" {number(value)} ".center(width, "▒"), alarm)
        layer, layers = self.rows.colours or (row, len(self.rows))
        colour = layer_style(self.app, layer, layers, background=ground)
        filled = bar(self.scale.fraction(abs(value)), width)
        drawn = cells(filled, colour)
        for tick in self._ticks(width):
            if filled[tick] == " ":
                drawn[tick] = ("┊", dim)
        return drawn

    def _ticks(self, width: int) -> list[int]:
        """Where whole decades lie, if there is room to see them."""
        if not self.scale.log:
            return []
        decades = round(math.log10(self.scale.high / self.scale.low)) if self.scale.low > 0 else 0
        if decades < 2 or width < 4 * decades:
            return []
        return [round(width * decade / decades) for decade in range(1, decades)]

    def _draw_tail(self, row: int, value: float | None, show_ratio: bool, ground: str) -> list[Cell]:
        broken = value is not None and not math.isfinite(value)
        style = theme_style(self.app, "error" if broken else "foreground", background=ground, bold=broken)
        dim = theme_style(self.app, "dim", background=ground)
        moved = trend(value, self.rows.before[row]) if self.rows.before is not None else " "
        drawn = cells(f" {moved}", self._trend_style(moved, ground))
        drawn += cells(fit_left(number(value), VALUE_WIDTH), style)
        if show_ratio:
            share = ratio(None if value is None else abs(value), self._largest)
            drawn += cells(" " + fit_left(share, RATIO_WIDTH), dim)
        return drawn

    def _trend_style(self, moved: str, ground: str) -> Style:
        return theme_style(self.app, "success" if moved == "↑" else "warning", background=ground)
