"""A filter that leaves only ASCII on the screen, cell for cell, for terminals and fonts that have nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_SAME_WIDTH = str.maketrans(
    {
        **dict.fromkeys("█▉▊▋▌▇▆▅▀▐▓▒■", "#"),
        **dict.fromkeys("▍▎▏▁▂▃▄░", "."),
        **dict.fromkeys("─━═╌╍┄┈▔", "-"),
        **dict.fromkeys("│┃║╎┆┊‖", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯╔╗╚╝╠╣╦╩╬┏┓┗┛", "+"),
        **dict.fromkeys("●○◉•◆▪", "*"),
        **dict.fromkeys("←◀◂", "<"),
        **dict.fromkeys("→▶▸❯", ">"),
        **dict.fromkeys("↑▲▴", "^"),
        **dict.fromkeys("↓▼▾", "v"),
        **dict.fromkeys("·…", "."),
        **dict.fromkeys("×✗✘", "x"),
        **dict.fromkeys("✔✓", "+"),
        **dict.fromkeys("—–", "-"),
        "∂": "d",
        "Δ": "D",
        "θ": "t",
        "η": "n",
        "λ": "l",
        "σ": "s",
        "÷": "/",
        "∞": "I",  # as in Inf
        "₂": "2",
        "²": "2",
    }
)


class AsciiFilter(LineFilter):
    """Replaces every character outside ASCII by one of the same width."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Filter one line."""
        return [
            segment if segment.text.isascii() else Segment(to_ascii(segment.text), segment.style, segment.control)
            for segment in segments
        ]


@lru_cache(4096)
def to_ascii(text: str) -> str:
    """`text` in ASCII, in the same number of cells; a braille cell becomes `.`, `:` or `#` by its dots."""
    return "".join(_character(character) for character in text.translate(_SAME_WIDTH))


def _character(character: str) -> str:
    if character.isascii():
        return character
    if "\u2800" <= character <= "\u28ff":
        dots = (ord(character) - 0x2800).bit_count()
        return " " if dots == 0 else "." if dots <= 2 else ":" if dots <= 5 else "#"
    return "?" * cell_len(character)


def wants_ascii(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the locale or the terminal says that only ASCII can be shown.

    A locale that is not set at all is taken for UTF-8, as in most containers.
    """
    kind = environment.get("LC_CTYPE")
    if environment.get("LANG") in ("C", "POSIX") and kind in ("C.UTF-8", "C.utf8", "UTF-8"):
        kind = None  # Python put it there itself when it met the C locale (PEP 538)
    locale = environment.get("LC_ALL") or kind or environment.get("LANG") or None
    if locale is not None and "utf" not in locale.lower():
        return True
    # the Linux console's font has full and half blocks, but neither eighths nor braille
    return environment.get("TERM", "") in ("linux", "vt100", "vt220", "ansi")
