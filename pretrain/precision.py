"""Whether matrix products in bfloat16 are of use where a training computes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

from pretrain.layers import say_once

SIDE = 512  # of the matrices that are multiplied: large enough that their product is what takes the time
TRIES = 5
SLOWER = 1.5  # times as long, from which it is said


def tell_if_slow(precision: str, device: torch.device) -> None:
    """Say once, in a line on stderr, if bfloat16 is asked for on a CPU that computes it more slowly than float32."""
    if precision != "bfloat16" or device.type != "cpu":
        return
    times = times_as_long()
    if times > SLOWER:
        say_once(
            f"matrix products in bfloat16 take {times:.1f} times as long as in float32 on this CPU:"
            " leave --precision, or products of GradientEstimator, at float32"
        )


@cache
def times_as_long(clock: Callable[[], float] = time.perf_counter) -> float:
    """How many times as long a matrix product takes in bfloat16 as in float32 on this CPU; measured in milliseconds."""
    return _seconds(torch.bfloat16, clock) / max(1e-9, _seconds(torch.float32, clock))


@torch.no_grad()
def _seconds(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    matrix, least = torch.ones(SIDE, SIDE, dtype=dtype), float("inf")
    for _ in range(TRIES):  # the shortest: other processes only make it longer
        start = clock()
        torch.mm(matrix, matrix)
        least = min(least, clock() - start)
    return least
