"""Fewer bytes, the same picture: what is sent against what Textual itself would send, on a terminal in memory."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate
from textual.strip import Strip

from gradtui.tui.terminal import _render_segments

theirs = ChopsUpdate.render_segments
COLOURS = st.sampled_from([None, "#ff0000", "#00ff00", "#123456", "red", "bright_blue", "default"])
STYLES = st.builds(
    Style,
    color=COLOURS,
    bgcolor=COLOURS,
    bold=st.sampled_from([None, True, False]),
    italic=st.sampled_from([None, True]),
    reverse=st.sampled_from([None, True]),
    underline=st.sampled_from([None, True]),
)
TEXTS = st.text("abc █▏→", min_size=1, max_size=6)
SEGMENTS = st.lists(st.tuples(TEXTS, STYLES).map(lambda pair: Segment(*pair)), min_size=1, max_size=6)


def console_of(system: ColorSystem | None) -> Console:
    console = Console()
    console._color_system = system
    return console


def picture(data: str) -> list[list[tuple[object, ...]]]:
    screen = pyte.Screen(60, 3)
    pyte.Stream(screen).feed(data)
    return [
        [
            (c.data, c.fg, c.bg, c.bold, c.italics, c.reverse, c.underscore)
            for c in (screen.buffer[y][x] for x in range(60))
        ]
        for y in range(3)
    ]


@pytest.mark.parametrize("system", [ColorSystem.TRUECOLOR, ColorSystem.EIGHT_BIT, ColorSystem.STANDARD, None])
@given(lines=st.lists(SEGMENTS, min_size=3, max_size=3))
def test_whole_lines_look_as_textual_draws_them(system: ColorSystem | None, lines: list[list[Segment]]) -> None:
    console = console_of(system)
    strips = [Strip(line) for line in lines]
    update = ChopsUpdate(
        [{2: strip} for strip in strips],
        [(y, 2, 2 + strip.cell_length) for y, strip in enumerate(strips)],
        [[2 + strip.cell_length] for strip in strips],
    )
    assert picture(_render_segments(update, console)) == picture(theirs(update, console))


def test_a_cell_that_changed_is_sent_alone() -> None:
    console = console_of(ColorSystem.TRUECOLOR)
    strip = Strip([Segment("x" * 50, Style(color="#ff0000"))])
    update = ChopsUpdate([{0: strip}], [(0, 30, 32)], [[50]])
    assert picture(_render_segments(update, console))[0][29:33] == picture("\x1b[1;31H\x1b[38;2;255;0;0mxx")[0][29:33]
    assert _render_segments(update, console).count("x") == 2


@given(SEGMENTS, st.integers(0, 30), st.integers(1, 30))
def test_a_span_leaves_everything_outside_it_alone(line: list[Segment], left: int, length: int) -> None:
    console = console_of(ColorSystem.TRUECOLOR)
    strip = Strip(line)
    update = ChopsUpdate([{0: strip}], [(0, left, left + length)], [[strip.cell_length]])
    drawn = picture("." * 60 + _render_segments(update, console))[0]
    whole = picture("\x1b[1;1H" + strip.render(console))[0]
    for x in range(60):
        inside = left <= x < min(left + length, strip.cell_length)
        assert drawn[x][0] == (whole[x][0] if inside else ".")
