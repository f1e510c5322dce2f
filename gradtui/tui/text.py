"""Text from outside made safe to draw: no control characters, no surprises in width.

Names of layers, scripts and metrics, and lines of logs, pass through `clean` once, where they enter the UI; after
that they are plain strings, drawn without markup.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from gradtui.format import printable

if TYPE_CHECKING:
    from gradtui.runfile import Measure

_VARIATION = range(0xFE00, 0xFE10)  # variation selectors, which make terminals disagree about width


def clean(text: str, limit: int = 400) -> str:
    """One line of printable text, as `printable` gives it, and without marks that are drawn over others."""
    shown = printable(str(text)[:limit])
    return shown if shown.isascii() else "".join(character for character in shown if not _is_drawn_over(character))


def title_of(measure: Measure) -> str:
    """A measure as a heading, e.g. `Learning speed  ‖∂C/∂b‖`; one without a title goes by its name."""
    return f"{clean(measure.title or measure.name)}  {clean(measure.symbol)}"


def _is_drawn_over(character: str) -> bool:
    return ord(character) in _VARIATION or bool(unicodedata.combining(character))


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
