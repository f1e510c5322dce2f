"""The cost and the error of a net."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from pretrain.choices import Loss, Precision, check_choice
from pretrain.errors import DataError
from pretrain.precision import tell_if_slow
from pretrain.rows import Data, Rows, bytes_of, check_rows, chunks, gathered, rows_of
from pretrain.targets import Targets, check_labels, targets_of


@dataclass(frozen=True)
class Examples:
    """Images, and their labels if the net is a classifier."""

    rows: Rows
    labels: Targets | None

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images [batch, columns] and labels [batch] of the examples of these indices."""
        return self.rows.take(indices), None if self.labels is None else self.labels.take(indices)


class Objective:
    """The cost and the error of a net that classifies (`classify`) or reconstructs its inputs.

    `precision` "bfloat16" computes the matrix products of the cost in that type. `loss` is that of a reconstruction:
    cross-entropy, for a net that ends in a sigmoid, or squared. None chooses what fits the net. Raises `ValueError`
    for incompatible settings.
    """

    def __init__(
        self, model: nn.Sequential, loss: Loss | None = None, *, classify: bool, precision: Precision = "float32"
    ) -> None:
        check_choice("precision", precision, Precision)
        self.model, self.classify, self.precision = model, classify, precision
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise DataError("the net has no linear layer: it must consist of nn.Linear and activations")
        self._inputs, self._outputs = linear[0].in_features, linear[-1].out_features
        self._dtype = linear[0].weight.dtype
        self.device = linear[0].weight.device
        tell_if_slow(precision, self.device)
        ends_in_sigmoid = isinstance(model[-1], nn.Sigmoid)
        self.loss: Loss = loss or ("cross-entropy" if classify or ends_in_sigmoid else "squared")
        check_choice("loss", self.loss, Loss)
        if classify and self.loss != "cross-entropy":
            raise DataError("a classifier's loss is cross-entropy")
        if not classify and self.loss == "cross-entropy" and not ends_in_sigmoid:
            raise DataError("cross-entropy needs a net that ends in nn.Sigmoid: add one, or use squared")
        # a slice of a Sequential shares its modules
        self._logits = model[:-1] if not classify and self.loss == "cross-entropy" else model

    def examples(self, data: Data, targets: Data | None, memory: int) -> Examples:
        """`data` and `targets`, checked against the net; held in memory if they fit into `memory` bytes.

        Raises `DataError` for data or labels that the net cannot take.
        """
        if self.classify and targets is None:
            raise DataError("a classifier needs labels: pass them with the images")
        rows = rows_of(data, self.device, self._dtype)
        check_rows(rows, self._check)
        if bytes_of(rows, self._dtype) <= memory:
            rows = gathered(rows)
        if not self.classify or targets is None:
            return Examples(rows, None)
        labels = targets_of(targets, len(rows), self.device)
        check_labels(labels, self._outputs)
        return Examples(rows, labels)

    def cost(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The mean over the batch x [batch, inputs], in nats (natural logarithms) or squared units."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            # from the logits: the logarithm of a saturated sigmoid would be -inf
            answer = self._logits(x) if labels is None and self.loss == "cross-entropy" else self.model(x)
        answer = answer.to(x.dtype)
        if labels is not None:
            return F.cross_entropy(answer, labels)
        if self.loss == "squared":
            return F.mse_loss(answer, x, reduction="sum") / len(x)
        return F.binary_cross_entropy_with_logits(answer, x, reduction="sum") / len(x)

    def error(self, examples: Examples) -> float:
        """The share of wrong answers, or the squared reconstruction error an image; dropout is off."""
        training = self.model.training
        self.model.eval()
        total = 0.0
        with torch.no_grad():
            for start, x in chunks(examples.rows):
                answer = self.model(x)
                if examples.labels is None:
                    total += F.mse_loss(answer, x, reduction="sum").item()  # waits for the device
                else:
                    right = examples.labels.labels[start : start + len(x)]
                    total += (answer.argmax(1) != right).sum().item()
        self.model.train(training)
        return total / len(examples.rows)

    def _check(self, x: Tensor) -> None:
        if x.shape[1] != self._inputs:
            raise DataError(f"the net takes {self._inputs} inputs, but the data have {x.shape[1]} columns")
        low, high = x.min().item(), x.max().item()  # NaN if there is one; waits for the device
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError("the data hold NaN or infinite values: remove those rows or replace the values")
        if not self.classify and self.loss == "cross-entropy" and not 0 <= low <= high <= 1:
            raise DataError(f"the data lie in [{low:g}, {high:g}], but cross-entropy needs [0, 1]: scale them")


def evaluate(model: nn.Sequential, data: Data, targets: Data | None = None) -> float:
    """The error rate, or without `targets` the squared reconstruction error per example.

    Raises `DataError` for data or labels that the net cannot take.
    """
    objective = Objective(model, None if targets is not None else "squared", classify=targets is not None)
    return objective.error(objective.examples(data, targets, memory=0))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within, torch's global generator, the only one that nn.Dropout uses, is seeded; afterwards it is restored."""
    if device.type == "cpu":
        own = torch.default_generator
        state = own.get_state()
        own.manual_seed(seed)
        try:
            yield
        finally:
            own.set_state(state)
        return
    module: Any = torch.get_device_module(device)
    state = module.get_rng_state()
    module.manual_seed(seed)
    try:
        yield
    finally:
        module.set_rng_state(state)
