"""A layer that learns to reconstruct its inputs: plain, denoising, contractive or sparse, tied or not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from pretrain.choices import Activation, Cost, Kind, Noise, check_choice
from pretrain.errors import DataError
from pretrain.limits import check_level, check_numbers
from pretrain.parallel import batch_mean, reduce
from pretrain.plain import check_inputs, plain_linear
from pretrain.sampling import bernoulli, first_weights, normal_like, uniform_like
from pretrain.schedule import Schedule

if TYPE_CHECKING:
    from typing_extensions import Self

    from pretrain.settings import LayerSettings

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "linear": nn.Identity,
}
_ARGUMENTS = (
    "inputs", "outputs", "kind", "activation", "cost", "noise", "level", "contraction", "target", "sparsity",
)  # fmt: skip
LEAST_ACTIVITY = 1e-6  # a unit that is never on, or always, would make the divergence and its gradient infinite


class Autoencoder(nn.Module):
    """h = act(W x + b) [batch, outputs], and a reconstruction of x [batch, inputs]: sigmoid(V h + c), or V h + c.

    `tied` makes V the transpose of W. The cost of an image is the cross-entropy, summed over the inputs, of a sigmoid
    decoder, or ‖x − x̂‖² of a linear one. The cost of a batch is the mean over its images; to that `kind` adds:

    - plain: nothing (Bengio et al. 2007);
    - denoising: nothing, but the code is that of a corrupted input (Vincent et al. 2010, section 3): `noise` of
      `level`, a probability for masking and salt-and-pepper, a standard deviation for gaussian;
    - contractive: `contraction` ‖∂h/∂x‖²_F, mean over the images (Rifai et al. 2011, equations 7 and 9);
    - sparse: `sparsity` Σ_j KL(`target` ‖ mean of h_j over the batch) (Ng 2011, *Sparse autoencoder*, section 3).

    The weights start uniform as Glorot & Bengio 2010 (equation 16; four times that for sigmoid, whose slope at 0 is a
    quarter), or for relu as He et al. 2015, from `generator`; the biases start at 0. Raises `ValueError` for
    incompatible settings.
    """

    activation: Activation
    default_rate = 0.001  # of `default_optimizer`, without momentum

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kind: Kind = "plain",
        tied: bool = True,
        activation: Activation = "sigmoid",
        cost: Cost = "cross-entropy",
        noise: Noise = "masking",
        level: float = 0.25,
        contraction: float = 0.1,
        target: float = 0.05,
        sparsity: float = 3.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("kind", kind, Kind),
            ("activation", activation, Activation),
            ("cost", cost, Cost),
            ("noise", noise, Noise),
        ):
            check_choice(name, value, allowed)
        if min(inputs, outputs) < 1:
            raise ValueError(f"an autoencoder needs at least one input and one output, not {inputs} and {outputs}")
        if kind == "sparse" and activation != "sigmoid":
            raise ValueError("a sparse autoencoder needs sigmoid units: the divergence is between probabilities")
        numbers = {"level": level, "contraction": contraction, "target": target, "sparsity": sparsity}
        check_numbers(numbers.items())
        check_level(noise, level)
        self.inputs, self.outputs = inputs, outputs
        self.kind, self.activation, self.cost = kind, activation, cost
        self.noise, self.level = noise, level
        self.contraction, self.target, self.sparsity = contraction, target, sparsity
        self.weight = nn.Parameter(_start(outputs, inputs, activation, generator))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.visible_bias = nn.Parameter(torch.zeros(inputs))
        self.decoder_weight = None if tied else nn.Parameter(_start(inputs, outputs, activation, generator))
        self._activate: nn.Module = ACTIVATIONS[activation]()

    def encode(self, x: Tensor) -> Tensor:
        """The code h [batch, outputs] of x [batch, inputs], without noise."""
        h: Tensor = self._activate(F.linear(x, self.weight, self.bias))
        return h

    def sample_code(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Bits [batch, outputs] drawn with the sigmoid units' probabilities; the codes of other units are no
        probabilities, and are returned as they are."""
        h = self.encode(x)
        return bernoulli(h, generator) if self.activation == "sigmoid" else h

    def decode(self, h: Tensor) -> Tensor:
        """The reconstruction [batch, inputs] of a code h [batch, outputs]."""
        rebuilt = self._rebuild(h)
        return torch.sigmoid(rebuilt) if self.cost == "cross-entropy" else rebuilt

    def batch_cost(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The cost of reconstructing x [batch, inputs] from `seen`: x, or a corrupted copy if this denoises.

        It carries gradients; the second value is the squared reconstruction error, mean over the images.
        """
        h = self.encode(seen)
        rebuilt = self._rebuild(h)
        if self.cost == "cross-entropy":
            # from the logits: the logarithm of a saturated sigmoid would be -inf
            cost = F.binary_cross_entropy_with_logits(rebuilt, x, reduction="sum") / len(x)
            rebuilt = torch.sigmoid(rebuilt.detach())
        else:
            cost = F.mse_loss(rebuilt, x, reduction="sum") / len(x)
        if self.kind == "contractive":
            cost = cost + self.contraction * self._contraction(h)
        elif self.kind == "sparse":
            cost = cost + self.sparsity * self._divergence(h)
        return cost, F.mse_loss(rebuilt.detach(), x, reduction="sum") / len(x)

    def fill_gradient(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Write the gradient of the cost of x [batch, inputs] into `.grad` of every parameter.

        Returns [] the squared reconstruction error, summed over the inputs, mean over the images.
        """
        self.zero_grad(set_to_none=True)
        seen = corrupt(x, self.noise, self.level, generator) if self.kind == "denoising" else x
        cost, error = self.batch_cost(x, seen)
        torch.autograd.backward(cost)
        return reduce(self.parameters(), error)

    def check(self, x: Tensor) -> None:
        """Raises `DataError` for anything but [n, inputs] of finite numbers, in [0, 1] if the cost is cross-entropy."""
        bounded = "cross-entropy needs [0, 1]: scale them, or use cost squared"
        check_inputs(x, self.inputs, "autoencoder", bounded if self.cost == "cross-entropy" else "")

    def encoder(self) -> list[nn.Module]:
        """The encoder as plain modules, with copies of the weights."""
        linear = plain_linear(self.weight, self.bias)
        return [linear] if self.activation == "linear" else [linear, ACTIVATIONS[self.activation]()]

    def decoder(self) -> list[nn.Module]:
        """The decoder as plain modules, with copies of the weights."""
        linear = plain_linear(self._decoder_weight(), self.visible_bias)
        return [linear, nn.Sigmoid()] if self.cost == "cross-entropy" else [linear]

    def default_optimizer(
        self, parameters: Iterable[nn.Parameter], learning_rate: float | None, momentum: float | None
    ) -> torch.optim.Optimizer:
        """Adam at 0.001; with `momentum`, stochastic gradient descent at 0.01."""
        if momentum is None:
            return torch.optim.Adam(parameters, lr=self.default_rate if learning_rate is None else learning_rate)
        return torch.optim.SGD(parameters, lr=0.01 if learning_rate is None else learning_rate, momentum=momentum)

    def default_momentum(self) -> Schedule | None:
        """None: Adam needs none."""
        return None

    def state(self) -> dict[str, Tensor]:
        """What training carries from step to step besides the parameters: nothing."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; raises `DataError` for anything else."""
        if state:
            raise DataError(f"an autoencoder has no state: {', '.join(state)} is unknown")

    # -- as a kind of layer, see pretrain.layers --------------------------------------------------------------------

    def spec(self) -> dict[str, Any]:
        """The arguments of the constructor, fit for JSON."""
        return {name: getattr(self, name) for name in _ARGUMENTS} | {"tied": self.decoder_weight is None}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Self:
        """A new autoencoder from what `spec` returned."""
        return cls(**spec)

    @classmethod
    def from_settings(
        cls,
        inputs: int,
        outputs: int,
        settings: LayerSettings,
        *,
        bounded: bool = True,
        label_units: int = 0,
        kind: Kind = "plain",
        generator: torch.Generator | None = None,
    ) -> Self:
        """A new autoencoder; inputs that are `bounded` to [0, 1] are reconstructed by cross-entropy."""
        if label_units:
            raise ValueError("label units belong to RBMs: use unit rbm, or leave label-units out")
        return cls(
            inputs,
            outputs,
            kind=kind,
            tied=not settings.untied,
            activation=settings.activation,
            cost="cross-entropy" if bounded else "squared",
            noise=settings.noise,
            level=settings.level,
            contraction=settings.contraction,
            target=settings.sparsity_target,
            generator=generator,
        )

    def extra_repr(self) -> str:
        """The settings that the shapes do not show."""
        return f"{self.inputs}, {self.outputs}, kind={self.kind!r}, cost={self.cost!r}"

    def _decoder_weight(self) -> Tensor:
        return self.weight.t() if self.decoder_weight is None else self.decoder_weight

    def _rebuild(self, h: Tensor) -> Tensor:
        """The reconstruction [batch, inputs] before its sigmoid."""
        return F.linear(h, self._decoder_weight(), self.visible_bias)

    def _contraction(self, h: Tensor) -> Tensor:
        """‖∂h/∂x‖²_F, mean over the batch: unit j adds act'(a_j)² Σ_i W_ji² (Rifai et al. 2011, equation 9)."""
        if self.activation == "sigmoid":
            slope = h * (1 - h)
        elif self.activation == "tanh":
            slope = 1 - h.square()
        else:
            slope = (h > 0).to(h.dtype) if self.activation == "relu" else torch.ones_like(h)
        return (slope.square() @ self.weight.square().sum(1)).mean()

    def _divergence(self, h: Tensor) -> Tensor:
        activity = batch_mean(h).clamp(LEAST_ACTIVITY, 1 - LEAST_ACTIVITY)
        on = self.target * (math.log(self.target) - activity.log())
        off = (1 - self.target) * (math.log(1 - self.target) - torch.log1p(-activity))
        return (on + off).sum()


def corrupt(x: Tensor, noise: Noise, level: float, generator: torch.Generator | None = None) -> Tensor:
    """A corrupted copy of x: each value by itself (Vincent et al. 2010, section 3.4).

    masking: 0 with probability `level`; salt-and-pepper: with probability `level` 0 or 1, equally likely;
    gaussian: plus a draw from N(0, `level`²).
    """
    if noise == "gaussian":
        return torch.add(x, normal_like(x, generator), alpha=level)
    draws = uniform_like(x, generator)
    if noise == "masking":
        return x * (draws >= level)
    # one draw decides both: below level/2 pepper, from there to level salt
    return torch.where(draws >= level, x, (draws >= level / 2).to(x.dtype))


def _start(rows: int, columns: int, activation: Activation, generator: torch.Generator | None) -> Tensor:
    if activation == "relu":
        bound = math.sqrt(6 / columns)
    else:
        bound = math.sqrt(6 / (rows + columns)) * (4 if activation == "sigmoid" else 1)
    return first_weights(rows, columns, bound, generator, uniform=True)
