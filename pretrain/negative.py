"""The negative phase: the particles whose probability learning decreases, and the chains that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pretrain.choices import Method, Precision, check_choice
from pretrain.conditionals import Conditionals
from pretrain.errors import DataError
from pretrain.limits import check_burn_in, check_numbers
from pretrain.parallel import BatchShard, batch, current, current_shard
from pretrain.sampling import bernoulli, categorical, normal_like, uniform_like

_FAST = ("fast_weight", "fast_bias", "fast_visible_bias")
CHAIN_NAMES = ("chains", *_FAST)  # of what chains carry from step to step
FAST_DECAY = 0.95  # of the fast weights at each step (Tieleman & Hinton 2009, section 4: 19/20)


@dataclass(frozen=True)
class GradientEstimator:
    """How an RBM estimates its gradient, and the penalties added to it.

    `method`, with `steps` of Gibbs sampling each time:

    - cd: contrastive divergence, from the data (Hinton 2002);
    - pcd: persistent `chains`, which continue from batch to batch (Tieleman 2008);
    - fast-pcd: persistent chains, with fast weights that learn at `fast_rate` and decay (Tieleman & Hinton 2009);
    - tempering: `chains` of `temperatures` each, which swap states (parallel tempering, Desjardins et al. 2010);
    - noise: modified contrastive divergence, from noise, averaged over the steps after `burn_in` (Liao et al. 2022).

    `centred` uses the gradient of centred units (Melchior, Fischer & Wiskott 2016). `clip` bounds the norm of the whole
    gradient (Liao et al. 2022 use 10). `weight_cost` adds ½·`weight_cost`·‖W‖², `l1_cost`
    `l1_cost`·Σ|W| (Hinton 2010, section 10); `sparsity_cost` pulls each hidden unit's mean activity over the batch
    towards `sparsity_target` (section 11). `products` "bfloat16" computes the matrix products in that type.

    Raises `ValueError` for unknown settings and numbers that are out of range.
    """

    method: Method = "cd"
    steps: int = 1
    chains: int = 100
    burn_in: int = 0
    temperatures: int = 10
    fast_rate: float = 0.05
    centred: bool = False
    clip: float | None = None
    weight_cost: float = 0.0002
    l1_cost: float = 0.0
    sparsity_target: float = 0.05
    sparsity_cost: float = 0.0
    products: Precision = "float32"

    def __post_init__(self) -> None:
        check_choice("method", self.method, Method)
        check_choice("products", self.products, Precision)
        check_numbers(vars(self).items())
        check_burn_in(self.burn_in, self.steps)


class Particles(NamedTuple):
    """Visible states v [particles, inputs] and the means of the hidden units given v [particles, outputs]."""

    v: Tensor
    h: Tensor
    weight: float = 1.0  # of this process's particles in the mean over all, over that of its data


def from_data(rbm: Conditionals, first: Tensor, steps: int, generator: torch.Generator | None) -> Particles:
    """The end of a chain that began at the data; `first` [batch, inputs] is the mean of v after one step.

    The last v is its mean, which carries less noise (Hinton 2010, section 3.2); of Gaussian units it is drawn, because
    their variance is learnt from the noise.
    """
    mean = first
    for step in range(steps):
        drawn = step < steps - 1 or rbm.log_variance is not None
        v = rbm.visible_sample(mean, generator) if drawn else mean
        field = rbm.hidden_field(v)
        h = rbm.hidden_mean(field)
        if step < steps - 1:
            mean = rbm.visible_mean(rbm.visible_field(rbm.hidden_sample(field, h, generator)))
    return Particles(v, h)


def from_noise(
    rbm: Conditionals, count: int, estimator: GradientEstimator, generator: torch.Generator | None
) -> Particles:
    """The states after `burn_in` of chains that began at noise, all together (Liao et al. 2022, algorithm 2)."""
    v = _noise(rbm, count, generator)
    states, means = [], []
    for step in range(estimator.steps):
        field = rbm.hidden_field(v)
        h = rbm.hidden_sample(field, rbm.hidden_mean(field), generator)
        v = rbm.visible_sample(rbm.visible_mean(rbm.visible_field(h)), generator)
        if step >= estimator.burn_in:
            states.append(v)
            means.append(rbm.hidden_mean(rbm.hidden_field(v)))
    return Particles(torch.cat(states), torch.cat(means))


class Chains:
    """Persistent chains, at one temperature or several, of the RBM or of one with fast weights.

    Their state is the hidden units [chains × temperatures, outputs]; at first all of them are off.
    """

    def __init__(self, estimator: GradientEstimator) -> None:
        self._estimator = estimator
        self._temperatures = estimator.temperatures if estimator.method == "tempering" else 1
        self._hidden: Tensor | None = None  # of this process's chains
        self._fast: list[Tensor] = []  # added to weight, bias and visible bias

    def advance(self, rbm: Conditionals, generator: torch.Generator | None) -> Particles:
        """Run the chains for `steps` steps; returns the states, at several temperatures those at temperature 1."""
        shard, data = self._shard(), current_shard()
        if self._hidden is None:
            self._hidden = rbm.bias.new_zeros(shard.own.stop - shard.own.start, len(rbm.bias))
        hot = replace(
            rbm,
            weight=rbm.weight + self._fast[0],
            bias=rbm.bias + self._fast[1],
            visible_bias=rbm.visible_bias + self._fast[2],
        ) if self._fast else rbm  # fmt: skip
        with batch(shard):
            v, h = self._sweeps(hot, self._hidden, generator)
        if hot is not rbm:
            h = rbm.hidden_mean(rbm.hidden_field(v))  # the gradient is of the RBM itself
        return Particles(v, h, 1.0 if data is None else shard.weight / data.weight)

    def update_fast(self, grads: list[Tensor]) -> None:
        """Update the fast weights by the gradients of weight, bias and visible bias, and decay them."""
        if self._estimator.method != "fast-pcd":
            return
        if not self._fast:
            self._fast = [torch.zeros_like(grad) for grad in grads]
        for fast, grad in zip(self._fast, grads, strict=True):
            fast.mul_(FAST_DECAY).sub_(grad, alpha=self._estimator.fast_rate)

    def state(self) -> dict[str, Tensor]:
        """What training continues from, of all processes' chains."""
        if self._hidden is None:
            return {}
        return {"chains": current().gather(self._hidden, self._shard()), **dict(zip(_FAST, self._fast, strict=False))}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; raises `DataError` for anything else."""
        hidden, shard = state.get("chains"), self._shard()
        if hidden is not None and len(hidden) != shard.total:
            raise DataError(f"there are {len(hidden)} chains, but the training has {shard.total}")
        self._hidden = None if hidden is None else hidden[shard.own].clone()
        self._fast = [state[name] for name in _FAST if name in state]

    def _shard(self) -> BatchShard:
        """The rows of this process in the state of all chains."""
        return current().shard(self._estimator.chains).times(self._temperatures)

    def _sweeps(self, rbm: Conditionals, h: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        betas = self._betas(rbm, len(h))
        for _ in range(self._estimator.steps):
            v = rbm.visible_sample(rbm.visible_mean(rbm.visible_field(h), betas), generator, betas)
            field = rbm.hidden_field(v)
            mean = rbm.hidden_mean(field, betas)
            h = rbm.hidden_sample(field, mean, generator)
            if betas is not None:
                order = self._swapped(rbm.own_energy(v) - (h * field).sum(1), betas[:, 0], generator)
                h, v, mean = h[order], v[order], rbm.hidden_mean(field[order])
        self._hidden = h
        coldest = slice(self._temperatures - 1, None, self._temperatures)
        return v[coldest], mean[coldest]

    def _betas(self, rbm: Conditionals, rows: int) -> Tensor | None:
        """Inverse temperatures [rows, 1]: those of a chain follow each other, up to 1; None if all are 1."""
        count = self._temperatures
        if count == 1:
            return None
        # at 0 a Gaussian unit would have infinite variance
        lowest = 0.0 if rbm.log_variance is None else 1 / count
        betas = torch.linspace(lowest, 1, count, dtype=rbm.bias.dtype, device=rbm.bias.device)
        return betas.repeat(rows // count)[:, None]

    def _swapped(self, energy: Tensor, beta: Tensor, generator: torch.Generator | None) -> Tensor:
        """The order [rows] of the states after neighbours may have swapped (Desjardins et al. 2010, equation 4)."""
        count = self._temperatures
        order = torch.arange(len(energy), device=energy.device).view(-1, count)
        energies, betas = energy.view(-1, count).clone(), beta.view(-1, count)
        draws = uniform_like(energy[:, None], generator).view(-1, count)
        for parity in (0, 1):
            left = torch.arange(parity, count - 1, 2, device=energy.device)
            gain = (betas[:, left] - betas[:, left + 1]) * (energies[:, left] - energies[:, left + 1])
            swap = draws[:, left] < gain.exp()
            for values in (order, energies):
                low, high = values[:, left], values[:, left + 1]
                values[:, left], values[:, left + 1] = torch.where(swap, high, low), torch.where(swap, low, high)
        return order.view(-1)


def _noise(rbm: Conditionals, count: int, generator: torch.Generator | None) -> Tensor:
    """Random states [count, inputs]: N(0, 1), or bits, or one unit of each group."""
    plain = len(rbm.visible_bias) - sum(rbm.groups)
    own = rbm.bias.new_full((count, plain), 0.5)
    v = bernoulli(own, generator) if rbm.log_variance is None else normal_like(own, generator)
    groups = [rbm.bias.new_full((count, size), 1 / size) for size in rbm.groups]
    return torch.cat([v, *(categorical(group, generator) for group in groups)], dim=1) if groups else v
