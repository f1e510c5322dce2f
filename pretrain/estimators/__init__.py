"""Scikit-learn estimators built on this package; importing them imports scikit-learn."""

from pretrain.estimators.bernoulli_rbm import BernoulliRBM
from pretrain.estimators.classifier import PretrainedClassifier
from pretrain.estimators.deep_autoencoder import DeepAutoencoder

__all__ = ["BernoulliRBM", "DeepAutoencoder", "PretrainedClassifier"]
