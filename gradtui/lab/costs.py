"""What is minimised, and what counts as right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from gradtui.lab.recipe import Recipe

Cost = Callable[[Tensor, Tensor], Tensor]  # of logits and targets
RIGHT_WITHIN = 0.04  # of the sum: what Hochreiter & Schmidhuber 1997 count as a sequence processed correctly


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed over the outputs, averaged over the images; the sigmoid is in it (Nielsen 2015, eq. 63)."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


def _quadratic(logits: Tensor, targets: Tensor) -> Tensor:
    """½‖y − σ(z)‖², averaged over the images (Nielsen 2015, eq. 6)."""
    return functional.mse_loss(torch.sigmoid(logits), targets, reduction="sum") / (2 * len(logits))


def _softmax_quadratic(logits: Tensor, targets: Tensor) -> Tensor:
    """½‖y − softmax(z)‖², averaged over the images."""
    return functional.mse_loss(logits.softmax(dim=1), targets, reduction="sum") / (2 * len(logits))


COSTS: dict[str, Cost] = {
    "cross-entropy": _cross_entropy,
    "softmax": functional.cross_entropy,
    "quadratic": _quadratic,
    "softmax-quadratic": _softmax_quadratic,
    "squared": functional.mse_loss,
}


def training_cost(recipe: Recipe) -> Cost:
    """What a recipe's training minimises; what it reports is the cost of `COSTS`."""
    if recipe.label_smoothing:
        return partial(functional.cross_entropy, label_smoothing=recipe.label_smoothing)
    return COSTS[recipe.cost]


def share_right(outputs: Tensor, wanted: Tensor) -> float:
    """The share that is right: the largest output at the label [n], or a number [n, 1] within 0.04."""
    if wanted.dim() == 2:
        return float(((outputs - wanted).abs() < RIGHT_WITHIN).double().mean())
    return float((outputs.argmax(dim=1) == wanted).double().mean())
