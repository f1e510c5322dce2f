"""Greedy layer-wise pretraining, and the data it learns from. Stands alone: neither gradtui nor textual."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain.autoencoder import Autoencoder
    from pretrain.data import DataError, digits, mnist
    from pretrain.dbn import DBN, deep_belief_net
    from pretrain.finetuning import finetune
    from pretrain.greedy import train_greedily
    from pretrain.likelihood import annealed_log_z, exact_log_z, log_probability, pseudo_log_likelihood
    from pretrain.negative import GradientEstimator
    from pretrain.nets import classifier, deep_autoencoder
    from pretrain.objective import evaluate
    from pretrain.rbm import RBM
    from pretrain.stack import Stack, load_net, load_stack, save_net, save_stack

_HOMES = {
    "autoencoder": ("Autoencoder",),
    "data": ("DataError", "digits", "mnist"),
    "dbn": ("DBN", "deep_belief_net"),
    "finetuning": ("finetune",),
    "greedy": ("train_greedily",),
    "likelihood": ("annealed_log_z", "exact_log_z", "log_probability", "pseudo_log_likelihood"),
    "negative": ("GradientEstimator",),
    "nets": ("classifier", "deep_autoencoder"),
    "objective": ("evaluate",),
    "rbm": ("RBM",),
    "stack": ("Stack", "load_net", "load_stack", "save_net", "save_stack"),
}

__all__ = [
    "DBN",
    "RBM",
    "Autoencoder",
    "DataError",
    "GradientEstimator",
    "Stack",
    "annealed_log_z",
    "classifier",
    "deep_autoencoder",
    "deep_belief_net",
    "digits",
    "evaluate",
    "exact_log_z",
    "finetune",
    "load_net",
    "load_stack",
    "log_probability",
    "mnist",
    "pseudo_log_likelihood",
    "save_net",
    "save_stack",
    "train_greedily",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for: torch takes a second, and the data readers need none."""
    for module, names in _HOMES.items():
        if name in names:
            try:
                return getattr(import_module(f"pretrain.{module}"), name)
            except ModuleNotFoundError as error:
                raise ImportError(what_is_missing(error), name=error.name) from None
    raise AttributeError(f"module 'pretrain' has no attribute {name!r}")


def what_is_missing(error: ModuleNotFoundError) -> str:
    """One line that says which library is not installed, and the command that installs it."""
    return f"{error.name} cannot be imported ({error}): pip install 'gradtui[lab]' installs it"
