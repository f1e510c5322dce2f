"""Numbers and lists in words, text from outside made safe to show, and values as JSON. Standard library only."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_NAMES = 4
LONGEST_NAME = 80  # characters of a layer's name in a sentence


def factor(times: float) -> str:
    """A factor as people say it: `95,000×`, `120×`, `4.2×`."""
    if times >= 1e9:
        return f"{times:.0e}×"
    if times >= 10:
        digits = 10 ** max(0, math.floor(math.log10(times)) - 1)
        return f"{round(times / digits) * digits:,.0f}×"
    return f"{times:.1f}×"


def multiple(times: float) -> str:
    """A ratio in a table: `3.4×`, `170×`, `4e+07×`; ∞ and NaN as they are."""
    if not math.isfinite(times):
        return "NaN" if math.isnan(times) else "∞"
    if times >= 1e4:
        return f"{times:.0e}×"
    return f"{times:.2g}×" if times < 100 else f"{float(f'{times:.2g}'):.0f}×"


def called(layer: str) -> str:
    """A layer in a sentence; those of an `nn.Sequential` are called by mere numbers."""
    return f"layer {layer}" if layer.isdigit() else shortened(layer, LONGEST_NAME)


def listed(names: Sequence[str]) -> str:
    """The first four layers, and how many more there are."""
    shown = ", ".join(called(name) for name in names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def hint(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """What somebody who typed `name` may have meant: the nearest of the known names, or all of them."""
    from difflib import get_close_matches  # of no use until something is misspelt

    known = list(known)
    near = get_close_matches(name[:80], known, n=3, cutoff=0.7)  # a far guess is worse than none
    return f"did you mean {', '.join(near)}?" if near else otherwise or f"choose one of {', '.join(known)}"


def percent(share: float) -> str:
    """A share: `93 %`, `0.4 %`."""
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1g} %"


def printable(text: str, most: int | None = None) -> str:
    """Text from outside (names, paths, commands, errors) as one line that cannot steer a terminal.

    White space becomes spaces, control characters their pictures (ESC: ␛), lone surrogates and what Unicode does not
    know �; invisible marks, those that turn the direction of text among them, go. Of a longer text the first `most`
    characters stay.
    """
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    return text if text.isprintable() else "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    if character.isprintable():
        return character
    if character.isspace():
        return " "
    code = ord(character)
    if code <= 0x7F:
        return "␡" if code == 0x7F else chr(0x2400 + code)
    import unicodedata  # of no use to most programs

    return "" if unicodedata.category(character) == "Cf" else "\N{REPLACEMENT CHARACTER}"


def shortened(text: str, most: int) -> str:
    """Text of at most so many characters: of a longer one the middle goes, where names differ least."""
    head = most // 2
    return text if len(text) <= most else f"{text[:head]}…{text[head + 1 - most :]}"


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON of ASCII characters that can be printed; NaN and ∞ as in `plain`."""
    # json escapes all control characters but DEL
    text = json.dumps(plain(value), indent=indent, ensure_ascii=True, allow_nan=False)
    return text.replace("\x7f", "\\u007f")


def plain(value: Any) -> Any:
    """A value as `json.dumps` takes it anywhere: what JSON has no word for (NaN, ∞) as the strings nan, inf, -inf."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value
