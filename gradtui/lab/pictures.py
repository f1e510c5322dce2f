"""Pictures of a layer in pretraining: its filters, its samples, its reconstructions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pretrain.rbm import RBM

if TYPE_CHECKING:
    from gradtui.record.recording import Recording
    from pretrain.autoencoder import Autoencoder

FILTERS, SAMPLES, RECONSTRUCTED = 36, 16, 8  # how many of each
GIBBS_STEPS = 20  # between two pictures of an RBM's samples
EVERY = 0.25  # s between pictures: they take milliseconds


class Gallery:
    """Records pictures of the layer in training, from time to time; the training itself is not touched.

    Data that are no square images have no pictures.
    """

    def __init__(
        self,
        layers: Sequence[RBM | Autoencoder],
        names: Sequence[str],
        images: Tensor,
        recording: Recording,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._layers, self._names, self._recording, self._clock = layers, names, recording, clock
        self._side = math.isqrt(images.shape[1])
        self._square = self._side**2 == images.shape[1]
        self._some = images[:RECONSTRUCTED]
        # a generator of its own: pictures must not change the training
        self._generator = torch.Generator().manual_seed(0)
        self._last = -math.inf
        self._sampled_layer = -1  # the layer of these chains
        self._chains = images[:0]

    @torch.no_grad()
    def show(self, index: int, *, always: bool = False) -> None:
        """Record pictures of layer `index`, unless the last ones are new."""
        if not self._square or (self._clock() - self._last < EVERY and not always):
            return
        self._last = self._clock()
        name = self._names[index]
        seen = filters(self._layers[: index + 1], FILTERS)
        self._record(
            "filters, each over its largest", name, seen / seen.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        )
        self._record("images beside their reconstructions", name, self._reconstructions(index))
        layer = self._layers[index]
        if isinstance(layer, RBM):
            self._record("samples of the RBM", name, self._samples(index, layer))

    def _record(self, what: str, layer: str, pixels: Tensor) -> None:
        self._recording.pictures(what, layer, pixels.reshape(-1, self._side, self._side).numpy())

    def _reconstructions(self, index: int) -> Tensor:
        """Images, each with its reconstruction from the layer's code."""
        code = self._some
        for layer in self._layers[: index + 1]:
            code = layer.encode(code)
        return torch.stack([self._some, self._down(index, code)], dim=1)

    def _samples(self, index: int, rbm: RBM) -> Tensor:
        """Persistent chains of the RBM, decoded down to the pixels."""
        if self._sampled_layer != index:
            self._sampled_layer = index
            self._chains = torch.full((SAMPLES, rbm.inputs), 0.5, dtype=self._some.dtype)
        self._chains = rbm.gibbs(self._chains, GIBBS_STEPS, self._generator)
        return self._down(index, rbm.encode(self._chains))

    def _down(self, index: int, code: Tensor) -> Tensor:
        for layer in reversed(self._layers[: index + 1]):
            code = layer.decode(code)
        return code


def filters(layers: Sequence[RBM | Autoencoder], count: int) -> Tensor:
    """The filters of the first `count` units of the top layer [units, pixels]: the products of the weights below.

    Source: the linear combination of Lee, Ekanadham & Ng 2008, section 5; also Erhan et al. 2009, section 3.2.
    """
    seen = layers[-1].weight[:count]
    for layer in reversed(layers[:-1]):
        seen = seen @ layer.weight
    return seen
