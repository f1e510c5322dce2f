"""Runs side by side: a lane a run, layers as rows aligned from the output, one axis for all."""

from __future__ import annotations

import math

from rich.style import Style
from textual.events import Click
from textual.message import Message

from gradtui.format import multiple
from gradtui.tui.cells import Cell, CellWidget, cells, fit_cells
from gradtui.tui.lanes import Lane
from gradtui.tui.palette import layer_style, theme_style
from gradtui.tui.scales import Scale, bar, choose_scale, number
from gradtui.tui.states import STATES
from gradtui.tui.text import clean, fit, fit_left

GUTTER = 6  # for the place of a row, counted from the output
LEAST_LANE = 20
MOST_LANE = 46
HEAD = 3  # lines over the bars: name, state, spread
HIGHEST_ROW = 3  # lines a row takes where there is room
VALUE_WIDTH = 8


class LaneSelected(Message):
    """The cursor is on another lane."""


class LaneOpened(Message):
    """A lane was clicked twice."""


class SideBySide(CellWidget, can_focus=True, inherit_bindings=False):
    """Lanes with a cursor. The first lane is the baseline where `pinned`; `ratios` shows values over the baseline's."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lanes: tuple[Lane, ...] = ()
        self.cursor = 0
        self.ratios = False
        self.log_axis = True
        self._colours: tuple[int, ...] = ()
        self._of = 1
        self._first = 0
        self._scale = Scale(1e-3, 1.0, True)

    def show(self, lanes: tuple[Lane, ...], colours: tuple[int, ...], of: int) -> None:
        """Show other lanes; lane i has colour `colours[i]` of `of`."""
        self.lanes, self._colours, self._of = lanes, colours, of
        self.cursor = min(self.cursor, max(0, len(lanes) - 1))
        values = [abs(value) for lane in lanes for value in lane.values if value is not None]
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
        self.show(self.lanes, self._colours, self._of)

    def select(self, lane: int) -> None:
        """Move the cursor."""
        self.cursor = min(max(0, lane), max(0, len(self.lanes) - 1))
        self._keep_in_view()
        self.repaint()
        self.post_message(LaneSelected())

    def on_click(self, event: Click) -> None:
        """Select the lane under the mouse; open it if it was selected."""
        offset = event.get_content_offset(self)
        if offset is None or offset.x < GUTTER:
            return
        lane = self._first + (offset.x - GUTTER) // self._lane_width()
        if lane < len(self.lanes):
            again = lane == self.cursor
            self.select(lane)
            if again and event.chain > 1:
                self.post_message(LaneOpened())

    def hidden_at_the_sides(self) -> tuple[int, int]:
        """Lanes that do not fit, on the left and on the right."""
        return self._first, max(0, len(self.lanes) - self._first - self._fitting())

    # -- drawing ----------------------------------------------------------------------------------------------

    def _lane_width(self) -> int:
        room = max(1, self.content_size.width - GUTTER)
        return min(room, max(LEAST_LANE, min(MOST_LANE, room // max(1, len(self.lanes)))))

    def _fitting(self) -> int:
        return max(1, (self.content_size.width - GUTTER) // self._lane_width())

    def _keep_in_view(self) -> None:
        fitting = self._fitting()
        self._first = max(0, min(self._first, len(self.lanes) - fitting))
        self._first = min(max(self._first, self.cursor - fitting + 1), self.cursor)

    def _places(self) -> list[int]:
        """For each row from the top, which layer it shows, counted from the output; a deep net is thinned evenly."""
        deepest = max((len(lane.values) for lane in self.lanes), default=0)
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
        lane_width = self._lane_width()
        for index in range(self._first, min(len(self.lanes), self._first + self._fitting())):
            ground = "panel" if index == self.cursor else "surface"
            part = self._part(index, y, place, named, lane_width - 1, ground)
            drawn += [*part, (" ", plain)]
        return fit_cells(drawn, width, plain)

    def _part(self, index: int, y: int, place: int | None, named: bool, width: int, ground: str) -> list[Cell]:
        lane = self.lanes[index]
        empty = theme_style(self.app, "foreground", background=ground)
        if y < HEAD:
            return fit_cells(
                (self._draw_name, self._draw_state, self._draw_spread)[y](index, lane, width, ground), width, empty
            )
        if place is None or place >= len(lane.values):
            return [(" ", empty)] * width
        layer = len(lane.values) - 1 - place
        return fit_cells(self._bar(index, lane.values[layer], place if named else None, width, ground), width, empty)

    def _draw_name(self, index: int, lane: Lane, width: int, ground: str) -> list[Cell]:
        colour = self._colour(index, ground)
        name = theme_style(self.app, "foreground", background=ground, bold=True)
        mark = "▸" if index == self.cursor else " "
        return (
            cells(mark, theme_style(self.app, "accent", background=ground))
            + cells(f"{self._colours[index] + 1} ", colour)
            + cells(fit(clean(lane.label), width - 3), name)
        )

    def _draw_state(self, index: int, lane: Lane, width: int, ground: str) -> list[Cell]:
        sign, word, colour = STATES.get(lane.state, ("○", lane.state, "dim"))
        if lane.detail.startswith("diverged"):
            sign, word, colour = "✗", "diverged", "error"
        elif lane.state == "live" and lane.progress is not None:
            word = f"{100 * lane.progress:.0f} %"
        elif lane.state == "finished":
            word = "done"
        style = theme_style(self.app, colour, background=ground, bold=True)
        plain = theme_style(self.app, "foreground", background=ground)
        dim = theme_style(self.app, "dim", background=ground)
        drawn = cells(f" {sign} {word}", style)
        if lane.accuracy is not None:
            what = "test" if lane.tested else "val"
            told = f"{100 * lane.accuracy:.1f} % "
            drawn += cells(" " * max(1, width - len(drawn) - len(told) - len(what) - 1), plain)
            drawn += cells(told, plain) + cells(what, dim)
        elif lane.loss is not None:
            told = f"loss {number(lane.loss)}"
            drawn += cells(" " * max(1, width - len(drawn) - len(told)), plain) + cells(told, dim)
        return drawn

    def _draw_spread(self, index: int, lane: Lane, width: int, ground: str) -> list[Cell]:
        dim = theme_style(self.app, "dim", background=ground)
        spread = lane.spread
        if spread is None:
            return cells("", dim)
        return cells(f" spread {multiple(spread)}", dim)

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
        told = self._ratio(value, place) if self.ratios and index else number(value)
        return drawn + cells(fit_left(told, VALUE_WIDTH), text_style)

    def _ratio(self, value: float | None, place: int) -> str:
        """The value over the baseline's in the same place from the output."""
        baseline = self.lanes[0].values
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
