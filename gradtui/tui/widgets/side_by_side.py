"""Runs side by side: a column a run, layers as rows aligned from the output, one axis for all."""

from __future__ import annotations

import math

from rich.style import Style
from textual.events import Click
from textual.message import Message

from gradtui.format import multiple
from gradtui.tui.cells import Cell, CellWidget, cells, fit_cells
from gradtui.tui.compared_runs import ComparedRun
from gradtui.tui.palette import layer_style, theme_style
from gradtui.tui.scales import Scale, bar, choose_scale, number
from gradtui.tui.states import STATES
from gradtui.tui.text import clean, fit, fit_left

GUTTER = 6  # for the place of a row, counted from the output
LEAST_COLUMN = 20
MOST_COLUMN = 46
HEAD = 3  # lines over the bars: name, state, speed ratio
HIGHEST_ROW = 3  # lines a row takes where there is room
VALUE_WIDTH = 8


class ColumnSelected(Message):
    """The cursor is on another run."""


class ColumnOpened(Message):
    """A run was clicked twice."""


class SideBySide(CellWidget, can_focus=True, inherit_bindings=False):
    """Columns with a cursor; the first one is the baseline. `ratios` shows values as multiples of the baseline's."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.runs: tuple[ComparedRun, ...] = ()
        self.cursor = 0
        self.ratios = False
        self.log_axis = True
        self._colours: tuple[int, ...] = ()
        self._of = 1
        self._first = 0
        self._scale = Scale(1e-3, 1.0, True)

    def show(self, runs: tuple[ComparedRun, ...], colours: tuple[int, ...], of: int) -> None:
        """Show other runs; run i has colour `colours[i]` of `of`."""
        self.runs, self._colours, self._of = runs, colours, of
        self.cursor = min(self.cursor, max(0, len(runs) - 1))
        values = [abs(value) for run in runs for value in run.values if value is not None]
        scale = choose_scale(values, self.log_axis, self._scale)
        if scale != self._scale or not self.border_subtitle:
            self._scale = scale
            self.border_subtitle = scale.label()
        self.repaint()

    def on_resize(self) -> None:
        """Keep the cursor in view."""
        self._keep_in_view()
        self.refresh()

    def toggle_log(self) -> None:
        """Switch the axis."""
        self.log_axis = not self.log_axis
        self.show(self.runs, self._colours, self._of)

    def select(self, column: int) -> None:
        """Move the cursor."""
        self.cursor = min(max(0, column), max(0, len(self.runs) - 1))
        self._keep_in_view()
        self.repaint()
        self.post_message(ColumnSelected())

    def on_click(self, event: Click) -> None:
        """Select the run under the mouse; open it if it was selected."""
        offset = event.get_content_offset(self)
        if offset is None or offset.x < GUTTER:
            return
        column = self._first + (offset.x - GUTTER) // self._column_width()
        if column < len(self.runs):
            again = column == self.cursor
            self.select(column)
            if again and event.chain > 1:
                self.post_message(ColumnOpened())

    def hidden_at_the_sides(self) -> tuple[int, int]:
        """Runs that do not fit, on the left and on the right."""
        return self._first, max(0, len(self.runs) - self._first - self._fitting())

    # -- drawing ------------------------------------------------------------------------------------------------------

    def _column_width(self) -> int:
        room = max(1, self.content_size.width - GUTTER)
        return min(room, max(LEAST_COLUMN, min(MOST_COLUMN, room // max(1, len(self.runs)))))

    def _fitting(self) -> int:
        return max(1, (self.content_size.width - GUTTER) // self._column_width())

    def _keep_in_view(self) -> None:
        fitting = self._fitting()
        self._first = max(0, min(self._first, len(self.runs) - fitting))
        self._first = min(max(self._first, self.cursor - fitting + 1), self.cursor)

    def _places(self) -> list[int]:
        """For each row from the top, which layer it shows, counted from the output; a deep net is thinned evenly."""
        deepest = max((len(run.values) for run in self.runs), default=0)
        room = max(1, self.content_size.height - HEAD)
        count = min(deepest, room)
        return [round(row * (deepest - 1) / max(1, count - 1)) for row in reversed(range(count))]

    def _row_of(self, y: int) -> tuple[int | None, bool]:
        """Which layer a line shows, counted from the output, and whether it is the line that says its value."""
        places = self._places()
        if y < HEAD or not places:
            return None, False
        pitch = max(1, min(HIGHEST_ROW, (self.content_size.height - HEAD) // len(places)))
        row, below = divmod(y - HEAD, pitch)
        # the last line of a high row stays empty, so that bars stand apart
        if row >= len(places) or (below and below == pitch - 1):
            return None, False
        return places[row], below == 0

    def line(self, y: int, width: int) -> list[Cell]:
        """The cells of a visible line."""
        plain = theme_style(self.app, "foreground")
        dim = theme_style(self.app, "dim")
        drawn: list[Cell] = []
        place, named = self._row_of(y)
        if place is not None and named:
            name = "out" if place == 0 else f"−{place:,}"
            drawn = cells(fit_left(name, GUTTER - 1) + " ", dim)
        drawn = fit_cells(drawn, min(GUTTER, width), plain)
        column_width = self._column_width()
        for index in range(self._first, min(len(self.runs), self._first + self._fitting())):
            ground = "panel" if index == self.cursor else "surface"
            column = self._cells_of(index, y, place, named, column_width - 1, ground)
            drawn += [*column, (" ", plain)]
        return fit_cells(drawn, width, plain)

    def _cells_of(self, index: int, y: int, place: int | None, named: bool, width: int, ground: str) -> list[Cell]:
        run = self.runs[index]
        empty = theme_style(self.app, "foreground", background=ground)
        if y < HEAD:
            return fit_cells(
                (self._draw_name, self._draw_state, self._draw_speed_ratio)[y](index, run, width, ground), width, empty
            )
        if place is None or place >= len(run.values):
            return [(" ", empty)] * width
        layer = len(run.values) - 1 - place
        return fit_cells(self._bar(index, run.values[layer], place if named else None, width, ground), width, empty)

    def _draw_name(self, index: int, run: ComparedRun, width: int, ground: str) -> list[Cell]:
        colour = self._colour(index, ground)
        name = theme_style(self.app, "foreground", background=ground, bold=True)
        mark = "▸" if index == self.cursor else " "
        return (
            cells(mark, theme_style(self.app, "accent", background=ground))
            + cells(f"{self._colours[index] + 1} ", colour)
            + cells(fit(clean(run.label), width - 3), name)
        )

    def _draw_state(self, index: int, run: ComparedRun, width: int, ground: str) -> list[Cell]:
        sign, word, colour = STATES.get(run.state, ("○", clean(run.state), "dim"))
        if run.detail.startswith("diverged"):
            sign, word, colour = "✗", "diverged", "error"
        elif run.state == "live" and run.progress is not None:
            word = f"{100 * run.progress:.0f} %"
        elif run.state == "finished":
            word = "done"
        style = theme_style(self.app, colour, background=ground, bold=True)
        plain = theme_style(self.app, "foreground", background=ground)
        dim = theme_style(self.app, "dim", background=ground)
        drawn = cells(f" {sign} {word}", style)
        if run.accuracy is not None:
            what = "test" if run.tested else "val"
            text = f"{100 * run.accuracy:.1f} % "
            drawn += cells(" " * max(1, width - len(drawn) - len(text) - len(what) - 1), plain)
            drawn += cells(text, plain) + cells(what, dim)
        elif run.loss is not None:
            text = f"loss {number(run.loss)}"
            drawn += cells(" " * max(1, width - len(drawn) - len(text)), plain) + cells(text, dim)
        return drawn

    def _draw_speed_ratio(self, index: int, run: ComparedRun, width: int, ground: str) -> list[Cell]:
        dim = theme_style(self.app, "dim", background=ground)
        ratio = run.speed_ratio
        return cells("" if ratio is None else f" speed ratio {multiple(ratio)}", dim)

    def _bar(self, index: int, value: float | None, place: int | None, width: int, ground: str) -> list[Cell]:
        text_style = theme_style(self.app, "foreground", background=ground)
        alarm = theme_style(self.app, "error", background=ground, bold=True)
        room = max(3, width - VALUE_WIDTH - 2)
        if value is not None and not math.isfinite(value):
            return cells(" " + f" {number(value)} ".center(width - 2, "▒"), alarm)
        filled = bar(self._scale.fraction(abs(value)), room) if value is not None else " " * room
        drawn = cells(f" {filled} ", self._colour(index, ground))
        if place is None:
            return drawn
        text = self._ratio(value, place) if self.ratios and index else number(value)
        return drawn + cells(fit_left(text, VALUE_WIDTH), text_style)

    def _ratio(self, value: float | None, place: int) -> str:
        """The value over the baseline's in the same place from the output."""
        baseline = self.runs[0].values
        if place >= len(baseline):
            return "—"
        other = baseline[len(baseline) - 1 - place]
        if value is None or other is None or not math.isfinite(other) or other == 0:
            return "—"
        times = value / other
        if 10 <= times < 1e4:
            return f"×{times:,.0f}"
        return f"×{times:.2g}" if 1e-2 <= times < 10 else f"×{times:.0e}"

    def _colour(self, index: int, ground: str) -> Style:
        return layer_style(self.app, self._colours[index], self._of, background=ground)
