"""When to measure: each k-th step of an optimizer, or as often as a share of the time allows."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

from gradtui.options import RecordOptions
from gradtui.record.own_steps import OwnSteps

ACTIVATIONS_SHARE = 0.25  # of the budget that sampled activations may cost
DIAGNOSIS_SHARE = 0.1  # of it that the diagnosis may cost
NEURONS_EVERY = 0.25  # s between samples of the neurons


# Windows counts the time of a thread in ticks of 16 ms
own_time: Callable[[], float] = time.perf_counter if sys.platform == "win32" else time.thread_time


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

    With `every` a step is measured whose number among those of its optimizer is 1 more than a multiple of it. The
    budget is one for all optimizers.
    """

    def __init__(self, options: RecordOptions) -> None:
        self.every = options.every
        self.update_every = options.update_every
        budget = options.budget
        shared = ACTIVATIONS_SHARE + DIAGNOSIS_SHARE
        self.rows = Budget(budget * (1.0 - shared) if options.every is None else budget)
        self.updates = Budget(budget * (1.0 - DIAGNOSIS_SHARE))
        self.activations = Budget(budget * ACTIVATIONS_SHARE)

    def due(self, own: OwnSteps, now: float) -> bool:
        """True if the next step of an optimizer is to be measured, if it is its turn; `now` in seconds."""
        return now >= self.rows.next_at if self.every is None else own.steps % self.every == 0

    def wants(self, own: OwnSteps, now: float, goes_first: Callable[[str], bool]) -> tuple[bool, bool]:
        """Whether the measured step that begins is to have the costly measures, and its neurons.

        `goes_first` tells whether it is this optimizer's turn.
        """
        neurons = now >= own.neurons_at
        if neurons:
            own.neurons_at = now + NEURONS_EVERY
        update = self._wants_update(own, now, goes_first)
        if update:
            own.update_at = own.steps + 1
        return update, neurons

    def _wants_update(self, own: OwnSteps, now: float, goes_first: Callable[[str], bool]) -> bool:
        if own.update_at == own.steps + 1:
            return True  # asked again for a step whose gradients were taken twice
        if self.update_every is not None:
            return not own.update_at or own.steps + 1 - own.update_at >= self.update_every
        return self.every is None or (now >= self.updates.next_at and goes_first("update_at"))
