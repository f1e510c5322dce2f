"""A deep autoencoder, pretrained layer by layer."""
# ruff: noqa: N803, N806  X is scikit-learn's name for the data

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from pretrain.estimators.conventions import FLOATS, Array, RandomState, generator_of
from pretrain.estimators.pretrained_net import PretrainedNet, run_net
from pretrain.finetuning import Method
from pretrain.nets import deep_autoencoder


class DeepAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, PretrainedNet):  # type: ignore[misc]
    """A deep autoencoder: layers pretrained one by one, unrolled, then trained as a whole to rebuild the data.

    The code is linear (Hinton & Salakhutdinov 2006). Data [n, n_features] that all lie in [0, 1] are rebuilt as
    probabilities, by cross-entropy; other data are standardised, column by column, and rebuilt by squared error. The
    net computes in float32 if it learnt from float32, otherwise in float64.

    - `hidden_layer_sizes`: units of the encoder's layers, from the lowest up; the last is the length of the code;
    - `unit`: how they are pretrained: "rbm", by contrastive divergence; "autoencoder"; "denoising", an autoencoder
      that sees corrupted data; or "none", not at all;
    - `pretrain_epochs`: passes over the data for each layer;
    - `pretrain_learning_rate`: None takes what suits the unit: 0.1 for "rbm", 0.001 for Gaussian ones and for Adam,
      which trains the others;
    - `learning_rate`: of the fine-tuning; None takes what suits the optimizer;
    - `epochs`: of the fine-tuning, at most;
    - `batch_size`: examples a batch, both times; fewer where an epoch would have fewer than 50 batches, but not for
      "lbfgs" and "cg";
    - `optimizer`: of the fine-tuning: "adam", "sgd" (with momentum 0.9), "lbfgs" or "cg" (conjugate gradients),
      the latter two for large batches;
    - `early_stopping`: whether to hold out part of the examples, stop when the squared error of their reconstruction
      does not fall, and keep the best weights;
    - `validation_fraction`: that part;
    - `patience`: epochs without a lower error before it stops;
    - `random_state`: an int, a `RandomState` or None, as everywhere in scikit-learn;
    - `device`: where torch computes, training and transforming;
    - `verbose`: not 0 prints a line an epoch.

    Fitted: `net_`, an `nn.Sequential` from (X − `offset_`) / `scale_` to the same rebuilt, `offset_` and `scale_`
    [n_features], `n_features_in_`, and `n_iter_`, the epochs of fine-tuning.
    """

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (1000, 500, 250, 30),
        *,
        unit: str = "rbm",
        pretrain_epochs: int = 10,
        pretrain_learning_rate: float | None = None,
        learning_rate: float | None = 0.001,
        epochs: int = 20,
        batch_size: int = 100,
        optimizer: Method = "adam",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 5,
        random_state: RandomState = None,
        device: str | torch.device = "cpu",
        verbose: int = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.unit = unit
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_learning_rate = pretrain_learning_rate
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> DeepAutoencoder:
        """Learns to rebuild X [n, n_features]."""
        self._validate_params()
        X = validate_data(self, X, dtype=FLOATS)
        rng = check_random_state(self.random_state)
        X, held_out = self._fit_scale(X), None
        if self.early_stopping:
            X, held_out = train_test_split(X, test_size=self.validation_fraction, random_state=rng)
        generator = generator_of(rng, self.device)
        layers = self._pretrained(X, None, generator, linear_code=True)
        self.net_ = deep_autoencoder(layers)
        self._code_at = 2 * len(layers) - 1  # where the code comes out: all its layers but the last have an activation
        self._n_features_out = layers[-1].outputs
        self._finetune(X, None, held_out, generator)
        return self

    def transform(self, X: Any) -> Array:
        """The codes [n, code] of X [n, n_features]."""
        return self._encode(self._checked(X))

    def inverse_transform(self, X: Any) -> Array:
        """The data [n, n_features] rebuilt from their codes X [n, code]."""
        check_is_fitted(self)
        codes = check_array(X, dtype=FLOATS)
        if codes.shape[1] != self._n_features_out:
            raise ValueError(f"X has {codes.shape[1]} features, but the code has {self._n_features_out}")
        return self._decode(codes)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the squared error of the reconstruction of X [n, n_features], summed over features, mean over rows."""
        X = self._checked(X)
        return -float(np.square(self._decode(self._encode(X)) - X).sum(1).mean())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _checked(self, X: Any) -> Array:
        check_is_fitted(self)
        return cast(Array, validate_data(self, X, reset=False, dtype=FLOATS))

    def _encode(self, X: Array) -> Array:
        return run_net(cast(nn.Sequential, self.net_[: self._code_at]), self._scaled(X))

    def _decode(self, codes: Array) -> Array:
        rebuilt = run_net(cast(nn.Sequential, self.net_[self._code_at :]), codes)
        return rebuilt if self._bounded else (rebuilt * self.scale_ + self.offset_).astype(rebuilt.dtype)
