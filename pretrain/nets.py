"""Plain nets made of layers that were trained one by one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from pretrain.sampling import first_weights

OUTPUT_SCALE = 0.01  # standard deviation of a new output layer's weights: small, so that the features decide at first


class Codec(Protocol):
    """What a net takes from a trained layer: [an `nn.Linear`, then its activation if it has one], up and down."""

    outputs: int

    def encoder(self) -> list[nn.Module]:
        """The encoder, as plain modules with copies of the weights."""

    def decoder(self) -> list[nn.Module]:
        """The decoder, as plain modules with copies of the weights."""


def classifier(
    layers: Sequence[Codec],
    classes: int,
    generator: torch.Generator | None = None,
    *,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
) -> nn.Sequential:
    """The layers' encoders, `fc1`, `act1`, `fc2`, …, and an output layer of logits [batch, classes], the last `fc`.

    The output weights are drawn from N(0, 0.01²), so that the pretrained features decide at first. With `dropout` there
    are `drop1`, … after the hidden layers, with `input_dropout` `drop0` before the first (Srivastava et al. 2014 use
    0.5 and 0.2). nn.Dropout divides by the fraction that it keeps, so pretrained weights are used unchanged.
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    if input_dropout:
        modules["drop0"] = nn.Dropout(input_dropout)
    for number, layer in enumerate(layers, 1):
        _add(modules, number, layer.encoder())
        if dropout:
            modules[f"drop{number}"] = nn.Dropout(dropout)
    example = next(modules["fc1"].parameters())
    modules[f"fc{len(layers) + 1}"] = output_layer(layers[-1].outputs, classes, example, generator)
    return nn.Sequential(modules)


def deep_autoencoder(layers: Sequence[Codec], *, linear_code: bool = True) -> nn.Sequential:
    """The layers unrolled: all encoders, then all decoders from the top down, `fc1`, `act1`, …, untied.

    With `linear_code` the code, the output of the middle `fc`, is linear (Hinton & Salakhutdinov 2006, figure 1): the
    top layer's activation, if it has one, is removed. Its decoder was trained with it, so use a top layer without one.
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for number, layer in enumerate(layers, 1):
        top = number == len(layers)
        _add(modules, number, layer.encoder()[:1] if top and linear_code else layer.encoder())
    for number, layer in enumerate(reversed(layers), len(layers) + 1):
        _add(modules, number, layer.decoder())
    return nn.Sequential(modules)


def output_layer(inputs: int, classes: int, like: Tensor, generator: torch.Generator | None) -> nn.Linear:
    """A new output layer, its weights from N(0, 0.01²), its biases 0; of the device and type of `like`."""
    output: nn.Linear = skip_init(nn.Linear, inputs, classes, device=like.device, dtype=like.dtype)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        output.weight.copy_(first_weights(classes, inputs, OUTPUT_SCALE, generator))
        output.bias.zero_()
    return output


def _add(modules: OrderedDict[str, nn.Module], number: int, pair: Sequence[nn.Module]) -> None:
    modules[f"fc{number}"] = pair[0]
    for activation in pair[1:]:
        modules[f"act{number}"] = activation
