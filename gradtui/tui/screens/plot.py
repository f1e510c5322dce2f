"""One large plot over time, drawn by plotext, to zoom into: the window in view is read in full from the run file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static

from gradtui.errors import RunFileError
from gradtui.tui import bindings
from gradtui.tui.navigation import navigator
from gradtui.tui.palette import layer_colour
from gradtui.tui.text import clean
from gradtui.tui.widgets.key_footer import KeyFooter
from gradtui.tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from rich.text import Text

FOLLOW_EVERY = 2.0  # s between redrawings of a live run


class PlotScreen(Screen[None]):
    """A curve a layer for a measure, or the loss."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings.ALWAYS,
        *bindings.measure_keys("and the loss after the last"),
        Binding("plus,equals_sign", "zoom(0.5)", "zoom", key_display="+/-", tooltip="zoom in on time"),
        Binding("minus", "zoom(2)", "zoom out", show=False, tooltip="zoom out"),
        Binding("left", "pan(-0.25)", "time", key_display="←/→", tooltip="earlier"),
        Binding("right", "pan(0.25)", "later", show=False, tooltip="later"),
        Binding("home,0", "all", "whole run", tooltip="the whole run"),
        bindings.LOG_AXIS,
        bindings.back("p", "the run"),
    ]

    class Drawn(Message):
        """A plot is ready; `span` is the recorded span, `measures` how many measures there are."""

        def __init__(self, text: Text | str, span: tuple[int, int], measures: int, window: tuple[int, int]) -> None:
            super().__init__()
            self.text = text
            self.span = span
            self.measures = measures
            self.window = window

    def __init__(self, path: Path, measure: int) -> None:
        super().__init__()
        self._path = path
        self._measure = measure
        self._measures = measure + 1
        self._log = True
        self._live = True
        self._window: tuple[int, int] | None = None  # None is the whole run, also as it grows
        self._span: tuple[int, int] | None = None

    def compose(self) -> ComposeResult:
        """The plot fills the screen."""
        yield Static("Reading …", id="plot", markup=False)
        yield TooSmall()
        yield KeyFooter()

    def on_mount(self) -> None:
        """Draw once there is a size, and follow."""
        self.set_interval(FOLLOW_EVERY, self._follow)

    def on_resize(self) -> None:
        """Draw for the new size."""
        self.call_after_refresh(self._draw)

    def _follow(self) -> None:
        if self._window is None and self._live and navigator(self).link.ready:
            self._draw()

    @work(thread=True, exclusive=True)
    def _draw(self) -> None:
        size = self.query_one("#plot").content_size
        if size.width < 20 or size.height < 5:
            return
        from gradtui.runfile import open_run

        try:
            with open_run(self._path) as reader:
                span = reader.span() or (0, 0)
                window = self._window or span
                from gradtui.tui.large_plot import large_plot

                count = max(1, len(reader.layers()))
                colours = [layer_colour(self.app, layer, count).rgb for layer in range(count)]
                text = large_plot(
                    reader, window, self._measure, size.width, size.height, log=self._log, colours=colours
                )
                measures = len(reader.measures) + 1
                self._live = reader.status().live
        except RunFileError as error:
            self.post_message(self.Drawn(clean(str(error)), (0, 0), self._measures, (0, 0)))
            return
        self.post_message(self.Drawn(text, span, measures, window))

    def on_plot_screen_drawn(self, event: PlotScreen.Drawn) -> None:
        """Show what was drawn."""
        self._span, self._measures = event.span, event.measures
        self.query_one("#plot", Static).update(event.text, layout=False)

    def action_measure(self, by: int) -> None:
        """Draw another measure; the loss comes after the last."""
        self._measure = (self._measure + by) % max(1, self._measures)
        self._draw()

    def action_toggle_log(self) -> None:
        """Switch the axis."""
        self._log = not self._log
        self._draw()

    def action_zoom(self, by: float) -> None:
        """Zoom about the middle; zooming out over the ends shows the whole run."""
        if self._span is None:
            return
        first, last = self._window or self._span
        half = max(2.0, (last - first) * by / 2)
        middle = (first + last) / 2
        self._set_window(middle - half, middle + half)

    def action_pan(self, share: float) -> None:
        """Move the window."""
        if self._span is None or self._window is None:
            return
        first, last = self._window
        by = share * (last - first)
        by = min(max(by, self._span[0] - first), self._span[1] - last)
        self._set_window(first + by, last + by)

    def action_all(self) -> None:
        """Show the whole run, and follow it."""
        self._window = None
        self._draw()

    def _set_window(self, first: float, last: float) -> None:
        assert self._span is not None
        start, stop = max(self._span[0], round(first)), min(self._span[1], round(last))
        self._window = None if (start, stop) == self._span else (start, stop)
        self._draw()
