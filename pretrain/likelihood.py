"""How likely a machine finds data: the partition function, exactly or by annealed importance sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from pretrain.rbm import RBM

MOST_UNITS = 25  # of the smaller side: 2^25 configurations take half a minute
BLOCK = 1 << 14  # configurations at a time


@dataclass(frozen=True)
class LogZ:
    """An estimate of log Z with its interval of three standard errors (Salakhutdinov & Murray 2008, section 4.1).

    `deviation` is the standard deviation of the chains' log weights: above 1 or 2 the interval is too good to be true.
    """

    log_z: float
    low: float
    high: float
    deviation: float


@torch.no_grad()
def exact_log_z(rbm: RBM) -> float:
    """log Z by enumeration, in float64; raises `ValueError` if the side that must be enumerated has over 25 units.

    Of Bernoulli machines the smaller side is enumerated, of Gaussian ones the hidden side.
    """
    gaussian = rbm.log_variance is not None
    hidden = gaussian or rbm.outputs <= rbm.inputs
    count = rbm.outputs if hidden else rbm.inputs
    if count > MOST_UNITS:
        raise ValueError(f"{count} units have too many configurations: log Z is exact up to {MOST_UNITS} of them")
    total = torch.tensor(-math.inf, dtype=torch.float64)
    for start in range(0, 1 << count, BLOCK):
        numbers = torch.arange(start, min(start + BLOCK, 1 << count))
        bits = ((numbers[:, None] >> torch.arange(count)) & 1).double()
        logs = _hidden_log_weight(rbm, bits) if hidden else -_free_energy(rbm, bits)
        total = torch.logaddexp(total, torch.logsumexp(logs, dim=0))
    return float(total)


@torch.no_grad()
def log_probability(rbm: RBM, v: Tensor, log_z: float) -> Tensor:
    """log p(v) [batch] in nats; of Gaussian units the density."""
    return -_free_energy(rbm, v.double()) - log_z


@torch.no_grad()
def annealed_log_z(
    rbm: RBM,
    *,
    chains: int = 100,
    betas: Sequence[float] | None = None,
    base: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> LogZ:
    """log Z by annealed importance sampling, of a Bernoulli machine (Salakhutdinov & Murray 2008, section 4.1).

    The path leads from a machine without weights, whose visible biases are `base` [inputs] (0 by default; the log odds
    of the pixels' means shorten the way), through `betas` from 0 to 1. Raises `ValueError` for a Gaussian machine and
    for betas that do not grow from 0 to 1.
    """
    if rbm.log_variance is not None:
        raise ValueError("annealing starts from a Bernoulli machine: a Gaussian one has no weightless twin here")
    path = default_betas() if betas is None else list(betas)
    if len(path) < 2 or path[0] != 0 or path[-1] != 1 or any(b <= a for a, b in pairwise(path)):
        raise ValueError("the inverse temperatures must grow from 0 to 1")
    weight, bias, own = (p.double() for p in (rbm.weight, rbm.bias, rbm.visible_bias))
    start = torch.zeros_like(own) if base is None else base.double()
    v = (torch.empty(chains, rbm.inputs, dtype=torch.float64).uniform_(generator=generator) < start.sigmoid()).double()

    def log_p(v: Tensor, beta: float) -> Tensor:
        """log p*_β(v) [chains] (equation 17, with the base machine's hidden units summed out)."""
        mixed = v @ ((1 - beta) * start + beta * own)
        field = beta * F.linear(v, weight, bias)
        return mixed + F.softplus(field).sum(1)

    log_w = torch.zeros(chains, dtype=torch.float64)
    for before, beta in pairwise(path):
        log_w += log_p(v, beta) - log_p(v, before)
        h = _flip(torch.sigmoid(beta * F.linear(v, weight, bias)), generator)
        v = _flip(torch.sigmoid((1 - beta) * start + beta * (h @ weight + own)), generator)
    log_base = float(F.softplus(start).sum()) + rbm.outputs * math.log(2)
    mean = torch.logsumexp(log_w, dim=0) - math.log(chains)
    # the standard error of the mean weight, over it
    error = float(torch.exp(log_w - mean).std() / math.sqrt(chains))
    low = math.log(1 - 3 * error) if 3 * error < 1 else -math.inf
    centre = log_base + float(mean)
    return LogZ(centre, centre + low, centre + math.log(1 + 3 * error), float(log_w.std()))


def default_betas() -> list[float]:
    """14,500 inverse temperatures: 500 up to 0.5, 4,000 up to 0.9, 10,000 up to 1.

    Source: Salakhutdinov & Murray 2008, section 5.1.
    """
    parts = ((0.0, 0.5, 500, 0), (0.5, 0.9, 4_001, 1), (0.9, 1.0, 10_001, 1))
    return [b for low, high, count, skip in parts for b in np.linspace(low, high, count)[skip:].tolist()]


@torch.no_grad()
def pseudo_log_likelihood(rbm: RBM, v: Tensor) -> Tensor:
    """Σ_i log p(v_i | the other visible units) [batch], exactly, of a Bernoulli machine (Besag 1975).

    Raises `ValueError` for a Gaussian machine.
    """
    if rbm.log_variance is not None:
        raise ValueError("the pseudo-likelihood flips bits: a Gaussian machine has none")
    v = v.double()
    own = _free_energy(rbm, v)
    total = torch.zeros(len(v), dtype=torch.float64)
    for unit in range(rbm.inputs):
        flipped = v.clone()
        flipped[:, unit] = 1 - flipped[:, unit]
        total += F.logsigmoid(_free_energy(rbm, flipped) - own)
    return total


def _free_energy(rbm: RBM, v: Tensor) -> Tensor:
    """F(v) in float64 [batch]."""
    weight, bias, own = (p.double() for p in (rbm.weight, rbm.bias, rbm.visible_bias))
    if rbm.log_variance is None:
        return -(v @ own) - F.softplus(F.linear(v, weight, bias)).sum(1)
    variance = rbm.log_variance.double().exp()
    quadratic = ((v - own) ** 2 / (2 * variance)).sum(1)
    return quadratic - F.softplus(F.linear(v / variance, weight, bias)).sum(1)


def _hidden_log_weight(rbm: RBM, h: Tensor) -> Tensor:
    """log Σ_v exp(−E(v, h)) [batch], an integral for Gaussian units."""
    weight, bias, own = (p.double() for p in (rbm.weight, rbm.bias, rbm.visible_bias))
    field = h @ weight
    if rbm.log_variance is None:
        return h @ bias + F.softplus(field + own).sum(1)
    log_variance = rbm.log_variance.double()
    # completing the square: ∫ exp(−(v − b)²/2σ² + v f/σ²) dv = √(2πσ²) exp((2 b f + f²)/2σ²)
    gained = ((2 * own * field + field**2) / (2 * log_variance.exp())).sum(1)
    return h @ bias + gained + 0.5 * (math.log(2 * math.pi) + log_variance).sum()


def _flip(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    draws = torch.empty_like(probabilities).uniform_(generator=generator)
    return (draws < probabilities).to(probabilities.dtype)
