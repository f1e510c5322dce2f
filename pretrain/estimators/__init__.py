"""Estimators, as scikit-learn has them, on top of this package; to import them is to import scikit-learn."""

from pretrain.estimators.bernoulli_rbm import BernoulliRBM
from pretrain.estimators.classifier import PretrainedClassifier
from pretrain.estimators.deep_autoencoder import DeepAutoencoder

__all__ = ["BernoulliRBM", "DeepAutoencoder", "PretrainedClassifier"]
