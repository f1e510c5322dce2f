"""BatchSampler over the examples in random order, which can be stopped and continued between any two steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

MOST_FRESH = 1000  # errors that may stay on the device, so that not every step synchronises


class BatchSampler:
    """Draws batches; knows the next epoch and its next step, both from 0, and the errors of this epoch so far."""

    def __init__(self, count: int, batch_size: int, generator: torch.Generator) -> None:
        if batch_size < 1:
            raise ValueError(f"a batch must have at least 1 example, not {batch_size}")
        self.steps = math.ceil(count / batch_size)  # an epoch
        self.epoch = self.step = 0
        self._count, self._batch_size, self._generator = count, batch_size, generator
        self._sum = 0.0
        # errors not yet in the sum, on their device, and how many examples each is of
        self._fresh: Tensor | None = None
        self._examples: list[int] = []
        self._epoch_start = generator.get_state()

    @property
    def done(self) -> int:
        """The number of steps taken so far."""
        return self.epoch * self.steps + self.step

    def batches(self) -> Iterator[Tensor]:
        """The indices [batch] of each batch that is left of this epoch; call `count_step` after each."""
        if self.step:
            # the order of this epoch is drawn again from where the generator stood when it began
            now = self._generator.get_state()
            self._generator.set_state(self._epoch_start)
            order = self._draw()
            self._generator.set_state(now)
        else:
            self._epoch_start = self._generator.get_state()
            order = self._draw()
        for start in range(self.step * self._batch_size, self._count, self._batch_size):
            yield order[start : start + self._batch_size]

    def count_step(self, error: Tensor, examples: int) -> None:
        """Count a step; `error` [] is the mean over its examples."""
        self.step += 1
        if self._fresh is None:
            self._fresh = torch.empty(MOST_FRESH, dtype=error.dtype, device=error.device)
        # copied: small tensors kept between the large ones of each step would fragment the memory
        self._fresh[len(self._examples)] = error
        self._examples.append(examples)
        if len(self._examples) == MOST_FRESH:
            self._add_up()

    def end_epoch(self) -> float:
        """Start the next epoch; returns the mean error of the last one."""
        self._add_up()
        mean = self._sum / self._count
        self.epoch, self.step, self._sum = self.epoch + 1, 0, 0.0
        return mean

    def state(self) -> dict[str, Any]:
        """The state to continue from."""
        self._add_up()
        return {
            "epoch": self.epoch,
            "step": self.step,
            "sum": self._sum,
            "epoch_start": self._epoch_start,
            "generator": self._generator.get_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned, the generator included."""
        self._examples.clear()
        self.epoch, self.step, self._sum = state["epoch"], state["step"], state["sum"]
        self._epoch_start = state["epoch_start"]
        self._generator.set_state(state["generator"])

    def _add_up(self) -> None:
        if self._fresh is not None:
            errors = self._fresh[: len(self._examples)].tolist()  # waits for the device
            for error, examples in zip(errors, self._examples, strict=True):
                self._sum += error * examples
            self._examples.clear()

    def _draw(self) -> Tensor:
        return torch.randperm(self._count, generator=self._generator, device=self._generator.device).cpu()
