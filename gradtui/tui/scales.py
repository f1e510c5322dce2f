"""Numbers to bars and to short text: scales, eighth blocks, NaN and infinity. Pure functions, no drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass

EIGHTHS = " ▏▎▍▌▋▊▉█"  # a cell filled from the left, in eighths
RISING = " ▁▂▃▄▅▆▇█"  # a cell filled from the bottom, in eighths
LEAST_DECADES = 3  # so that layers that learn alike do not look different
MOST_DECADES = 14  # so that one layer at 1e-30 does not flatten the others


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`; both are powers of ten if `log`, otherwise `low` is 0."""

    low: float
    high: float
    log: bool

    def fraction(self, value: float) -> float:
        """Where a value lies on the axis, from 0 to 1; infinity is 1, NaN and what lies below the axis is 0."""
        if math.isnan(value) or value <= 0:
            return 0.0
        if math.isinf(value):
            return 1.0
        if not self.log:
            return min(1.0, value / self.high)
        span = math.log10(self.high) - math.log10(self.low)
        return min(1.0, max(0.0, (math.log10(value) - math.log10(self.low)) / span))

    def label(self) -> str:
        """The axis in words, e.g. `log 1e-06 … 1`."""
        return f"{'log' if self.log else 'linear'} {short(self.low)} … {short(self.high)}"


def choose_scale(values: list[float], log: bool, current: Scale | None = None) -> Scale:
    """An axis that holds the finite positive values, and stays as it is for as long as it fits well enough."""
    finite = [value for value in values if 0 < value < math.inf]
    if not finite:
        return current if current is not None and current.log == log else Scale(1e-3 if log else 0.0, 1.0, log)
    if not log:
        high = max(finite)
        if current is not None and not current.log and high <= current.high <= 4 * high:
            return current
        return Scale(0.0, _round_up(high), False)
    top = math.floor(math.log10(max(finite))) + 1
    # a tenth of a decade of air, so that the shortest bar can still be seen
    bottom = math.floor(math.log10(min(finite)) - 0.1)
    if current is not None and current.log:
        old_bottom, old_top = round(math.log10(current.low)), round(math.log10(current.high))
        # hold still: an axis that jumps with every step says nothing about change
        if top <= old_top <= top + 1:
            top = old_top
        if bottom - 1 <= old_bottom <= bottom:
            bottom = old_bottom
    bottom = max(min(bottom, top - LEAST_DECADES), top - MOST_DECADES, -44)
    return Scale(10.0**bottom, 10.0**top, True)


def bar(fraction: float, width: int) -> str:
    """A bar over `width` cells, in eighths of a cell; a fraction above 0 shows at least one eighth."""
    eighths = round(fraction * width * 8)
    if fraction > 0:
        eighths = max(1, eighths)
    whole, rest = divmod(min(eighths, width * 8), 8)
    return ("█" * whole + (EIGHTHS[rest] if rest else "")).ljust(width)


def column(fraction: float, height: int) -> list[str]:
    """A vertical bar over `height` cells, top cell first, in eighths of a cell."""
    eighths = round(min(1.0, max(0.0, fraction)) * height * 8)
    if fraction > 0:
        eighths = max(1, eighths)
    return [RISING[min(8, max(0, eighths - 8 * level))] for level in reversed(range(height))]


def number(value: float | None) -> str:
    """A measure in at most eight cells, e.g. `0.0118`, `3.0e-06`, `NaN`, `∞`; — where nothing was measured."""
    if value is None:
        return "—"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{min(digits, 5)}f}"
    return f"{value:.1e}"


def ratio(value: float | None, whole: float) -> str:
    """A value as a share of another, in at most seven cells, e.g. `×0.24`, `×6e-05`."""
    if value is None or not math.isfinite(value) or not math.isfinite(whole) or whole <= 0:
        return ""
    share = value / whole
    if share >= 0.995:
        return f"×{share:.2f}" if share < 1000 else f"×{share:.0e}"
    return f"×{share:.2f}" if share >= 0.01 else f"×{share:.0e}" if share > 0 else "×0"


def trend(value: float | None, before: float | None) -> str:
    """What became of a value within the last second: ↑, ↓ (by more than 2 %), or nothing."""
    if value is None or before is None or not (math.isfinite(value) and math.isfinite(before)):
        return " "
    if value > before * 1.02:
        return "↑"
    return "↓" if value < before * 0.98 else " "


def short(value: float) -> str:
    """A round number as on an axis: `0`, `0.01`, `1`, `1e-06`."""
    if value == 0:
        return "0"
    return f"{value:g}" if 1e-3 <= value < 1e4 else f"{value:.0e}"


def _round_up(value: float) -> float:
    magnitude: float = 10.0 ** math.floor(math.log10(value))
    return next(step * magnitude for step in (1, 2, 5, 10) if value <= step * magnitude * 1.000001)
