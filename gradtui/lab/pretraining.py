"""Layers pretrained one at a time before the whole net is trained: the door to the package `pretrain`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from gradtui.errors import UsageError

if TYPE_CHECKING:
    from gradtui.lab.recipe import Recipe


def check_pretraining(recipe: Recipe) -> None:
    """Raise `UsageError` if a recipe asks for pretraining that this version of `pretrain` does not have."""
    if recipe.pretrain != "none" and find_spec("pretrain.greedy") is None:
        raise UsageError(
            f"--pretrain {recipe.pretrain}: the package pretrain has no greedy training in this version; leave it out"
        )
