"""Restricted Boltzmann machines, trained by contrastive divergence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from pretrain.data import DataError
from pretrain.plain import check_inputs, plain_linear
from pretrain.schedule import hinton_momentum

VisibleUnits = Literal["bernoulli", "gaussian"]

START = 0.01  # standard deviation of the first weights (Hinton 2010, section 8.1)
RATES: dict[str, float] = {"bernoulli": 0.1, "gaussian": 0.001}  # (Hinton 2010, sections 7.1 and 13.2)


@dataclass(frozen=True)
class ContrastiveDivergence:
    """How the gradient is estimated: from `steps` of Gibbs sampling that start at the data, or at `chains` that go on
    from batch to batch (Hinton 2002; Tieleman 2008).

    `weight_cost` is added as ½·`weight_cost`·‖W‖² (Hinton 2010, section 10); `sparsity_cost` pulls each hidden unit's
    mean activity over the batch towards `sparsity_target` (section 11).
    """

    steps: int = 1
    chains: int = 0
    weight_cost: float = 0.0002
    sparsity_target: float = 0.05
    sparsity_cost: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.chains < 0:
            raise ValueError(f"contrastive divergence takes a step or more, not {self.steps}; chains are 0 or more")


class RBM(nn.Module):
    """p(v, h) ∝ exp(−E(v, h)), with h in {0, 1} [outputs].

    - `bernoulli` v in {0, 1} [inputs]: E = −b·v − c·h − h·W v (Hinton 2002);
    - `gaussian` v, with a variance σ² a unit that is learnt as its logarithm: E = Σ (v − b)²/2σ² − c·h − h·W (v/σ²)
      (Cho, Ilin & Raiko 2011, equation 3).

    `weight` [outputs, inputs] is W, `bias` [outputs] is c, `visible_bias` [inputs] is b. The weights start as
    N(0, 0.01²) from `generator`, the biases at 0. Raises `ValueError` for units that there are not.
    """

    log_variance: nn.Parameter | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        visible: VisibleUnits = "bernoulli",
        training: ContrastiveDivergence | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if visible not in get_args(VisibleUnits):
            raise ValueError(f"visible units are one of {', '.join(get_args(VisibleUnits))}, not {visible!r}")
        if min(inputs, outputs) < 1:
            raise ValueError(f"a machine needs a visible and a hidden unit or more, not {inputs} and {outputs}")
        self.inputs, self.outputs = inputs, outputs
        self.visible = visible
        self.divergence = training or ContrastiveDivergence()
        device = None if generator is None else generator.device
        self.weight = nn.Parameter(torch.empty(outputs, inputs, device=device).normal_(0, START, generator=generator))
        self.bias = nn.Parameter(torch.zeros(outputs, device=device))
        self.visible_bias = nn.Parameter(torch.zeros(inputs, device=device))
        gaussian = visible == "gaussian"
        self.log_variance = nn.Parameter(torch.zeros(inputs, device=device)) if gaussian else None
        self._chains: Tensor | None = None

    # -- the model ------------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Tensor:
        """p(h = 1 | v) [batch, outputs] for v [batch, inputs]."""
        return torch.sigmoid(self._field(x))

    def decode(self, h: Tensor) -> Tensor:
        """The mean of v given h: probabilities, or means, [batch, inputs] for h [batch, outputs]."""
        mean = F.linear(h, self.weight.t(), self.visible_bias)
        return mean if self.log_variance is not None else torch.sigmoid(mean)

    def sample_code(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """h drawn from p(h | v) [batch, outputs]."""
        return _flip(self.encode(x), generator)

    def sample_visible(self, h: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """v drawn from p(v | h) [batch, inputs]."""
        mean = self.decode(h)
        if self.log_variance is None:
            return _flip(mean, generator)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return mean + noise * torch.exp(self.log_variance / 2)

    @torch.no_grad()
    def gibbs(self, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """v after so many steps of alternating Gibbs sampling from v = x [batch, inputs]."""
        for _ in range(steps):
            x = self.sample_visible(self.sample_code(x, generator), generator)
        return x

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) [batch]."""
        if self.log_variance is None:
            own, scaled = -(v @ self.visible_bias), v
        else:
            variance = self.log_variance.exp()
            own, scaled = ((v - self.visible_bias) ** 2 / (2 * variance)).sum(1), v / variance
        return own - h @ self.bias - (h * F.linear(scaled, self.weight)).sum(1)

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = −log Σ_h exp(−E(v, h)) [batch] (Hinton 2010, equation 25)."""
        if self.log_variance is None:
            own = -(v @ self.visible_bias)
        else:
            own = ((v - self.visible_bias) ** 2 / (2 * self.log_variance.exp())).sum(1)
        return own - F.softplus(self._field(v)).sum(1)

    def _field(self, v: Tensor) -> Tensor:
        """What each hidden unit receives [batch, outputs]."""
        scaled = v if self.log_variance is None else v * torch.exp(-self.log_variance)
        return F.linear(scaled, self.weight, self.bias)

    # -- training -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fill_gradient(self, x: Tensor, generator: torch.Generator | None = None) -> float:
        """Puts the estimated gradient of the mean of −log p(x) over the batch [batch, inputs] into `.grad`.

        It is the gradient of mean F(x) − mean F(v_k), v_k taken as it is (Hinton 2002); weight cost and sparsity come
        on top. Returns the squared error of a reconstruction, summed over the inputs, mean over the images.
        """
        divergence = self.divergence
        positive = self.encode(x)
        first = self.decode(_flip(positive, generator))
        error = F.mse_loss(first, x, reduction="sum") / len(x)
        if divergence.chains:
            negative = self._walk(x, generator)
        else:
            # the last v is its mean, which carries less noise (Hinton 2010, section 3.2)
            negative = first
            for _ in range(divergence.steps - 1):
                drawn = self._draw(negative, generator)
                negative = self.decode(_flip(self.encode(drawn), generator))
        hidden = self.encode(negative)
        self._fill(x, positive, negative, hidden)
        self._add_costs(x, positive)
        return error.item()  # waits for the device

    def _fill(self, v0: Tensor, h0: Tensor, v: Tensor, h: Tensor) -> None:
        if self.log_variance is not None:
            with torch.enable_grad():
                cost = self.free_energy(v0).mean() - self.free_energy(v).mean()
                own = list(self.parameters())
                for parameter, grad in zip(own, torch.autograd.grad(cost, own), strict=True):
                    parameter.grad = grad
            return
        # written out: autograd would take the products twice
        if self.weight.grad is None:
            self.weight.grad = torch.empty_like(self.weight)
        torch.mm(h.t(), v, out=self.weight.grad)
        self.weight.grad.mul_(1 / len(v)).addmm_(h0.t(), v0, alpha=-1 / len(v0))
        self.bias.grad = h.mean(0) - h0.mean(0)
        self.visible_bias.grad = v.mean(0) - v0.mean(0)

    def _add_costs(self, x: Tensor, hidden: Tensor) -> None:
        divergence = self.divergence
        assert self.weight.grad is not None and self.bias.grad is not None
        if divergence.weight_cost:
            self.weight.grad.add_(self.weight, alpha=divergence.weight_cost)
        if divergence.sparsity_cost:
            # the gradient of the cross-entropy between target and mean activity by what the unit receives
            pull = divergence.sparsity_cost * (hidden.mean(0) - divergence.sparsity_target)
            self.bias.grad.add_(pull)
            scaled = x if self.log_variance is None else x * torch.exp(-self.log_variance)
            self.weight.grad.add_(torch.outer(pull, scaled.mean(0)))

    def _walk(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """The persistent chains [chains, inputs], some steps further; they start at images of the first batch."""
        if self._chains is None:
            self._chains = x[torch.arange(self.divergence.chains, device=x.device) % len(x)].clone()
        self._chains = self.gibbs(self._chains, self.divergence.steps, generator)
        return self._chains

    def _draw(self, mean: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.log_variance is None:
            return _flip(mean, generator)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return mean + noise * torch.exp(self.log_variance / 2)

    def default_optimizer(
        self, parameters: Iterable[nn.Parameter], learning_rate: float | None, momentum: float | None
    ) -> torch.optim.Optimizer:
        """SGD at 0.1, or 0.001 for Gaussian units, with momentum 0.5 that training raises (Hinton 2010, section 9)."""
        rate = RATES[self.visible] if learning_rate is None else learning_rate
        return torch.optim.SGD(parameters, lr=rate, momentum=hinton_momentum(0) if momentum is None else momentum)

    def state(self) -> dict[str, Tensor]:
        """What training carries from step to step beside the parameters: the persistent chains."""
        return {} if self._chains is None else {"chains": self._chains}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `state` gave; raises `DataError` for anything else."""
        if set(state) - {"chains"}:
            raise DataError(f"a machine carries its chains, but there is {', '.join(state)}")
        self._chains = state.get("chains")

    def check(self, x: Tensor) -> None:
        """Raises `DataError` for anything but [n, inputs] of finite numbers, in [0, 1] for Bernoulli units."""
        bounded = "Bernoulli units need [0, 1]: scale them, or take gaussian"
        check_inputs(x, self.inputs, "machine", bounded if self.visible == "bernoulli" else "")

    def encoder(self) -> list[nn.Module]:
        """The code as plain modules, with copies of the weights; of Gaussian units the variances are in the weights."""
        weight = self.weight if self.log_variance is None else self.weight * torch.exp(-self.log_variance)
        return [plain_linear(weight, self.bias), nn.Sigmoid()]

    def decoder(self) -> list[nn.Module]:
        """The reconstruction as plain modules, with copies of the weights."""
        linear = plain_linear(self.weight.t(), self.visible_bias)
        return [linear] if self.log_variance is not None else [linear, nn.Sigmoid()]

    def extra_repr(self) -> str:
        """The settings that the shapes do not show."""
        return f"{self.inputs}, {self.outputs}, visible={self.visible!r}, {self.divergence}"


def _flip(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """Bits with these probabilities; drawing numbers and comparing is a third of the time of `torch.bernoulli`."""
    draws = torch.empty_like(probabilities).uniform_(generator=generator)
    return (draws < probabilities).to(probabilities.dtype)
