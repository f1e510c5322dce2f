"""Layers for tests of greedy training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.autoencoder import Autoencoder
from pretrain.layers import register_layer


class Killed(Exception):  # noqa: N818  an event, not an error
    """Stands for the end of the process."""


class KillAt:
    """A callback that ends the training at its n-th call."""

    def __init__(self, call: int) -> None:
        self.left = call

    def __call__(self, _: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


@register_layer("chained")
class Chained(Autoencoder):
    """An autoencoder that carries something from step to step, as an RBM does its chains, and knows no optimizer."""

    default_optimizer = None  # type: ignore[assignment]

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__(inputs, outputs, generator=generator)
        self.chain = torch.zeros(inputs)

    def spec(self) -> dict[str, Any]:
        return {"inputs": self.inputs, "outputs": self.outputs}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Chained:
        return cls(**spec, generator=torch.Generator())

    def fill_gradient(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        error = super().fill_gradient(x, generator)
        self.chain = 0.9 * self.chain + torch.rand(self.inputs, generator=generator)
        assert self.visible_bias.grad is not None
        self.visible_bias.grad += 0.01 * self.chain
        return error

    def state(self) -> dict[str, Tensor]:
        return {"chain": self.chain}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.chain = state["chain"]


def stack(make: Callable[[int, int, torch.Generator], nn.Module], *sizes: int) -> list[nn.Module]:
    generator = torch.Generator().manual_seed(0)
    return [make(below, above, generator) for below, above in pairwise(sizes)]


def denoising(inputs: int, outputs: int, generator: torch.Generator) -> Autoencoder:
    return Autoencoder(inputs, outputs, kind="denoising", generator=generator)


def weights(modules: list[nn.Module]) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for module in modules for parameter in module.parameters()])
