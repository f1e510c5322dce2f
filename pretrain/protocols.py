"""What a layer must have to be pretrained, to be saved, and what it may have beside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pretrain.schedule import Schedule


class Layer(Protocol):
    """What can be trained greedily: an `nn.Module` with these, such as `RBM` and `Autoencoder`."""

    inputs: int
    outputs: int

    def encode(self, x: Tensor) -> Tensor:
        """What the layer above learns from: probabilities or values [batch, outputs]."""

    def sample_code(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A sample of `encode`'s probabilities [batch, outputs]."""

    def decode(self, h: Tensor) -> Tensor:
        """The reconstruction of the inputs [batch, inputs] from a code [batch, outputs]."""

    def fill_gradient(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Write the gradient of the cost, mean over the batch, into `.grad`.

        Returns [] the squared reconstruction error, mean over the examples. In data-parallel training both are means
        over all processes (`pretrain.parallel`).
        """

    def check(self, x: Tensor) -> None:
        """Raise `DataError` for data that this layer cannot learn from."""

    def encoder(self) -> list[nn.Module]:
        """`encode` as plain modules, with copies of the weights."""

    def decoder(self) -> list[nn.Module]:
        """`decode` as plain modules, with copies of the weights."""

    def state(self) -> dict[str, Tensor]:
        """What training carries from step to step besides the parameters."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As in `nn.Module`."""


@runtime_checkable
class RegisteredLayer(Protocol):
    """What a layer needs besides for `pretrain.register_layer`; a subclass of `RBM` or `Autoencoder` inherits it."""

    @property
    def activation(self) -> str:
        """The activation function of the hidden units: "sigmoid" if the next layer learns from probabilities."""

    def spec(self) -> dict[str, Any]:
        """What makes the layer again, besides its weights: values that JSON can hold."""

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Any:
        """A new layer from what `spec` returned."""

    @classmethod
    def from_settings(cls, inputs: int, outputs: int, settings: Any, **how: Any) -> Any:
        """A new layer by `LayerSettings`.

        Keywords: `bounded` (whether the inputs lie in [0, 1]), `label_units` (how many of the inputs, the last ones,
        are labels; raise `ValueError` if the layer cannot have any), `generator`, and those given to `register_layer`.
        """


@runtime_checkable
class OwnOptimizer(Protocol):
    """A layer that chooses its own optimizer."""

    def default_optimizer(
        self, parameters: Iterable[nn.Parameter], learning_rate: float | None, momentum: float | None
    ) -> Optimizer:
        """An optimizer of these parameters; the layer chooses what is None."""

    def default_momentum(self) -> Schedule | None:
        """The momentum if none is given; None leaves it to `default_optimizer`."""


@runtime_checkable
class OwnStart(Protocol):
    """A layer whose first parameters depend on the data."""

    def start_from(self, x: Tensor) -> None:
        """Set them from these examples [n, inputs], unless they were set before."""
