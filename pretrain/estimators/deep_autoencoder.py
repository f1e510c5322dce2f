"""A deep autoencoder, pretrained layer by layer."""
# ruff: noqa: N803, N806  X is scikit-learn's name for the data

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from pretrain.estimators.conventions import FLOATS, Array, generator_of
from pretrain.estimators.pretrained_net import PretrainedNet, run_net
from pretrain.nets import deep_autoencoder


@dataclass(eq=False, repr=False)
class DeepAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, PretrainedNet):  # type: ignore[misc]
    """A deep autoencoder: layers pretrained one by one, unrolled, then trained as a whole to reconstruct the data.

    The code is linear (Hinton & Salakhutdinov 2006). Data [n, n_features] that all lie in [0, 1] are reconstructed as
    probabilities, by cross-entropy; other data are standardised, column by column, and reconstructed by squared error.
    The net computes in float32 if it learnt from float32, otherwise in float64.

    The parameters are those of `PretrainedNet`. `hidden_layer_sizes` are those of the encoder; the last is the length
    of the code. Early stopping watches the squared error of the reconstruction.

    Fitted: `net_`, an `nn.Sequential` from (X − `offset_`) / `scale_` to its reconstruction, `offset_` and `scale_`
    [n_features], `n_features_in_`, and `n_iter_`, the epochs of fine-tuning.
    """

    hidden_layer_sizes: int | Sequence[int] = (1000, 500, 250, 30)

    def fit(self, X: Any, y: Any = None) -> DeepAutoencoder:
        """Learn to reconstruct X [n, n_features]."""
        self._validate_params()
        goes_on = self._goes_on()
        X = validate_data(self, X, dtype=FLOATS, reset=not goes_on)
        rng = check_random_state(self.random_state)
        X, held_out = self._scaled(X) if goes_on else self._fit_scale(X), None
        if self.early_stopping:
            X, held_out = train_test_split(X, test_size=self.validation_fraction, random_state=rng)
        generator = generator_of(rng, self.device)
        if not goes_on:
            self._make_net(X, generator)
        self._finetune(X, None, held_out, generator)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> DeepAutoencoder:
        """One epoch of fine-tuning on the batch X [n, n_features], from where the last call ended.

        The first call sets scale and layers, which it pretrains, by its batch. No examples are held out.
        """
        self._begin_part()
        first = not hasattr(self, "net_")
        X = validate_data(self, X, dtype=FLOATS, reset=first)
        X, generator = self._fit_scale(X) if first else self._scaled(X), generator_of(self.random_state_, self.device)
        if first:
            self._make_net(X, generator)
        self._finetune(X, None, None, generator, is_part=True)
        return self

    def _make_net(self, X: Array, generator: torch.Generator) -> None:
        layers = self._pretrained(X, None, generator, linear_code=True)
        self.net_ = deep_autoencoder(layers)
        self._code_at = 2 * len(layers) - 1  # where the code comes out: all its layers but the last have an activation
        self._n_features_out = layers[-1].outputs

    def transform(self, X: Any) -> Array:
        """The codes [n, code] of X [n, n_features]."""
        return self._encode(self._checked(X))

    def inverse_transform(self, X: Any) -> Array:
        """The data [n, n_features] reconstructed from their codes X [n, code]."""
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
