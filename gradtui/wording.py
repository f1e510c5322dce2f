"""Numbers and lists as people say them. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST_NAMES = 4


def factor(times: float) -> str:
    """A factor as people say it: `95,000×`, `120×`, `4.2×`."""
    if times >= 1e9:
        return f"{times:.0e}×"
    if times >= 10:
        digits = 10 ** max(0, math.floor(math.log10(times)) - 1)
        return f"{round(times / digits) * digits:,.0f}×"
    return f"{times:.1f}×"


def listed(names: Sequence[str]) -> str:
    """The first four, and how many more there are."""
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def percent(share: float) -> str:
    """A share: `93 %`, `0.4 %`."""
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1g} %"
