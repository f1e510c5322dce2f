"""The mathematics of a restricted Boltzmann machine with given parameters: energies, conditionals, samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from pretrain.sampling import bernoulli, categorical, normal_like

SPARE_COPIES = 20  # of a rectified unit beyond its field: the next would be on once in e²⁰ times


@dataclass(frozen=True)
class Conditionals:
    """p(v, h) ∝ exp(−β E(v, h)) for the parameters of an RBM; inverse temperatures β [batch, 1] are 1 if not given.

    The last visible units are softmax `groups` of these sizes; those before are Gaussian if `log_variance` [plain
    units] is given, else Bernoulli. The hidden units are Bernoulli, or `rectified`. Products are computed in the type
    of `weight`, all else in that of the biases.
    """

    weight: Tensor  # [outputs, inputs]
    bias: Tensor  # [outputs]
    visible_bias: Tensor  # [inputs]
    log_variance: Tensor | None = None
    groups: tuple[int, ...] = ()
    rectified: bool = False

    def double(self) -> Conditionals:
        """The same RBM in float64."""
        variance = None if self.log_variance is None else self.log_variance.double()
        return replace(
            self,
            weight=self.weight.double(),
            bias=self.bias.double(),
            visible_bias=self.visible_bias.double(),
            log_variance=variance,
        )

    # -- hidden units -----------------------------------------------------------------------------------------------

    def hidden_field(self, v: Tensor) -> Tensor:
        """What each hidden unit receives, c + W v, of Gaussian units c + W (v/σ²) [batch, outputs]."""
        scaled = self.scaled(v)
        if self.weight.dtype == scaled.dtype:
            return F.linear(scaled, self.weight, self.bias)
        return F.linear(scaled.to(self.weight.dtype), self.weight).to(scaled.dtype).add_(self.bias)

    def hidden_mean(self, field: Tensor, beta: Tensor | None = None) -> Tensor:
        """The mean of h [batch, outputs]; of a rectified unit log(1 + e^x) (Nair & Hinton 2010, equation 4)."""
        if self.rectified:
            return F.softplus(field)
        return torch.sigmoid(_tempered(field, beta))

    def hidden_sample(self, field: Tensor, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """h drawn [batch, outputs]; of a rectified unit max(0, x + N(0, σ(x))) (Nair & Hinton 2010, section 2)."""
        if self.rectified:
            return F.relu(field + normal_like(field, generator) * torch.sigmoid(field).sqrt())
        return bernoulli(mean, generator)

    # -- visible units ----------------------------------------------------------------------------------------------

    def visible_field(self, h: Tensor) -> Tensor:
        """What each visible unit receives, b + Wᵀ h [batch, inputs]."""
        if self.weight.dtype == h.dtype:
            return torch.addmm(self.visible_bias, h, self.weight)
        return torch.mm(h.to(self.weight.dtype), self.weight).to(h.dtype).add_(self.visible_bias)

    def visible_mean(self, field: Tensor, beta: Tensor | None = None) -> Tensor:
        """The mean of v [batch, inputs]: probabilities, or of Gaussian units means."""
        plain, *groups = self._split(field)
        mean = plain if self.log_variance is not None else torch.sigmoid(_tempered(plain, beta))
        return torch.cat([mean, *(torch.softmax(_tempered(g, beta), dim=1) for g in groups)], dim=1) if groups else mean

    def visible_sample(
        self, mean: Tensor, generator: torch.Generator | None = None, beta: Tensor | None = None
    ) -> Tensor:
        """v drawn [batch, inputs] around its mean; of each softmax group one unit is 1."""
        plain, *groups = self._split(mean)
        if self.log_variance is None:
            plain = bernoulli(plain, generator)
        else:
            noise = normal_like(plain, generator) * torch.exp(self.log_variance / 2)
            plain = plain + (noise if beta is None else noise / beta.sqrt())
        return torch.cat([plain, *(categorical(group, generator) for group in groups)], dim=1) if groups else plain

    def scaled(self, v: Tensor) -> Tensor:
        """v as the weights multiply it: of Gaussian units v/σ² [batch, inputs]."""
        if self.log_variance is None:
            return v
        inverse = torch.exp(-self.log_variance)
        return v * (inverse if not self.groups else torch.cat([inverse, inverse.new_ones(sum(self.groups))]))

    # -- energies ---------------------------------------------------------------------------------------------------

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) [batch], of RBMs with Bernoulli hidden units."""
        return self.own_energy(v) - (h * self.hidden_field(v)).sum(1)

    def own_energy(self, v: Tensor) -> Tensor:
        """The energy of the visible units alone [batch]."""
        if self.log_variance is None:
            return -(v @ self.visible_bias)
        plain, count = v[:, : len(self.log_variance)], len(self.log_variance)
        quadratic = ((plain - self.visible_bias[:count]) ** 2 / (2 * self.log_variance.exp())).sum(1)
        return quadratic - v[:, count:] @ self.visible_bias[count:]

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = −log Σ_h exp(−E(v, h)) [batch] (Hinton 2010, equation 25).

        A rectified unit counts as what it stands for: copies of a Bernoulli unit with biases ½, 1½, … lower.
        """
        return self.own_energy(v) - self.hidden_log_sum(self.hidden_field(v))

    def hidden_log_sum(self, field: Tensor, beta: float = 1.0) -> Tensor:
        """log Σ_h exp(β h·field) [batch]."""
        if not self.rectified:
            return F.softplus(beta * field).sum(1)
        copies = max(1, math.ceil(float(field.detach().max()))) + SPARE_COPIES  # waits for the device
        total = torch.zeros_like(field)
        for copy in range(copies):
            total = total + F.softplus(field - copy - 0.5)
        return total.sum(1)

    def visible_log_sum(self, h: Tensor) -> Tensor:
        """log Σ_v exp(−E(v, h)) [batch], an integral for Gaussian units; Bernoulli hidden units."""
        own = self.visible_bias
        field = torch.mm(h, self.weight)
        plain, *groups = self._split(field + own)
        total = h @ self.bias
        if self.log_variance is None:
            total = total + F.softplus(plain).sum(1)
        else:
            # completing the square: ∫ exp(−(v − b)²/2σ² + v f/σ²) dv = √(2πσ²) exp((2 b f + f²)/2σ²)
            mean, pull = own[: plain.shape[1]], field[:, : plain.shape[1]]
            gained = ((2 * mean * pull + pull**2) / (2 * self.log_variance.exp())).sum(1)
            total = total + gained + 0.5 * (math.log(2 * math.pi) + self.log_variance).sum()
        for group in groups:
            total = total + torch.logsumexp(group, dim=1)
        return total

    def _split(self, values: Tensor) -> Iterator[Tensor]:
        """The columns of the plain units, then those of each group."""
        if not self.groups:
            yield values
            return
        yield from torch.split(values, [values.shape[1] - sum(self.groups), *self.groups], dim=1)


def _tempered(field: Tensor, beta: Tensor | None) -> Tensor:
    return field if beta is None else beta * field
