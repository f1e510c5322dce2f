"""A deep classifier, pretrained layer by layer."""
# ruff: noqa: N803, N806  X is scikit-learn's name for the data

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, cast

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

# not public, but what scikit-learn's own partial_fit calls
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from pretrain.estimators.conventions import FLOATS, Array, generator_of
from pretrain.estimators.pretrained_net import PretrainedNet, run_net
from pretrain.layers import LAYERS
from pretrain.nets import classifier


@dataclass(eq=False, repr=False)
class PretrainedClassifier(ClassifierMixin, PretrainedNet):  # type: ignore[misc]
    """A classifier whose hidden layers, of logistic units, are trained one by one before the whole net is.

    Data [n, n_features] that all lie in [0, 1] are taken as they are. Other data are standardised, column by column,
    and the first layer has Gaussian visible units, or a linear decoder and squared cost. The net computes in float32
    if it learnt from float32, otherwise in float64.

    The parameters are those of `PretrainedNet`, and

    - `dropout`: the fraction of the hidden units that fine-tuning drops at each step.

    `unit` may also be "supervised": each layer learns with an output layer of its own. Early stopping holds out
    examples of all classes in proportion, and watches the error rate.

    Fitted: `net_`, an `nn.Sequential` from (X − `offset_`) / `scale_` to logits, `offset_` and `scale_` [n_features],
    `classes_`, `n_features_in_`, and `n_iter_`, the epochs of fine-tuning.
    """

    dropout: float = 0.0

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PretrainedNet._parameter_constraints,
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }
    _has_labels: ClassVar[bool] = True

    def fit(self, X: Any, y: Any) -> PretrainedClassifier:
        """Learn to predict the labels y [n], numbers or strings, of X [n, n_features]."""
        self._validate_params()
        goes_on = self._goes_on()
        X, y = validate_data(self, X, y, dtype=FLOATS, reset=not goes_on)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        known: Array = getattr(self, "classes_", classes) if goes_on else classes
        if not np.array_equal(classes, known):
            raise ValueError(f"warm_start goes on with the classes {known.tolist()}, not {classes.tolist()}")
        self.classes_ = classes
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes in the data, but the data contains only"
                f" one class: {self.classes_.tolist()[0]!r}"
            )
        rng = check_random_state(self.random_state)
        X, held_out = self._scaled(X) if goes_on else self._fit_scale(X), None
        if self.early_stopping:
            # however few they are, one example of each class or more
            count = max(math.ceil(self.validation_fraction * len(X)), len(self.classes_))
            X, held_X, labels, held_labels = train_test_split(
                X, labels, test_size=count, stratify=labels, random_state=rng
            )
            held_out = held_X, held_labels
        generator = generator_of(rng, self.device)
        if not goes_on:
            self._make_net(X, labels, generator)
        self._finetune(X, labels, held_out, generator)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> PretrainedClassifier:
        """One epoch of fine-tuning on the batch X [n, n_features] with labels y [n], from where the last call ended.

        The first call needs all `classes`; it sets scale and layers, which it pretrains, by its batch. No examples are
        held out.
        """
        self._begin_part()
        first = not hasattr(self, "net_")
        _check_partial_fit_first_call(self, classes)
        X, y = validate_data(self, X, y, dtype=FLOATS, reset=first)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y has labels that are not among classes: {unknown.tolist()}")
        X, labels = self._fit_scale(X) if first else self._scaled(X), np.searchsorted(self.classes_, y)
        generator = generator_of(self.random_state_, self.device)
        if first:
            self._make_net(X, labels, generator)
        self._finetune(X, labels, None, generator, is_part=True)
        return self

    def _make_net(self, X: Array, labels: Array, generator: torch.Generator) -> None:
        supervised = self.unit != "none" and LAYERS[self.unit].supervised
        layers = self._pretrained(X, labels if supervised else None, generator)
        self.net_ = classifier(layers, len(self.classes_), generator, dropout=self.dropout)

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
