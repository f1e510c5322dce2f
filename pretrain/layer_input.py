"""What the layer in training learns from: the data, propagated through the layers below."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pretrain.choices import Propagate
from pretrain.protocols import Layer
from pretrain.rows import Labelled, Mapped, Rows, bytes_of, check_rows, gathered


class LayerInput:
    """The inputs of the next layer, `rows`.

    Data and features that fit into `memory` bytes are read once and held; larger ones stream through the layers below.
    Samples are drawn again whenever they are read.
    """

    def __init__(
        self, rows: Rows, propagate: Propagate, memory: int, generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        self._propagate, self._memory, self._generator, self._dtype = propagate, memory, generator, dtype
        self._held = 0  # bytes that are ours, not the caller's
        self._below: list[Layer] = []  # between the base and the layer in training
        self._base = self._gathered_if_small(rows)
        if self._base is not rows:
            self._held = bytes_of(rows, dtype)
        self.rows: Rows = self._base

    def pass_through(self, layer: Layer) -> None:
        """Add a trained layer below the next one."""
        self._below.append(layer)
        below = list(self._below)
        self.rows = Mapped(self._base, lambda x: self._encoded(below, x), layer.outputs)
        if self._propagate == "probabilities":
            held = self._gathered_if_small(self.rows)
            if held is not self.rows:
                self._base, self.rows, self._below = held, held, []
                self._held = bytes_of(held, self._dtype)

    def append_labels(self, labels: Tensor, classes: int) -> None:
        """Append the labels [n], one-hot, to the inputs."""
        self.rows = Labelled(self.rows, labels, classes)

    def check(self, layer: Layer) -> None:
        """Raise `DataError` if the layer cannot learn from these inputs; of those that stream, check the first rows."""
        if isinstance(self.rows, (Mapped, Labelled)):
            state = self._generator.get_state()
            layer.check(self.rows.slice(0, min(len(self.rows), 1000)))
            self._generator.set_state(state)  # the check must not change the training
        else:
            check_rows(self.rows, layer.check)

    def _encoded(self, layers: Sequence[Layer], x: Tensor) -> Tensor:
        with torch.no_grad():
            for layer in layers:
                x = layer.encode(x) if self._propagate == "probabilities" else layer.sample_code(x, self._generator)
        return x

    def _gathered_if_small(self, rows: Rows) -> Rows:
        return gathered(rows) if self._held + bytes_of(rows, self._dtype) <= self._memory else rows
