"""Checks of inputs, and plain linear layers, for every kind of layer."""

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
        raise DataError("the data set is empty")
    low, high = x.min().item(), x.max().item()  # NaN if there is one; waits for the device
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError("the data hold NaN or infinite values: remove those rows or replace the values")
    if bounded and not 0 <= low <= high <= 1:
        raise DataError(f"the data lie in [{low:g}, {high:g}], but {bounded}")


def plain_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with copies of `weight` [outputs, inputs] and `bias` [outputs]."""
    with torch.random.fork_rng(devices=[]):  # torch's own first weights, overwritten here, use the global generator
        linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return linear
