"""When to measure: each k-th step, or as often as a share of the time allows."""

from __future__ import annotations

import math

from gradtui.options import RecordOptions

ACTIVATIONS_SHARE = 0.25  # of the budget that sampled activations may cost
DIAGNOSIS_SHARE = 0.1  # of it that the diagnosis may cost
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

    With `every` a step is measured whose number is 1 more than a multiple of it.
    """

    def __init__(self, options: RecordOptions) -> None:
        self.every = options.every
        self.update_every = options.update_every
        budget = options.budget
        shared = ACTIVATIONS_SHARE + DIAGNOSIS_SHARE
        self.rows = Budget(budget * (1.0 - shared) if options.every is None else budget)
        self.updates = Budget(budget * (1.0 - DIAGNOSIS_SHARE))
        self.activations = Budget(budget * ACTIVATIONS_SHARE)
        self.neurons_at = -math.inf
        self._last_update = -math.inf

    def due(self, step: int, now: float) -> bool:
        """True if step number `step` (the first is 1) is to be measured; `now` in seconds."""
        return now >= self.rows.next_at if self.every is None else (step - 1) % self.every == 0

    def update_due(self, step: int, now: float) -> bool:
        """True if a measured step should have the costly measures too."""
        if step == self._last_update:
            return True  # asked again for a step whose gradients were taken twice
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
