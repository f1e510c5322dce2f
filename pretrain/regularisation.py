"""Early stopping, max-norm and the L1 penalty."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class EarlyStopping:
    """The epoch with the highest score so far and its weights (Prechelt 1998).

    With a `patience` of 0 or None nothing is kept, and training never stops early.
    """

    def __init__(self, patience: int | None) -> None:
        self.epoch = 0
        self.weights: dict[str, Tensor] = {}
        self._patience = patience or 0
        self._score: Any = None
        self._waited = 0

    @property
    def has_waited_enough(self) -> bool:
        """Whether the last `patience` scores were no better than the best one."""
        return 0 < self._patience <= self._waited

    def see(self, epoch: int, score: Any, model: nn.Module | None = None) -> None:
        """Take the score of an epoch, a number or a tuple; of a better one keep a copy of the model's weights."""
        if not self._patience:
            return
        if self._score is not None and not score > self._score:
            self._waited += 1
            return
        self._score, self.epoch, self._waited = score, epoch, 0
        if model is not None:
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}

    def restore(self, model: nn.Module) -> None:
        """Load the best weights into the model, if any were kept."""
        if self.weights:
            model.load_state_dict(self.weights)


@torch.no_grad()
def limit_norms(weights: Iterable[Tensor], max_norm: float) -> None:
    """Scale each row, a unit's incoming weights, down to a norm of `max_norm` (Srivastava et al. 2014, section 5.1)."""
    for weight in weights:
        weight.renorm_(2, 0, max_norm)


@torch.no_grad()
def add_l1(weights: Iterable[Tensor], amount: float) -> None:
    """Add the gradient of `amount`·Σ|w|, `amount`·sign(w), to `.grad`."""
    for weight in weights:
        if weight.grad is not None:
            weight.grad.add_(weight.sign(), alpha=amount)
