"""Text from outside is shown as one line that cannot steer a terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradtui.errors import one_line, say_on_stderr
from gradtui.format import as_json, called, printable, shortened

ANY_TEXT = st.text(st.characters(codec=None, categories=None))  # lone surrogates among them


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fc1.weight", "fc1.weight"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("a\nb\tc\r\nd\x0be\u2028f", "a b c  d e f"),
        ("\x9b2J", "\N{REPLACEMENT CHARACTER}2J"),
        ("abc\u202etxt", "abctxt"),
        ("\udc80", "\N{REPLACEMENT CHARACTER}"),
        ("\x7f\x00", "␡␀"),
        ("層 é ∂C/∂b", "層 é ∂C/∂b"),
    ],
)
def test_what_text_becomes(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(ANY_TEXT, st.integers(1, 20))
def test_any_text_is_printable_and_stays_so(text: str, most: int) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode() and printable(shown) == shown if shown else True
    assert not any(unicodedata.category(character).startswith("C") for character in shown)
    assert len(printable(text, most)) <= most


@given(ANY_TEXT, st.integers(3, 30))
def test_a_long_text_keeps_its_ends(text: str, most: int) -> None:
    short = shortened(text, most)
    assert short == text if len(text) <= most else len(short) == most
    assert text.startswith(short[: most // 2]) and (len(text) <= most or text.endswith(short[most // 2 + 1 :]))


def test_a_name_of_ten_thousand_characters_is_short_in_a_sentence() -> None:
    assert len(called("x" * 10_000)) < 100


@given(st.dictionaries(ANY_TEXT, st.one_of(ANY_TEXT, st.floats(), st.integers(), st.none())))
def test_json_is_valid_ascii_without_control_characters(value: dict[str, object]) -> None:
    text = as_json(value)
    assert text.isascii() and text.isprintable()
    assert json.loads(text).keys() == value.keys()


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_errors_are_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert one_line(ValueError("\x1b[31mbad\x07\nsecond line")) == "ValueError: ␛[31mbad␇"
    assert one_line(UnspeakableError()) == "UnspeakableError"
    say_on_stderr("layer \x1b[2J\n\udcff is odd")
    assert capsys.readouterr().err == "gradtui: layer ␛[2J � is odd\n"
