"""The likelihood of data under an RBM: the partition function, exactly or by annealed importance sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from pretrain.conditionals import Conditionals
from pretrain.rbm import RBM

MOST_UNITS = 25  # of the smaller side: 2^25 configurations take half a minute
BLOCK = 1 << 14  # configurations at a time


@dataclass(frozen=True)
class LogZ:
    """An estimate of log Z with its interval of three standard errors (Salakhutdinov & Murray 2008, section 4.1).

    `deviation` is the standard deviation of the chains' log weights: above 1 or 2 the interval is not reliable.
    """

    log_z: float
    low: float
    high: float
    deviation: float


@torch.no_grad()
def exact_log_z(rbm: RBM) -> float:
    """log Z by enumeration, in float64; raises `ValueError` if the side to enumerate has over 25 units.

    Of RBMs with Bernoulli units alone the smaller side is enumerated; of those with rectified hidden units the
    visible side, else the hidden side.
    """
    conditionals = rbm.conditionals().double()
    bits_only = rbm.log_variance is None and not rbm.groups
    if conditionals.rectified and not bits_only:
        raise ValueError("log Z of rectified hidden units can be enumerated for Bernoulli visible units alone")
    hidden = not conditionals.rectified and (not bits_only or rbm.outputs <= rbm.inputs)
    count = rbm.outputs if hidden else rbm.inputs
    if count > MOST_UNITS:
        raise ValueError(
            f"{count} units have too many configurations: log Z can be enumerated for up to {MOST_UNITS} units"
        )
    total = torch.tensor(-math.inf, dtype=torch.float64)
    for start in range(0, 1 << count, BLOCK):
        numbers = torch.arange(start, min(start + BLOCK, 1 << count))
        bits = ((numbers[:, None] >> torch.arange(count)) & 1).double()
        logs = conditionals.visible_log_sum(bits) if hidden else -conditionals.free_energy(bits)
        total = torch.logaddexp(total, torch.logsumexp(logs, dim=0))
    return float(total)


@torch.no_grad()
def log_probability(rbm: RBM, v: Tensor, log_z: float) -> Tensor:
    """log p(v) [batch] in nats; of Gaussian units the density."""
    return -rbm.conditionals().double().free_energy(v.double()) - log_z


class Path:
    """The RBMs between one without weights and `rbm`: at β the hidden units receive β times their input.

    The visible biases go from `base` [inputs] to the RBM's own; without `base`, and for Gaussian units always, they
    are the RBM's own throughout. Raises `ValueError` for rectified hidden units and for inverse temperatures `betas`
    that do not grow from 0 to 1; without any they are `default_betas`.
    """

    def __init__(self, rbm: RBM, betas: Sequence[float] | None, base: Tensor | None) -> None:
        self.conditionals = rbm.conditionals()
        if self.conditionals.rectified:
            raise ValueError("annealing needs Bernoulli hidden units: rectified ones have no sum in closed form")
        self.betas = default_betas() if betas is None else list(betas)
        rising = all(a < b for a, b in pairwise(self.betas))
        if len(self.betas) < 2 or self.betas[0] != 0 or self.betas[-1] != 1 or not rising:
            raise ValueError("the inverse temperatures must grow from 0 to 1")
        own = rbm.visible_bias
        self._base = own if base is None or rbm.log_variance is not None else base.to(own)

    def at(self, beta: float) -> Conditionals:
        """The RBM with the visible biases of β."""
        return replace(self.conditionals, visible_bias=self._base.lerp(self.conditionals.visible_bias, beta))

    def log_weightless(self) -> float:
        """log Z where β is 0."""
        start = self.at(0.0).double()
        off = start.bias.new_zeros(1, len(start.bias))
        return float(start.visible_log_sum(off)) + len(start.bias) * math.log(2)

    def log_p(self, v: Tensor, field: Tensor, beta: float) -> Tensor:
        """log p*_β(v) [chains], the hidden units summed out; `field` is what they receive from v at β = 1."""
        return self.conditionals.hidden_log_sum(field, beta).double() - self.at(beta).own_energy(v).double()

    def step(self, field: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
        """v after a step of Gibbs sampling at β from a v of this field."""
        conditionals = self.at(beta)
        tempered = beta * field
        h = conditionals.hidden_sample(tempered, torch.sigmoid(tempered), generator)
        return conditionals.visible_sample(conditionals.visible_mean(conditionals.visible_field(beta * h)), generator)


@torch.no_grad()
def annealed_log_z(
    rbm: RBM,
    *,
    chains: int = 100,
    betas: Sequence[float] | None = None,
    base: Tensor | None = None,
    generator: torch.Generator | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> LogZ:
    """log Z by annealed importance sampling (Salakhutdinov & Murray 2008, section 4.1); on average it is too low.

    `base`, `betas` and errors as in `Path`; the log odds of the pixels' means are a good `base`. `on_step`
    gets the number of the step and of all steps.
    """
    path = Path(rbm, betas, base)
    start = path.at(0.0)
    mean = start.visible_mean(start.visible_bias.expand(chains, -1))
    v = start.visible_sample(mean, generator)
    log_w = torch.zeros(chains, dtype=torch.float64, device=v.device)
    for number, (before, beta) in enumerate(pairwise(path.betas), 1):
        field = path.conditionals.hidden_field(v)
        log_w += path.log_p(v, field, beta) - path.log_p(v, field, before)
        v = path.step(field, beta, generator)
        if on_step is not None:
            on_step(number, len(path.betas) - 1)
    mean_w, low, high = _interval(log_w)
    base_z = path.log_weightless()
    return LogZ(base_z + mean_w, base_z + low, base_z + high, float(log_w.std()))


@torch.no_grad()
def reverse_annealed_log_z(
    rbm: RBM,
    v: Tensor,
    *,
    betas: Sequence[float] | None = None,
    base: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> LogZ:
    """log Z by annealing backwards from the RBM's own samples v [chains, inputs]; on average it is too high.

    With `annealed_log_z` it brackets log Z, as far as the samples are exact (Grosse, Ghahramani & Adams 2015, section
    3); chains that began at data and ran long stand in for those.
    """
    path = Path(rbm, betas, base)
    v = v.to(path.conditionals.bias)
    log_w = torch.zeros(len(v), dtype=torch.float64, device=v.device)
    for beta, before in pairwise(reversed(path.betas)):
        v = path.step(path.conditionals.hidden_field(v), beta, generator)
        field = path.conditionals.hidden_field(v)
        log_w += path.log_p(v, field, before) - path.log_p(v, field, beta)
    mean_w, low, high = _interval(log_w)
    base_z = path.log_weightless()
    return LogZ(base_z - mean_w, base_z - high, base_z - low, float(log_w.std()))


def _interval(log_w: Tensor) -> tuple[float, float, float]:
    """The log of the mean weight, and of that less and more three standard errors."""
    mean = torch.logsumexp(log_w, dim=0) - math.log(len(log_w))
    error = 3 * float(torch.exp(log_w - mean).std() / math.sqrt(len(log_w)))
    low = math.log(1 - error) if error < 1 else -math.inf
    return float(mean), float(mean) + low, float(mean) + math.log(1 + error)


def default_betas() -> list[float]:
    """14,500 inverse temperatures: 500 up to 0.5, 4,000 up to 0.9, 10,000 up to 1.

    Source: Salakhutdinov & Murray 2008, section 5.1.
    """
    stages = ((0.0, 0.5, 500, 0), (0.5, 0.9, 4_001, 1), (0.9, 1.0, 10_001, 1))
    return [b for low, high, count, skip in stages for b in np.linspace(low, high, count)[skip:].tolist()]


@torch.no_grad()
def pseudo_log_likelihood(rbm: RBM, v: Tensor) -> Tensor:
    """Σ_i log p(v_i | the other visible units) [batch], exactly, of Bernoulli visible units (Besag 1975).

    Raises `ValueError` for others.
    """
    if rbm.log_variance is not None or rbm.groups:
        raise ValueError("the pseudo-likelihood flips bits: it needs Bernoulli visible units")
    conditionals, v = rbm.conditionals().double(), v.double()
    field = conditionals.hidden_field(v)
    own = conditionals.hidden_log_sum(field)
    total = torch.zeros_like(own)
    for unit in range(rbm.inputs):
        change = 1 - 2 * v[:, unit]  # what flipping this bit adds to it
        flipped = conditionals.hidden_log_sum(torch.addr(field, change, conditionals.weight[:, unit]))
        total += F.logsigmoid(own - flipped - change * conditionals.visible_bias[unit])
    return total
