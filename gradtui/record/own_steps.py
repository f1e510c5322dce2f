"""The steps of each optimizer by itself: how many there were, which were measured, and when the next one has to be.

A row of a run is a step of any of its optimizers. When one is due is asked of each optimizer's own steps: of two that
take turns, every second step of the training would be of the same one for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from gradtui.runfile.blocks import LAST_BIT
from gradtui.runfile.schema import Schedule

# whatever the budget says: no more of an optimizer's own steps pass without a row than this part of those so far, and
# without a look at its outputs. So a run that ends short has about 63 + 32 ln(steps/64) rows, and the share of the
# steps that are measured so goes to nothing as a run goes on.
ROWS_WITHIN, OUTPUTS_WITHIN = 1 / 32, 1 / 4
FULL_FLOORS = 8  # optimizers that have that; those after them are measured each time their steps have doubled
FLOORS = LAST_BIT - 1  # optimizers that have any of it: an inner loop may make a new one for each task
NEVER = 1 << 60  # steps: an integer, which is compared in half the time
PATIENCE = 256  # steps of others after which an optimizer counts as one that steps no more


class OwnSteps:
    """Those of one optimizer.

    Attributes:
        number: of the optimizer, in the order in which they came; 0 for many at once, and what stands in for them.
        steps: that it has taken.
        floor: the next one is to be measured, whatever the budget says, once so many have been taken.
        outputs_floor: the same of a sample of the outputs.
        row_at, update_at, outputs_at: which of them was the newest that had a row, the update ratio, outputs.
        neurons_at: when its neurons may be sampled again, by the clock.
        measured: how many of them had a row.
        last_row, last_outputs: the newest row that was written, and the newest with outputs, by the training's step.
        seen_at: the number of the training's step when this one was known to step.
        follower: who stepped after it the last time.
    """

    __slots__ = (
        "floor",
        "follower",
        "last_outputs",
        "last_row",
        "measured",
        "neurons_at",
        "number",
        "outputs_at",
        "outputs_floor",
        "row_at",
        "seen_at",
        "seen_steps",
        "steps",
        "update_at",
    )

    def __init__(self, number: int, seen_at: int = 0) -> None:
        self.number = number
        self.steps = self.row_at = self.update_at = self.outputs_at = 0
        self.floor = self.outputs_floor = 0 if number <= FLOORS else NEVER
        self.neurons_at = -math.inf
        self.measured = 0
        self.last_row: int | None = None
        self.last_outputs: int | None = None
        self.seen_at, self.seen_steps = seen_at, 0
        self.follower: OwnSteps | None = None

    def has_row(self) -> None:
        """The step that begins is measured."""
        self.row_at = self.steps + 1
        self.floor = self._after(self.row_at, ROWS_WITHIN)

    def has_outputs(self, row: int) -> None:
        """And its outputs have been sampled."""
        self.last_outputs = row
        self.outputs_at = self.steps + 1
        self.outputs_floor = self._after(self.outputs_at, OUTPUTS_WITHIN)

    def _after(self, step: int, within: float) -> int:
        if self.number > FLOORS:
            return NEVER
        # the gap ends with the step that is measured
        return step - 1 + max(1, int(step * (within if self.number <= FULL_FLOORS else 1)))

    def wrote(self, row: int) -> None:
        """A row was written."""
        self.measured, self.last_row = self.measured + 1, row

    def counts(self) -> Schedule:
        """What the run file says of it."""
        return Schedule(self.number, self.steps, self.measured, self.last_row, self.last_outputs)

    def see(self, now: int) -> None:
        """It has stepped, the training's newest step is number `now`."""
        self.seen_at, self.seen_steps = now, self.steps

    def is_there(self, now: int) -> bool:
        """True unless it has not stepped for long: its part of the training may be over."""
        return now - self.seen_at <= PATIENCE

    def lag(self, at: str) -> int:
        """How many of its own steps it has taken since the newest that had what `at` says, e.g. "row_at"."""
        return self.steps - int(getattr(self, at))


def goes_first(one: OwnSteps, others: Iterable[OwnSteps], at: str, now: int) -> bool:
    """True if of those that step its last sample is longest ago, in steps of its own; it is about to step."""
    mine = one.lag(at) + 1
    return all(other is one or other.lag(at) <= mine or not other.is_there(now) for other in others)
