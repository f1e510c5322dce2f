"""A deep classifier, pretrained layer by layer."""
# ruff: noqa: N803, N806  X is scikit-learn's name for the data

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, cast

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from pretrain.estimators.conventions import FLOATS, Array, RandomState, generator_of
from pretrain.estimators.pretrained_net import PretrainedNet, run_net
from pretrain.finetuning import Method
from pretrain.nets import classifier


class PretrainedClassifier(ClassifierMixin, PretrainedNet):  # type: ignore[misc]
    """A classifier whose hidden layers, of logistic units, were trained one by one before the whole net is.

    Data [n, n_features] that all lie in [0, 1] are taken as they are. Other data are standardised, column by column,
    and the first layer has Gaussian visible units, or a linear decoder and squared cost. The net computes in float32
    if it learnt from float32, otherwise in float64.

    - `hidden_layer_sizes`: units of each hidden layer, from the lowest up;
    - `unit`: how they are pretrained: "rbm", by contrastive divergence; "autoencoder"; "denoising", an autoencoder
      that sees corrupted data; "supervised", each with an output layer of its own; or "none", not at all;
    - `pretrain_epochs`: passes over the data for each layer;
    - `pretrain_learning_rate`: None takes what suits the unit: 0.1 for "rbm", 0.001 for Gaussian ones and for Adam,
      which trains the others;
    - `learning_rate`: of the fine-tuning; None takes what suits the optimizer;
    - `epochs`: of the fine-tuning, at most;
    - `batch_size`: examples a batch, both times; fewer where an epoch would have fewer than 50 batches, but not for
      "lbfgs" and "cg";
    - `optimizer`: of the fine-tuning: "adam", "sgd" (with momentum 0.9), "lbfgs" or "cg" (conjugate gradients),
      the latter two for large batches;
    - `dropout`: share of the hidden units that fine-tuning leaves out at each step;
    - `early_stopping`: whether to hold out part of the examples, of all classes alike, stop when the share of them
      that is told wrongly does not fall, and keep the best weights;
    - `validation_fraction`: that part;
    - `patience`: epochs without a lower error before it stops;
    - `random_state`: an int, a `RandomState` or None, as everywhere in scikit-learn;
    - `device`: where torch computes, training and predicting;
    - `verbose`: not 0 prints a line an epoch.

    Fitted: `net_`, an `nn.Sequential` from (X − `offset_`) / `scale_` to logits, `offset_` and `scale_` [n_features],
    `classes_`, `n_features_in_`, and `n_iter_`, the epochs of fine-tuning.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PretrainedNet._parameter_constraints,
        "unit": [StrOptions({"rbm", "autoencoder", "denoising", "supervised", "none"})],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100, 100),
        *,
        unit: str = "rbm",
        pretrain_epochs: int = 10,
        pretrain_learning_rate: float | None = None,
        learning_rate: float | None = 0.001,
        epochs: int = 20,
        batch_size: int = 100,
        optimizer: Method = "adam",
        dropout: float = 0.0,
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
        self.dropout = dropout
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> PretrainedClassifier:
        """Learns to tell the labels y [n], numbers or strings, of X [n, n_features]."""
        self._validate_params()
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes in the data, but the data contains only"
                f" one class: {self.classes_.tolist()[0]!r}"
            )
        rng = check_random_state(self.random_state)
        X, held_out = self._fit_scale(X), None
        if self.early_stopping:
            # however few they are, one example of each class or more
            count = max(math.ceil(self.validation_fraction * len(X)), len(self.classes_))
            X, held_X, labels, held_labels = train_test_split(
                X, labels, test_size=count, stratify=labels, random_state=rng
            )
            held_out = held_X, held_labels
        generator = generator_of(rng, self.device)
        layers = self._pretrained(X, labels if self.unit == "supervised" else None, generator)
        self.net_ = classifier(layers, len(self.classes_), generator, dropout=self.dropout)
        self._finetune(X, labels, held_out, generator)
        return self

    def decision_function(self, X: Any) -> Array:
        """The logits [n, classes] of X [n, n_features]; of two classes, the second less the first [n]."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict(self, X: Any) -> Array:
        """The likeliest labels [n] of X [n, n_features]."""
        likeliest = self._logits(X).argmax(1)
        return cast(Array, self.classes_[likeliest])

    def predict_proba(self, X: Any) -> Array:
        """The probabilities [n, classes] of the labels of X [n, n_features], in the order of `classes_`."""
        return cast(Array, softmax(self._logits(X), axis=1))

    def predict_log_proba(self, X: Any) -> Array:
        """Their natural logarithms [n, classes]."""
        return cast(Array, log_softmax(self._logits(X), axis=1))

    def _logits(self, X: Any) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOATS)
        return run_net(self.net_, self._scaled(X))
