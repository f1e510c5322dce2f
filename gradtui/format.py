"""Numbers and lists in words, and values as JSON takes them. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_NAMES = 4


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
    return f"layer {layer}" if layer.isdigit() else layer


def listed(names: Sequence[str]) -> str:
    """The first four layers, and how many more there are."""
    shown = ", ".join(called(name) for name in names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def hint(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """What somebody who typed `name` may have meant: the nearest of the known names, or all of them."""
    from difflib import get_close_matches  # of no use until something is misspelt

    known = list(known)
    near = get_close_matches(name, known, n=3)
    return f"did you mean {', '.join(near)}?" if near else otherwise or f"choose one of {', '.join(known)}"


def percent(share: float) -> str:
    """A share: `93 %`, `0.4 %`."""
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1g} %"


def plain(value: Any) -> Any:
    """A value as `json.dumps` takes it anywhere: what JSON has no word for (NaN, ∞) as the strings nan, inf, -inf."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value
