"""Initialisations: each fills the weight matrices of a net from one generator, so that a seed decides all of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

CHAIN_WEIGHT = 100.0
IDENTITY_DEVIATION = 0.001  # of the weights beside the recurrent ones (Le et al. 2015)
GATE_BIAS = -2.0  # highway gates start nearly shut (Srivastava et al. 2015)
LSUV_TOLERANCE = 0.01  # of the variance; Mishkin & Matas 2016 take 0.1
LSUV_MOST_ROUNDS = 10

Fill = Callable[[Tensor, torch.Generator], object]


def _fans(weight: Tensor) -> tuple[int, int]:
    fan_out, fan_in = weight.shape
    return fan_in, fan_out


def _normal(deviation: Callable[[int, int], float]) -> Fill:
    return lambda weight, generator: weight.normal_(0.0, deviation(*_fans(weight)), generator=generator)


def _uniform(bound: Callable[[int, int], float]) -> Fill:
    def fill(weight: Tensor, generator: torch.Generator) -> None:
        most = bound(*_fans(weight))
        weight.uniform_(-most, most, generator=generator)

    return fill


def _orthogonal(weight: Tensor, generator: torch.Generator) -> None:
    """Rows or columns orthonormal, whichever are fewer (Saxe et al. 2014)."""
    nn.init.orthogonal_(weight, generator=generator)


# the weights of a matrix [fan_out, fan_in]; sources stand in `remedies`
FILLS: dict[str, Fill] = {
    "scaled": _normal(lambda fan_in, fan_out: 1 / math.sqrt(fan_in)),
    "uniform": _uniform(lambda fan_in, fan_out: 1 / math.sqrt(fan_in)),
    "lecun": _normal(lambda fan_in, fan_out: 1 / math.sqrt(fan_in)),
    "xavier": _normal(lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
    "xavier-uniform": _uniform(lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out))),
    "he": _normal(lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
    "he-uniform": _uniform(lambda fan_in, fan_out: math.sqrt(6 / fan_in)),
    "orthogonal": _orthogonal,
    "lsuv": _orthogonal,
    "identity": _normal(lambda fan_in, fan_out: IDENTITY_DEVIATION),
}


@torch.no_grad()
def fill(weight: Tensor, bias: Tensor | None, init: str, sigma: float | None, generator: torch.Generator) -> None:
    """Fill the weights [fan_out, fan_in] and biases [fan_out] of one layer.

    The book's initialisations, `normal` and `scaled`, draw the biases too, from N(0, σ²) and N(0, 1); the others
    leave them at 0.
    """
    if init == "normal":
        _normal(lambda fan_in, fan_out: 1.0 if sigma is None else sigma)(weight, generator)
    else:
        FILLS[init](weight, generator)
    if bias is None:
        return
    if init in ("normal", "scaled"):
        bias.normal_(0.0, 1.0 if sigma is None else sigma, generator=generator)
    else:
        bias.zero_()


@torch.no_grad()
def fill_chain(weight: Tensor, bias: Tensor, incoming: float) -> None:
    """A weight of 100, and b = −w·a, which puts z at 0, where the sigmoid is steepest (Nielsen 2015, ch. 5)."""
    weight.fill_(CHAIN_WEIGHT)
    bias.fill_(-CHAIN_WEIGHT * incoming)


@torch.no_grad()
def fill_gates(
    weight: Tensor, gates: int, init: str, sigma: float | None, generator: torch.Generator, *, own: bool
) -> None:
    """Fill the matrix [gates · hidden, fan_in] of a recurrent cell, gate by gate; `own` weights lead from h to h."""
    for part in weight.chunk(gates):
        if init == "identity" and own:
            nn.init.eye_(part)
        else:
            fill(part, None, init, sigma, generator)


@torch.no_grad()
def scale_to_unit_variance(model: nn.Module, layers: list[nn.Module], images: Tensor) -> None:
    """LSUV: divide each layer's weights by the standard deviation of its outputs on `images`, first layer first.

    Source: Mishkin & Matas 2016, algorithm 1. A layer whose outputs do not vary stays as it is.
    """
    for layer in layers:
        seen: list[Tensor] = []
        handle = layer.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
        try:
            for _ in range(LSUV_MOST_ROUNDS):
                seen.clear()
                model(images)
                variance = float(seen[0].var())
                if not variance > 0 or abs(variance - 1) < LSUV_TOLERANCE:
                    break
                # of a factorised layer the last matrix is scaled
                weights = [p for name, p in layer.named_parameters() if name.endswith("weight")]
                weights[-1].div_(math.sqrt(variance))
        finally:
            handle.remove()
