"""Numbers to bars and text, against values worked out on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from gradtui.tui.ascii import to_ascii, wants_ascii
from gradtui.tui.braille import draw
from gradtui.tui.scales import Scale, bar, choose_scale, column, number, ratio, trend
from gradtui.tui.text import clean, fit, fit_left

POSITIVE = st.floats(1e-40, 1e30)


@pytest.mark.parametrize(
    ("fraction", "drawn"),
    [
        (0, "    "),
        (1, "████"),
        (0.5, "██  "),
        (1 / 32, "▏   "),
        (1e-9, "▏   "),
        (5 / 32, "▋   "),
        (9 / 32, "█▏  "),
        (31 / 32, "███▉"),
        (0.25, "█   "),
    ],
)
def test_a_bar_has_the_resolution_of_an_eighth_of_a_cell(fraction: float, drawn: str) -> None:
    assert bar(fraction, 4) == drawn


@given(st.floats(0, 1), st.integers(1, 200))
def test_a_bar_is_as_wide_as_asked_and_never_shrinks_as_the_value_grows(fraction: float, width: int) -> None:
    assert len(bar(fraction, width)) == width
    assert len(bar(fraction, width).rstrip()) <= len(bar(min(1.0, fraction + 0.1), width).rstrip())


def test_vertical_bars_fill_from_the_bottom() -> None:
    assert column(1, 3) == ["█", "█", "█"]
    assert column(0.5, 2) == [" ", "█"]
    assert column(0, 2) == [" ", " "]
    assert column(1e-6, 2) == [" ", "▁"]


def test_a_log_axis_gives_each_decade_the_same_room() -> None:
    scale = Scale(1e-4, 1.0, True)
    assert [scale.fraction(10.0**-k) for k in range(5)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert scale.fraction(0) == 0 and scale.fraction(math.nan) == 0 and scale.fraction(math.inf) == 1


@given(st.lists(POSITIVE, min_size=1, max_size=30))
def test_every_value_fits_its_axis_unless_it_is_fourteen_decades_below_the_largest(values: list[float]) -> None:
    scale = choose_scale(values, True)
    assert scale.high >= max(values) * 0.999999
    if math.log10(max(values) / min(values)) < 12:
        assert scale.low <= min(values) * 1.000001


@given(st.floats(1e-6, 1e3), st.floats(0.8, 1.2))
def test_an_axis_holds_still_while_values_move_a_little(value: float, factor: float) -> None:
    values = [value, value * 1e3]
    first = choose_scale(values, True)
    moved = choose_scale([v * factor for v in values], True, first)
    assert choose_scale(values, True, moved) == moved


def test_a_linear_axis_starts_at_zero_and_ends_at_a_round_number() -> None:
    assert choose_scale([0.03, 0.17], False) == Scale(0.0, 0.2, False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"), (math.nan, "NaN"), (math.inf, "∞"), (-math.inf, "-∞"), (0.0, "0"), (0.0118, "0.0118"),
        (0.283, "0.283"), (3e-6, "3.0e-06"), (1.5, "1.50"), (123.4, "123"), (12345.0, "1.2e+04"), (-3e-6, "-3.0e-06"),
    ],
)  # fmt: skip
def test_numbers_are_short_and_loud_where_they_must_be(value: float | None, text: str) -> None:
    assert number(value) == text


@given(st.one_of(st.none(), st.floats(width=32)), st.floats(0, 1e30))
def test_numbers_and_ratios_fit_their_columns(value: float | None, whole: float) -> None:
    assert len(number(value)) <= 8
    assert len(ratio(value, whole)) <= 8


def test_a_trend_is_a_change_of_more_than_two_percent() -> None:
    assert [trend(v, 1.0) for v in (1.01, 1.03, 0.97, math.nan, None)] == [" ", "↑", "↓", " ", " "]


@pytest.mark.parametrize(
    "name",
    ["[red]", "a[/b]", "\x1b[2J", "\x9b2J", "a\u202eb", "👩‍👩‍👧", "名前のとても長い層", "x" * 300, "a\nb\tc", "é"],
)
@pytest.mark.parametrize("width", [1, 2, 4, 5, 9, 20])
def test_names_from_outside_are_printable_and_exactly_as_wide_as_asked(name: str, width: int) -> None:
    shown = clean(name)
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    assert "\u202e" not in shown and "\u200d" not in shown
    assert cell_len(fit(shown, width)) == width
    assert cell_len(fit_left(shown, width)) == width


@given(st.text(), st.integers(0, 60))
def test_any_text_fits_any_width(text: str, width: int) -> None:
    shown = clean(text)
    assert shown.isprintable() or all(character.isprintable() for character in shown)
    assert cell_len(fit(shown, width)) == width


def test_a_long_name_keeps_its_ends() -> None:
    assert fit("encoder.layers.17.self_attn.out_proj", 16) == "encoder.…ut_proj"


@given(st.text())
def test_ascii_is_ascii_and_keeps_the_width(text: str) -> None:
    shown = clean(text)
    assert to_ascii(shown).isascii()
    assert len(to_ascii(shown)) == cell_len(shown)


def test_the_locale_and_the_terminal_decide_about_ascii() -> None:
    assert wants_ascii({"LANG": "C", "LC_CTYPE": "C.UTF-8"}), "as Python itself sets it"
    assert not wants_ascii({"LC_CTYPE": "UTF-8"})
    assert wants_ascii({"LANG": "C"}) and wants_ascii({"LANG": "de_DE.UTF-8", "LC_ALL": "POSIX"})
    assert not wants_ascii({"LANG": "en_US.UTF-8"}) and not wants_ascii({"LANG": "C.utf8"}) and not wants_ascii({})
    assert wants_ascii({"LANG": "en_US.UTF-8", "TERM": "linux"})


def test_on_a_log_axis_exact_zeros_run_along_the_floor_and_nan_is_left_out() -> None:
    steps = np.arange(40)
    values = np.full((40, 1), 1e-3)
    values[10:20] = 0.0
    values[30:] = np.nan
    values[0] = 1.0
    plot = draw(steps, values, 20, 4, log=True)
    assert (plot.low, plot.high) == (pytest.approx(1e-3), pytest.approx(1.0)), "zero is not on the axis"
    bottom = plot.rows[-1]
    assert all(character != " " for character in bottom[5:10]) and bottom[15:].isspace()
    assert draw(steps, np.zeros((40, 1)), 20, 4, log=True).rows == [" " * 20] * 4, "nothing to draw an axis by"
