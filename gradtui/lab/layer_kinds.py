"""The kinds of layers that `--pretrain` takes: those that are registered in the package `pretrain`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from gradtui.remedies import Remedy, choices


def layer_kind(name: str) -> Any:
    """The `pretrain.LayerKind` of this name."""
    return _registered()[name]


def pretraining_kinds() -> dict[str, Remedy | None]:
    """The values of `--pretrain`: none, those that are remedies, and every other kind that is registered."""
    found: dict[str, Remedy | None] = {"none": None, **choices("pretrain")}
    return found | {name: None for name in _registered() if name not in found}


def _registered() -> Mapping[str, Any]:
    # by name, when it is asked for: nothing that the viewer imports may import what trains; this module loads no torch
    kinds: Mapping[str, Any] = import_module("pretrain.layers").LAYERS
    return kinds
