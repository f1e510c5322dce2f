"""Text from outside made safe to draw: no control characters, no surprises in width.

Names of layers, scripts and metrics, and lines of logs, pass through `clean` once, where they enter the UI; after
that they are plain strings, drawn without markup.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from gradtui.runfile import Measure

# Zero-width joiners, variation selectors and bidirectional controls make terminals disagree about width and order
_INVISIBLE = {"Cf", "Cs", "Co", "Cn"}
_VARIATION = range(0xFE00, 0xFE10)


def clean(text: str, limit: int = 400) -> str:
    """One line of printable text: control characters become visible pictures, invisible ones vanish."""
    return "".join(_clean_character(character) for character in str(text)[:limit])


def title_of(measure: Measure) -> str:
    """A measure as a heading, e.g. `Learning speed  ‖∂C/∂b‖`; one without a title goes by its name."""
    return f"{clean(measure.title or measure.name)}  {clean(measure.symbol)}"


def _clean_character(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return " " if character in "\t\n\r" else chr(0x2400 + code)
    if code < 0x7F:
        return character
    if code < 0xA0:
        return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
    if code in _VARIATION or unicodedata.category(character) in _INVISIBLE or unicodedata.combining(character):
        return ""
    return " " if unicodedata.category(character) in ("Zl", "Zp", "Zs") else character


def fit(text: str, width: int) -> str:
    """`text` in exactly `width` cells: padded, or shortened in the middle, where names differ least."""
    if width <= 0:
        return ""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    if width < 5:
        return set_cell_size(text, width)
    head = (width - 1 + 1) // 2
    tail = width - 1 - head
    return set_cell_size(text, head) + "…" + _last_cells(text, tail)


def fit_left(text: str, width: int) -> str:
    """`text` in exactly `width` cells, aligned to the right."""
    return fit(" " * (width - cell_len(text)) + text, width)


def _last_cells(text: str, width: int) -> str:
    kept = ""
    for character in reversed(text):
        if cell_len(character + kept) > width:
            break
        kept = character + kept
    return " " * (width - cell_len(kept)) + kept
