"""When to measure: each k-th step, or as often as a share of the time allows."""

from __future__ import annotations

import math

ACTIVATIONS_SHARE = 0.25  # of the budget that sampled activations may cost
NEURONS_EVERY = 0.25  # s between samples of the neurons


class Budget:
    """Keeps a cost below a share of the time: what cost c seconds is not done again for c/share seconds."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.next_at = -math.inf

    def spent(self, cost: float, now: float) -> None:
        """Note that something cost `cost` seconds and ended at `now`."""
        # what was spent before its time was up is still owed
        owed_until = self.next_at if now < self.next_at < math.inf else now
        self.next_at = owed_until + cost / self.share


class Sampling:
    """Which steps are measured, and on which of those the costly measures are taken too.

    Args:
        every: measure each step whose number is 1 more than a multiple of this; None leaves it to the budget.
        budget: the share of the time that recording may cost, e.g. 0.01.
        update_every: take ‖θ‖ and the update ratio each so many steps; None leaves them to the budget.
    """

    def __init__(self, every: int | None, budget: float, update_every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every is {every}: give a number of steps, 1 or more, or None")
        if update_every is not None and update_every < 1:
            raise ValueError(f"update_every is {update_every}: give a number of steps, 1 or more, or None")
        if not 0 < budget <= 1:
            raise ValueError(f"budget is {budget}: give a share of the time, e.g. 0.01")
        self.every = every
        self.update_every = update_every
        self.budget = budget
        self.rows = Budget(budget * (1.0 - ACTIVATIONS_SHARE) if every is None else budget)
        self.updates = Budget(budget)
        self.activations = Budget(budget * ACTIVATIONS_SHARE)
        self.neurons_at = -math.inf
        self._last_update = -math.inf

    def due(self, step: int, now: float) -> bool:
        """True if step number `step` (the first is 1) should be measured; `now` in seconds."""
        return now >= self.rows.next_at if self.every is None else (step - 1) % self.every == 0

    def update_due(self, step: int, now: float) -> bool:
        """True if a measured step should have the costly measures too."""
        if self.update_every is not None:
            taken = step - self._last_update >= self.update_every
        elif self.every is None:
            taken = True
        else:
            taken = now >= self.updates.next_at
        if taken:
            self._last_update = step
        return taken

    def wants(self, step: int, now: float) -> tuple[bool, bool]:
        """Whether the measured step that begins is to have the costly measures, and its neurons."""
        neurons = now >= self.neurons_at
        if neurons:
            self.neurons_at = now + NEURONS_EVERY
        return self.update_due(step, now), neurons

    def __str__(self) -> str:
        percent = f"within {100 * self.budget:g} % of the step time"
        if self.every is None:
            often = f"; update ratio every {self.update_every} steps" if self.update_every else ""
            return percent + often
        rows = "every step" if self.every == 1 else f"every {self.every} steps"
        if self.update_every is None:
            return f"{rows}; update ratio {percent}"
        return f"{rows}; update ratio every {self.update_every} steps"
