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
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from gradtui.tui.canvas import Canvas

WIDTH, HEIGHT = 60, 3
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
WIDE = st.lists(st.text("ab 名前", min_size=1, max_size=8).map(lambda text: Strip([Segment(text)])), max_size=8)


def console_of(system: ColorSystem | None) -> Console:
    console = Console()
    console._color_system = system
    return console


def picture(data: str) -> list[list[tuple[object, ...]]]:
    screen = pyte.Screen(WIDTH, HEIGHT)
    pyte.Stream(screen).feed(data)
    return [
        [
            (c.data, c.fg, c.bg, c.bold, c.italics, c.reverse, c.underscore)
            for c in (screen.buffer[y][x] for x in range(WIDTH))
        ]
        for y in range(HEIGHT)
    ]


def chops(strip: Strip, y: int, x: int, left: int, right: int) -> ChopsUpdate:
    """One line at column `x`, of which the columns from `left` to `right` changed."""
    lines = [{x: strip} if row == y else {} for row in range(HEIGHT)]
    return ChopsUpdate(lines, [(y, left, right)], [[x + strip.cell_length]] * HEIGHT)


@pytest.mark.parametrize("system", [ColorSystem.TRUECOLOR, ColorSystem.EIGHT_BIT, ColorSystem.STANDARD, None])
@given(lines=st.lists(SEGMENTS, min_size=3, max_size=3))
def test_whole_lines_look_as_textual_draws_them(system: ColorSystem | None, lines: list[list[Segment]]) -> None:
    console = console_of(system)
    strips = [Strip(line) for line in lines]
    by_spans = ChopsUpdate(
        [{2: strip} for strip in strips],
        [(y, 2, 2 + strip.cell_length) for y, strip in enumerate(strips)],
        [[2 + strip.cell_length] for strip in strips],
    )
    by_layout = LayoutUpdate([[strip] for strip in strips], Region(2, 0, WIDTH - 2, HEIGHT))
    for update in (by_spans, by_layout):
        canvas = Canvas(WIDTH, HEIGHT)
        canvas.draw(update, console)
        assert picture(canvas.changes(1 << 20)) == picture(update.render_segments(console))
        assert not canvas.unsent


def test_only_the_cells_that_changed_are_sent() -> None:
    console = console_of(ColorSystem.TRUECOLOR)
    canvas = Canvas(WIDTH, HEIGHT)
    canvas.draw(chops(Strip([Segment("x" * 50)]), 0, 0, 0, 50), console)
    canvas.changes(1 << 20)
    canvas.draw(chops(Strip([Segment("x" * 30 + "yy" + "x" * 18)]), 0, 0, 0, 50), console)
    sent = canvas.changes(1 << 20)
    assert sent.count("y") == 2 and "x" not in sent and "\x1b[1;31H" in sent
    canvas.draw(chops(Strip([Segment("x" * 30 + "yy" + "x" * 18)]), 0, 0, 0, 50), console)
    assert not canvas.unsent and canvas.changes(1 << 20) == ""
    canvas.forget()
    assert canvas.changes(1 << 20).count("x") == 48


@given(SEGMENTS, st.integers(0, 30), st.integers(1, 30))
def test_a_span_leaves_everything_outside_it_alone(line: list[Segment], left: int, length: int) -> None:
    console = console_of(ColorSystem.TRUECOLOR)
    strip = Strip(line)
    canvas = Canvas(WIDTH, HEIGHT)
    canvas.draw(chops(strip, 0, 0, left, left + length), console)
    drawn = picture("." * WIDTH + canvas.changes(1 << 20))[0]
    whole = picture("\x1b[1;1H" + strip.render(console))[0]
    for x in range(WIDTH):
        inside = left <= x < min(left + length, strip.cell_length)
        assert drawn[x][0] == (whole[x][0] if inside else ".")


@given(
    st.lists(st.tuples(SEGMENTS, st.integers(0, HEIGHT - 1), st.integers(0, 30)), min_size=1, max_size=8),
    st.integers(1, 80),
    st.integers(0, 3),
)
def test_pieces_of_any_size_end_in_the_newest_picture(
    lines: list[tuple[list[Segment], int, int]], most: int, pieces_between: int
) -> None:
    console = console_of(ColorSystem.TRUECOLOR)
    canvas, at_once = Canvas(WIDTH, HEIGHT), ""
    sent = ""
    for segments, y, left in lines:
        x = min(left, WIDTH - Strip(segments).cell_length)  # Textual draws nothing beside the screen
        update = chops(Strip(segments), y, x, x, x + Strip(segments).cell_length)
        canvas.draw(update, console)
        at_once += update.render_segments(console)
        for _ in range(pieces_between):
            sent += canvas.changes(most)
    while canvas.unsent:
        piece = canvas.changes(most)
        assert len(piece.encode()) <= most + 80, "no piece is much larger than asked for"
        sent += piece
    assert picture(sent) == picture(at_once)


@given(WIDE, st.lists(st.integers(0, 20), min_size=8, max_size=8), st.integers(1, 40))
def test_wide_characters_over_each_other_leave_no_halves(strips: list[Strip], places: list[int], most: int) -> None:
    console = console_of(None)
    canvas = Canvas(WIDTH, HEIGHT)
    sent, wanted = "", [" "] * WIDTH
    for strip, x in zip(strips, places, strict=False):
        canvas.draw(chops(strip, 0, x, x, x + strip.cell_length), console)
        sent += canvas.changes(most)
        cells = [part for text in strip.text for part in ((text, "") if text in "名前" else (text,))]
        for place, cell in enumerate(cells, x):
            wanted[place] = cell
        if x > 0 and wanted[x - 1] in ("名", "前"):
            wanted[x - 1] = " "
        if wanted[x + len(cells)] == "":
            wanted[x + len(cells)] = " "
    while canvas.unsent:
        sent += canvas.changes(most)
    assert [cell[0] for cell in picture(sent)[0]] == wanted
