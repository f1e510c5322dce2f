"""The gradient as it comes back through time: one bar a time step of a recurrent net."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType

from gradtui.tui import bindings
from gradtui.tui.scales import number
from gradtui.tui.screens.detail import DetailScreen, RunControls
from gradtui.tui.text import clean
from gradtui.tui.widgets.bars import BarRows

if TYPE_CHECKING:
    from gradtui.view import Snapshot


class ThroughTimeScreen(DetailScreen):
    """‖∂C/∂h_t‖ for every time step t, or ‖∂C/∂c_t‖ of an LSTM's carried state."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings.ALWAYS,
        *bindings.bracket_keys("state", "state", "the state before: h1, c1, …", "the next state"),
        *bindings.TIME,
        bindings.LOG_AXIS,
        bindings.back("t"),
    ]

    def __init__(self, run: RunControls) -> None:
        super().__init__(run)
        self._state = 0

    def draw(self, snapshot: Snapshot) -> None:
        """Draw one bar a time step."""
        if not snapshot.through_time:
            return
        index = min(self._state, len(snapshot.through_time) - 1)
        state, norms = snapshot.through_time[index]
        name, count = clean(state), len(norms)
        self.bars.set_title(f"Gradient through time  ‖∂C/∂{name}(t)‖")
        self.bars.show(
            BarRows(
                tuple(range(1, count + 1)),
                ("",) * count,
                ("",) * count,
                norms,
                colours=(index, max(2, len(snapshot.through_time))),
            )
        )
        self.say(f"{describe_decay(name, norms)}   at step {snapshot.through_time_step:,}")

    def action_state(self, by: int) -> None:
        """Show another state."""
        if self._snapshot is not None and self._snapshot.through_time:
            self._state = (self._state + by) % len(self._snapshot.through_time)
            self.show(self._snapshot)


def describe_decay(state: str, norms: tuple[float, ...]) -> str:
    """How much of the gradient at the last time step arrives at the first."""
    first, last = norms[0], norms[-1]
    if not (math.isfinite(first) and math.isfinite(last)):
        return f"the gradient is not finite: {number(first)} at the first time step, {number(last)} at the last"
    if first == 0 or last == 0:
        return f"{number(first)} at the first time step, {number(last)} at the last: what is exactly 0 teaches nothing"
    share = first / last
    if 0.1 <= share <= 10:
        return f"level: the first of {len(norms)} time steps has {share:.2g} of the last one's gradient"
    return f"the first of {len(norms)} time steps has {share:.1e} of the last one's gradient"
