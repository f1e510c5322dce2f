"""Restricted Boltzmann machines, trained by contrastive divergence and related methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from pretrain.choices import Activation, HiddenUnits, VisibleUnits, check_choice
from pretrain.conditionals import Conditionals
from pretrain.errors import DataError
from pretrain.negative import CHAIN_NAMES, Chains, GradientEstimator, Particles, from_data, from_noise
from pretrain.parallel import batch_mean, reduce
from pretrain.plain import check_inputs, plain_linear
from pretrain.regularisation import add_l1
from pretrain.sampling import first_weights
from pretrain.schedule import Schedule, hinton_momentum

if TYPE_CHECKING:
    from typing_extensions import Self

    from pretrain.settings import LayerSettings

START = 0.01  # standard deviation of the first weights (Hinton 2010, section 8.1)
# unbounded units need a smaller step (Hinton 2010, sections 7.1 and 13.2)
RATE, UNBOUNDED_RATE = 0.1, 0.001
LEAST_SHARE = 0.01  # the smallest mean activity from which a bias is set
LEAST_VARIANCE = 0.01  # the smallest variance of a column, over the mean variance
OFFSET_RATE = 0.01  # of the moving averages that centring subtracts (Melchior, Fischer & Wiskott 2016, section 5)
_OFFSETS = ("visible_offset", "hidden_offset")


class RBM(nn.Module):
    """p(v, h) ∝ exp(−E(v, h)), with v [inputs] and h [outputs].

    - `bernoulli` v in {0, 1}: E = −b·v − c·h − h·W v (Hinton 2002);
    - `gaussian` v, with a variance σ² a unit that is learnt as its logarithm: E = Σ (v − b)²/2σ² − c·h − h·W (v/σ²)
      (Cho, Ilin & Raiko 2011, equation 3);
    - the last visible units are softmax `groups` of these sizes; in each group one unit is 1 (e.g. labels);
    - `bernoulli` h in {0, 1}, or `rectified` linear: each stands for infinitely many copies of a Bernoulli unit with
      biases ½, 1½, … lower (Nair & Hinton 2010); its mean is taken as log(1 + e^x), which is at most 0.011 off.

    `weight` [outputs, inputs] is W, `bias` [outputs] is c, `visible_bias` [inputs] is b. The weights start as
    N(0, 0.01²) from `generator`, the biases at 0. Raises `ValueError` for unknown or invalid settings.
    """

    log_variance: nn.Parameter | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        visible: VisibleUnits = "bernoulli",
        hidden: HiddenUnits = "bernoulli",
        groups: Sequence[int] = (),
        estimator: GradientEstimator | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_choice("visible", visible, VisibleUnits)
        check_choice("hidden", hidden, HiddenUnits)
        if min(inputs, outputs) < 1:
            raise ValueError(f"an RBM needs at least one visible and one hidden unit, not {inputs} and {outputs}")
        if any(size < 2 for size in groups) or sum(groups) > inputs:
            raise ValueError(
                f"softmax groups must have at least 2 units each, out of {inputs} in all, not {list(groups)}"
            )
        self.inputs, self.outputs = inputs, outputs
        self.visible, self.hidden, self.groups = visible, hidden, tuple(groups)
        self.estimator = estimator or GradientEstimator()
        if hidden == "rectified" and self.estimator.method == "tempering":
            raise ValueError("rectified units have no temperature: use another method than tempering")
        device = None if generator is None else generator.device
        self.weight = nn.Parameter(first_weights(outputs, inputs, START, generator))
        self.bias = nn.Parameter(torch.zeros(outputs, device=device))
        self.visible_bias = nn.Parameter(torch.zeros(inputs, device=device))
        gaussian = visible == "gaussian"
        plain = inputs - sum(groups)
        self.log_variance = nn.Parameter(torch.zeros(plain, device=device)) if gaussian else None
        self._chains = Chains(self.estimator)
        self._offsets: tuple[Tensor, Tensor] | None = None

    # -- the model ------------------------------------------------------------------------------------------------

    def conditionals(self) -> Conditionals:
        """The conditionals at the current parameters, with gradients."""
        rectified = self.hidden == "rectified"
        return Conditionals(self.weight, self.bias, self.visible_bias, self.log_variance, self.groups, rectified)

    def encode(self, x: Tensor) -> Tensor:
        """p(h = 1 | v) [batch, outputs] for v [batch, inputs]; of rectified units max(0, c + W v)."""
        field = self.conditionals().hidden_field(x)
        return F.relu(field) if self.hidden == "rectified" else torch.sigmoid(field)

    def decode(self, h: Tensor) -> Tensor:
        """The mean of v given h: probabilities, or means, [batch, inputs] for h [batch, outputs]."""
        conditionals = self.conditionals()
        return conditionals.visible_mean(conditionals.visible_field(h))

    def sample_code(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """h drawn from p(h | v) [batch, outputs]."""
        conditionals = self.conditionals()
        field = conditionals.hidden_field(x)
        return conditionals.hidden_sample(field, conditionals.hidden_mean(field), generator)

    def sample_visible(self, h: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """v drawn from p(v | h) [batch, inputs]."""
        return self.conditionals().visible_sample(self.decode(h), generator)

    @torch.no_grad()
    def gibbs(self, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """v after `steps` steps of alternating Gibbs sampling from v = x [batch, inputs]."""
        for _ in range(steps):
            x = self.sample_visible(self.sample_code(x, generator), generator)
        return x

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) [batch], of RBMs with Bernoulli hidden units."""
        return self.conditionals().energy(v, h)

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = −log Σ_h exp(−E(v, h)) [batch] (Hinton 2010, equation 25)."""
        return self.conditionals().free_energy(v)

    # -- training -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def start_from(self, x: Tensor) -> None:
        """Set visible biases that are still 0 so that the RBM without weights has the means, and for Gaussian units
        the variances, of the examples x [n, inputs] (Hinton 2010, section 8.1)."""
        if self.visible_bias.any():
            return
        mean, plain = x.mean(0), self.inputs - sum(self.groups)
        share = mean.clamp(LEAST_SHARE, 1 - LEAST_SHARE)
        self.visible_bias.copy_(share.log())
        if self.log_variance is None:
            self.visible_bias[:plain] = torch.logit(share[:plain])
        else:
            variance = x[:, :plain].var(0, correction=0)
            if variance.any():
                self.log_variance.copy_(variance.clamp(min=LEAST_VARIANCE * float(variance.mean())).log())
            self.visible_bias[:plain] = mean[:plain]

    @torch.no_grad()
    def fill_gradient(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Write the estimated gradient of the mean of −log p(x) over the batch [batch, inputs] into `.grad`.

        It is the gradient of mean F(x) − mean F(v), the particles v of the negative phase taken as they are (Hinton
        2002); penalties, centring and clipping of the `estimator` are added. Returns [] the squared error of a
        reconstruction, summed over the inputs, mean over the examples; over some of them if the negative phase makes
        none.
        """
        estimator, conditionals = self.estimator, self._detached()
        field = conditionals.hidden_field(x)
        positive = conditionals.hidden_mean(field)
        if estimator.method == "cd":
            first = conditionals.visible_mean(
                conditionals.visible_field(conditionals.hidden_sample(field, positive, generator))
            )
            error = F.mse_loss(first, x, reduction="sum") / len(x)
            negative = from_data(conditionals, first, estimator.steps, generator)
        else:
            few = max(1, len(x) // 8)  # all of them would need another matrix product
            again = conditionals.visible_mean(conditionals.visible_field(positive[:few]))
            error = F.mse_loss(again, x[:few], reduction="sum") / few
            if estimator.method == "noise":
                negative = from_noise(conditionals, len(x), estimator, generator)
            else:
                negative = self._chains.advance(conditionals, generator)
        self._fill(conditionals, Particles(x, positive), negative)
        self._add_costs(conditionals, x, positive)
        error = reduce(self.parameters(), error)
        if estimator.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters(), estimator.clip)
        self._chains.update_fast([p.grad for p in (self.weight, self.bias, self.visible_bias) if p.grad is not None])
        return error

    def _detached(self) -> Conditionals:
        """The conditionals without gradients, with weights in the type of the products."""
        rectified, variance = self.hidden == "rectified", self.log_variance
        weight = self.weight.detach()
        if self.estimator.products == "bfloat16":
            weight = weight.bfloat16()
        own = None if variance is None else variance.detach()
        return Conditionals(weight, self.bias.detach(), self.visible_bias.detach(), own, self.groups, rectified)

    def _fill(self, conditionals: Conditionals, data: Particles, model: Particles) -> None:
        v0, v1 = conditionals.scaled(data.v), conditionals.scaled(model.v)
        by_bias = model.h.mean(0).mul_(model.weight) - data.h.mean(0)
        by_visible = v1.mean(0).mul_(model.weight) - v0.mean(0)
        # one product for both phases: the gradient is written once, and in bfloat16 their difference is rounded once
        right = torch.cat([v0, v1])
        left = torch.cat([data.h, model.h])
        if self.estimator.centred:
            mu, lambda_ = self._moved_offsets(v0, data.h)
            right, left = right - mu, left - lambda_
        left[: len(v0)] *= -1 / len(v0)
        left[len(v0) :] *= model.weight / len(v1)
        grad = self._product(conditionals, left, right)
        if self.log_variance is not None:
            raw = (self.weight * grad).sum(0)
            if self.estimator.centred:
                raw += (lambda_ @ self.weight) * by_visible + (by_bias @ self.weight) * mu
            self.log_variance.grad = self._by_log_variance(data.v, model, raw)
        if self.estimator.centred:
            # the change of centred units' weights and biases, in those of this RBM (section 3 of the same)
            by_visible, by_bias = by_visible - lambda_ @ grad, by_bias - grad @ mu
        self.bias.grad, self.visible_bias.grad = by_bias, by_visible

    def _product(self, conditionals: Conditionals, left: Tensor, right: Tensor) -> Tensor:
        if self.weight.grad is None:
            self.weight.grad = torch.empty_like(self.weight)
        kind = conditionals.weight.dtype
        if kind == left.dtype:
            return torch.mm(left.t(), right, out=self.weight.grad)
        return self.weight.grad.copy_(torch.mm(left.t().to(kind), right.to(kind)))

    def _by_log_variance(self, v0: Tensor, model: Particles, raw: Tensor) -> Tensor:
        """∂F/∂log σ² = −(v − b)²/2σ² + v Wᵀh/σ², data minus model; `raw` is the latter's, negated."""
        assert self.log_variance is not None
        plain = len(self.log_variance)
        bias = self.visible_bias[:plain]
        spread = model.weight * ((model.v[:, :plain] - bias) ** 2).mean(0) - ((v0[:, :plain] - bias) ** 2).mean(0)
        return spread / (2 * self.log_variance.exp()) - raw[:plain]

    def _moved_offsets(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The moving averages of v [inputs] and h [outputs] over the batches of data."""
        means = batch_mean(v), batch_mean(h)
        if self._offsets is None:
            self._offsets = means
        else:
            for offset, mean in zip(self._offsets, means, strict=True):
                offset.lerp_(mean, OFFSET_RATE)
        return self._offsets

    def _add_costs(self, conditionals: Conditionals, x: Tensor, hidden: Tensor) -> None:
        estimator = self.estimator
        assert self.weight.grad is not None and self.bias.grad is not None
        if estimator.weight_cost:
            self.weight.grad.add_(self.weight, alpha=estimator.weight_cost)
        if estimator.l1_cost:
            add_l1([self.weight], estimator.l1_cost)
        if estimator.sparsity_cost:
            # the gradient of the cross-entropy between target and mean activity by what the unit receives
            pull = estimator.sparsity_cost * (batch_mean(hidden) - estimator.sparsity_target)
            self.bias.grad.add_(pull)
            self.weight.grad.add_(torch.outer(pull, conditionals.scaled(x).mean(0)))

    @property
    def default_rate(self) -> float:
        """The learning rate of `default_optimizer`."""
        return RATE if self.visible == "bernoulli" and self.hidden == "bernoulli" else UNBOUNDED_RATE

    def default_optimizer(
        self, parameters: Iterable[nn.Parameter], learning_rate: float | None, momentum: float | None
    ) -> torch.optim.Optimizer:
        """SGD at 0.1, or 0.001 for Gaussian or rectified units (Hinton 2010, sections 7.1 and 13.2)."""
        rate = self.default_rate if learning_rate is None else learning_rate
        return torch.optim.SGD(parameters, lr=rate, momentum=momentum or 0.0)

    def default_momentum(self) -> Schedule | None:
        """0.5, then 0.9 (Hinton 2010, section 9.1)."""
        return hinton_momentum

    def state(self) -> dict[str, Tensor]:
        """What training carries from step to step besides the parameters: persistent chains, fast weights, offsets."""
        return self._chains.state() | dict(zip(_OFFSETS, self._offsets or (), strict=False))

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; raises `DataError` for anything else."""
        unknown = set(state) - {*CHAIN_NAMES, *_OFFSETS}
        if unknown:
            raise DataError(f"unknown state of an RBM: {', '.join(sorted(unknown))}")
        self._chains.load_state(state)
        offsets = [state[name] for name in _OFFSETS if name in state]
        self._offsets = (offsets[0], offsets[1]) if len(offsets) == 2 else None

    def check(self, x: Tensor) -> None:
        """Raises `DataError` for anything but [n, inputs] of finite numbers, in [0, 1] for Bernoulli units."""
        bounded = "Bernoulli units need [0, 1]: scale them, or use gaussian"
        check_inputs(x, self.inputs, "RBM", bounded if self.visible == "bernoulli" else "")

    def encoder(self) -> list[nn.Module]:
        """The encoder as plain modules, with copies of the weights, which include the variances of Gaussian units."""
        weight = self.conditionals().scaled(self.weight)
        return [plain_linear(weight, self.bias), nn.ReLU() if self.hidden == "rectified" else nn.Sigmoid()]

    def decoder(self) -> list[nn.Module]:
        """The decoder as plain modules, with copies of the weights; raises `ValueError` for softmax groups."""
        if self.groups:
            raise ValueError("softmax groups have no plain decoder: a net is made of the layers without labels")
        linear = plain_linear(self.weight.t(), self.visible_bias)
        return [linear] if self.log_variance is not None else [linear, nn.Sigmoid()]

    def without_label_units(self) -> RBM:
        """A copy without the softmax groups, the last visible units, to be a layer of a plain net."""
        inputs = self.inputs - sum(self.groups)
        with torch.random.fork_rng(devices=[]):  # its first weights, which are overwritten, are drawn
            plain = type(self).from_spec({**self.spec(), "inputs": inputs, "groups": []})
        with torch.no_grad():
            plain.weight.copy_(self.weight[:, :inputs])
            plain.bias.copy_(self.bias)
            plain.visible_bias.copy_(self.visible_bias[:inputs])
            if self.log_variance is not None and plain.log_variance is not None:
                plain.log_variance.copy_(self.log_variance)
        return plain

    # -- as a kind of layer, see pretrain.layers --------------------------------------------------------------------

    @property
    def activation(self) -> Activation:
        """The activation function of the hidden units in a net."""
        return "relu" if self.hidden == "rectified" else "sigmoid"

    def spec(self) -> dict[str, Any]:
        """The arguments of the constructor, fit for JSON."""
        units = {"visible": self.visible, "hidden": self.hidden, "groups": list(self.groups)}
        return {"inputs": self.inputs, "outputs": self.outputs, **units, "training": asdict(self.estimator)}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Self:
        """A new RBM from what `spec` returned."""
        arguments = dict(spec)
        return cls(estimator=GradientEstimator(**arguments.pop("training")), **arguments)

    @classmethod
    def from_settings(
        cls,
        inputs: int,
        outputs: int,
        settings: LayerSettings,
        *,
        bounded: bool = True,
        label_units: int = 0,
        generator: torch.Generator | None = None,
    ) -> Self:
        """A new RBM; inputs that are not `bounded` to [0, 1] get Gaussian units, the label units a softmax group."""
        chosen = {one.name: getattr(settings, one.name) for one in fields(GradientEstimator) if one.name != "products"}
        return cls(
            inputs,
            outputs,
            visible="bernoulli" if bounded else "gaussian",
            hidden=settings.hidden,
            groups=(label_units,) if label_units else (),
            estimator=GradientEstimator(**chosen, products=settings.precision),
            generator=generator,
        )

    def extra_repr(self) -> str:
        """The settings that the shapes do not show."""
        groups = f", groups={list(self.groups)}" if self.groups else ""
        kinds = f"visible={self.visible!r}, hidden={self.hidden!r}{groups}"
        return f"{self.inputs}, {self.outputs}, {kinds}, {self.estimator}"
