"""What every layer owes to those who use it: inputs that it can learn from, and its weights as plain modules."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pretrain.errors import DataError


def check_inputs(x: Tensor, inputs: int, who: str, bounded: str = "") -> None:
    """Raises `DataError` for anything but [n, inputs] of finite numbers; in [0, 1] where `bounded` says why."""
    if x.ndim != 2 or x.shape[1] != inputs:
        raise DataError(f"the {who} takes [n, {inputs}], not {list(x.shape)}")
    if not len(x):
        raise DataError("the data set is empty: there is nothing to learn from")
    low, high = x.min().item(), x.max().item()  # NaN if there is one; waits for the device
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError("the data hold NaN or infinite values: leave those rows out or fill them in")
    if bounded and not 0 <= low <= high <= 1:
        raise DataError(f"the data lie in [{low:g}, {high:g}], but {bounded}")


def plain_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with copies of `weight` [outputs, inputs] and `bias` [outputs]."""
    with torch.random.fork_rng(devices=[]):  # torch's own start, which is overwritten, draws from the global generator
        linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return linear
