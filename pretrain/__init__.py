"""Greedy layer-wise pretraining, and data to learn from. Imports neither gradtui nor textual."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain.autoencoder import Autoencoder as Autoencoder
    from pretrain.data import digits as digits
    from pretrain.data import mnist as mnist
    from pretrain.dbn import DBN as DBN
    from pretrain.dbn import deep_belief_net as deep_belief_net
    from pretrain.errors import DataError as DataError
    from pretrain.finetuning import finetune as finetune
    from pretrain.greedy import train_greedily as train_greedily
    from pretrain.layers import LAYERS as LAYERS
    from pretrain.layers import LayerKind as LayerKind
    from pretrain.layers import register_layer as register_layer
    from pretrain.likelihood import annealed_log_z as annealed_log_z
    from pretrain.likelihood import exact_log_z as exact_log_z
    from pretrain.likelihood import log_probability as log_probability
    from pretrain.likelihood import pseudo_log_likelihood as pseudo_log_likelihood
    from pretrain.negative import GradientEstimator as GradientEstimator
    from pretrain.nets import classifier as classifier
    from pretrain.nets import deep_autoencoder as deep_autoencoder
    from pretrain.objective import evaluate as evaluate
    from pretrain.rbm import RBM as RBM
    from pretrain.settings import FinetuneSettings as FinetuneSettings
    from pretrain.settings import GreedySettings as GreedySettings
    from pretrain.stack import Stack as Stack
    from pretrain.stack import load_net as load_net
    from pretrain.stack import load_stack as load_stack
    from pretrain.stack import save_net as save_net
    from pretrain.stack import save_stack as save_stack

_HOMES = {
    "autoencoder": "Autoencoder",
    "data": "digits mnist",
    "dbn": "DBN deep_belief_net",
    "errors": "DataError",
    "finetuning": "finetune",
    "greedy": "train_greedily",
    "layers": "LAYERS LayerKind register_layer",
    "likelihood": "annealed_log_z exact_log_z log_probability pseudo_log_likelihood",
    "negative": "GradientEstimator",
    "nets": "classifier deep_autoencoder",
    "objective": "evaluate",
    "rbm": "RBM",
    "settings": "FinetuneSettings GreedySettings",
    "stack": "Stack load_net load_stack save_net save_stack",
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: torch takes a second, and the data readers need none."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'pretrain' has no attribute {name!r}")
    try:
        return getattr(import_module(f"pretrain.{_MODULE_OF[name]}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(what_is_missing(error), name=error.name) from None


def what_is_missing(error: ModuleNotFoundError) -> str:
    """One line that says which library is not installed, and the command that installs it."""
    return f"{error.name} cannot be imported ({error}): pip install 'gradtui[lab]' installs it"
