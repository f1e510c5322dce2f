"""What the estimators of deep nets share."""
# ruff: noqa: N803  X is scikit-learn's name for the data

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from numbers import Real
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from torch import nn

from pretrain.choices import Optimizer
from pretrain.devices import check_device
from pretrain.estimators.conventions import FROM_0, FROM_1, POSITIVE, Array, RandomState
from pretrain.finetuning import NetProgress, finetune
from pretrain.greedy import LayerProgress, train_greedily
from pretrain.layers import LAYERS
from pretrain.protocols import Layer
from pretrain.rows import chunks, rows_of
from pretrain.settings import LayerSettings

BATCHES = 50  # the minimum number of steps per epoch: few examples need many steps, not large batches


@dataclass(eq=False, repr=False)
class PretrainedNet(BaseEstimator):  # type: ignore[misc]
    """What the classifier and the autoencoder share: parameters, and how data go into a net that is trained.

    Args:
        hidden_layer_sizes: units of each hidden layer, from the lowest up.
        unit: how the layers are pretrained: the name of a kind of layer ("rbm", by contrastive divergence;
            "autoencoder"; "denoising", …, and those of `pretrain.register_layer`), or "none".
        pretrain_epochs: passes over the data for each layer.
        pretrain_learning_rate: None takes the default of the layers: 0.1 for "rbm", 0.001 for Gaussian ones and for
            Adam, which trains autoencoders.
        learning_rate: of the fine-tuning; None takes the default of the optimizer.
        epochs: maximum number of epochs of the fine-tuning.
        batch_size: examples per batch, both times; fewer if an epoch would have fewer than 50 batches, except for
            "lbfgs" and "cg".
        optimizer: of the fine-tuning: "adam", "sgd" (with momentum 0.9), "lbfgs" or "cg" (conjugate gradients), the
            latter two for large batches.
        early_stopping: whether to hold out some of the examples, stop when the error on them does not improve, and keep
            the best weights.
        validation_fraction: the fraction of the examples that is held out.
        patience: epochs without a lower error before it stops.
        random_state: an int, a `RandomState` or None, as everywhere in scikit-learn.
        device: the torch device for training and prediction.
        verbose: not 0 prints a line per epoch.
        warm_start: whether `fit` goes on from the net of the last call, with `epochs` more of fine-tuning.
    """

    hidden_layer_sizes: int | Sequence[int] = (100, 100)
    _: KW_ONLY
    unit: str = "rbm"
    pretrain_epochs: int = 10
    pretrain_learning_rate: float | None = None
    learning_rate: float | None = 0.001
    epochs: int = 20
    batch_size: int = 100
    optimizer: Optimizer = "adam"
    early_stopping: bool = False
    validation_fraction: float = 0.1
    patience: int = 5
    random_state: RandomState = None
    device: str | torch.device = "cpu"
    verbose: int = 0
    warm_start: bool = False

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", FROM_1],
        "unit": [str],
        "pretrain_epochs": [FROM_0],
        "pretrain_learning_rate": [POSITIVE, None],
        "learning_rate": [POSITIVE, None],
        "epochs": [FROM_0],
        "batch_size": [FROM_1],
        "optimizer": [StrOptions(set(get_args(Optimizer)))],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [FROM_1],
        "random_state": ["random_state"],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
    }
    _has_labels: ClassVar[bool] = False

    def _validate_params(self) -> None:
        # the kinds of layers that are registered by now
        units = {name for name, kind in LAYERS.items() if self._has_labels or not kind.supervised} | {"none"}
        constraints = {**self._parameter_constraints, "unit": [StrOptions(units)]}
        validate_parameter_constraints(constraints, self.get_params(deep=False), caller_name=type(self).__name__)
        check_device(self.device)

    def _fit_scale(self, X: Array) -> Array:
        """X [n, n_features] for the net: unchanged if all of it lies in [0, 1], as probabilities do, otherwise
        standardised."""
        self._bounded = bool(0 <= X.min() <= X.max() <= 1)
        self.offset_, self.scale_ = np.zeros(X.shape[1]), np.ones(X.shape[1])
        if not self._bounded:
            # in float64: the squares of large numbers would overflow float32
            self.offset_, deviation = X.mean(0, np.float64), X.std(0, np.float64)
            self.scale_ = np.where(deviation > 0, deviation, 1.0)
        return self._scaled(X)

    def _scaled(self, X: Array) -> Array:
        return X if self._bounded else ((X - self.offset_) / self.scale_).astype(X.dtype)

    def _pretrained(
        self, X: Array, labels: Array | None, generator: torch.Generator, *, linear_code: bool = False
    ) -> list[Layer]:
        """Layers pretrained on X [n, n_features], already scaled, and labels [n] if they are given.

        Standardised data get Gaussian units. With `linear_code` an autoencoder on top has linear units.
        """
        sizes = np.ravel(self.hidden_layer_sizes)
        if sizes.dtype.kind not in "iu" or sizes.min(initial=1) < 1:
            raise ValueError(f"hidden_layer_sizes must be whole numbers from 1 up, not {self.hidden_layer_sizes}")
        hidden = sizes.tolist()
        layers: list[Layer] = []
        # layers that are not pretrained start as autoencoders do
        kind, bounded = LAYERS["autoencoder" if self.unit == "none" else self.unit], self._bounded
        for number, (inputs, outputs) in enumerate(pairwise([X.shape[1], *hidden]), 1):
            top = LayerSettings(activation="linear") if linear_code and number == len(hidden) else LayerSettings()
            layer = kind.make(inputs, outputs, top, bounded=bounded, generator=generator)
            bounded = layer.activation == "sigmoid"
            layers.append(layer.to(self.device, torch.float32 if X.dtype == np.float32 else torch.float64))
        if self.unit != "none":
            train_greedily(
                layers,
                X,
                targets=labels,
                epochs=self.pretrain_epochs,
                batch_size=self._batch(X),
                learning_rate=self.pretrain_learning_rate,
                generator=generator,
                on_epoch=self._tell_layer if self.verbose else None,
            )
        return layers

    def _goes_on(self) -> bool:
        """Whether `fit` starts from the net of the last call."""
        return bool(self.warm_start and hasattr(self, "net_"))

    def _begin_part(self) -> None:
        """What `partial_fit` does at each call before all else."""
        self._validate_params()
        if not hasattr(self, "random_state_"):  # goes on from call to call
            self.random_state_ = check_random_state(self.random_state)

    def _finetune(
        self,
        X: Array,
        labels: Array | None,
        validation: Array | tuple[Array, Array] | None,
        generator: torch.Generator,
        *,
        is_part: bool = False,
    ) -> None:
        result = finetune(
            self.net_,
            X,
            labels,
            validation=validation,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            epochs=1 if is_part else self.epochs,
            # line searches need large batches
            batch_size=self.batch_size if self.optimizer in ("lbfgs", "cg") else self._batch(X),
            patience=self.patience if self.early_stopping and not is_part else None,
            generator=generator,
            on_epoch=self._tell_net if self.verbose else None,
        )
        self.net_.zero_grad()  # the gradients would be copied and pickled with the net
        self.n_iter_ = len(result.costs) + (getattr(self, "n_iter_", 0) if is_part else 0)

    def _batch(self, X: Array) -> int:
        return max(1, min(int(self.batch_size), len(X) // BATCHES))

    def _tell_layer(self, at: LayerProgress) -> None:
        print(
            f"[{type(self).__name__}] Layer {at.index + 1} of {at.layers}, epoch {at.epoch + 1} of {at.epochs},"
            f" error = {at.error:.4g}"
        )

    def _tell_net(self, at: NetProgress) -> None:
        held_out = "" if at.error is None else f", validation error = {at.error:.4g}"
        print(
            f"[{type(self).__name__}] Fine-tuning, epoch {at.epoch + 1} of {at.epochs}, cost = {at.cost:.4g}{held_out}"
        )


@torch.no_grad()
def run_net(net: nn.Sequential, X: Array) -> Array:
    """The net's output for X [n, columns], in the net's own type, chunk by chunk."""
    weight = next(net.parameters())
    rows = rows_of(X, weight.device, weight.dtype)
    return torch.cat([net(x).cpu() for _, x in chunks(rows)]).numpy()
