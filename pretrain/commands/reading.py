"""What `evaluate` and `features` share: the data, and encoding by a stack."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from pretrain.commands.early_checks import data_folder
from pretrain.errors import DataError
from pretrain.rbm import RBM
from pretrain.sources import Source, source
from pretrain.stack import Stack

_TYPES: dict[str, Any] = {"data": str, "labels": str, "scale": (int, float)}
CPU = torch.device("cpu")


def source_for(given: argparse.Namespace, stack: Stack) -> Source:
    """The named data, or those of the training; raises `DataError` if they do not fit."""
    name, before = given.data or trained_with(stack, "data"), trained_with(stack, "labels")
    if not name:
        raise DataError(f"{given.folder} does not say what its layers were trained on: name the data with --data")
    labels = given.labels or (Path(before) if before and not given.data else None)
    data = source(name, data_folder(given.data_dir), labels)
    if data.train.images[:1].reshape(1, -1).shape[1] != _columns(stack):
        columns = data.train.images[:1].size
        raise DataError(f"{data.name} has {columns} columns, but the stack takes {_columns(stack)}")
    return data


def scale_for(given: argparse.Namespace, stack: Stack) -> float | None:
    """The number that the data are divided by, as in the training unless given."""
    return given.scale or trained_with(stack, "scale") or None


def trained_with(stack: Stack, name: str) -> Any:
    """A setting of the training about its data; None if the file does not say it, or says something else."""
    settings = stack.about.get("settings")
    value = settings.get(name) if isinstance(settings, dict) else None
    return value if isinstance(value, _TYPES[name]) else None


def _columns(stack: Stack) -> int:
    lowest = stack.layers[0]
    labels = sum(lowest.groups) if isinstance(lowest, RBM) else 0
    return lowest.inputs - labels


def labels_on_top(stack: Stack) -> int:
    """How many label units the top RBM has."""
    top = stack.layers[-1]
    return sum(top.groups) if isinstance(top, RBM) else 0


@torch.no_grad()
def encoded(stack: Stack, x: torch.Tensor) -> torch.Tensor:
    """The top layer's code [batch, units] of x [batch, columns]."""
    if labels_on_top(stack):
        net = stack.belief_net()
        features = net.features(x)
        # no label is known: all are equally likely
        share = torch.full((len(x), net.classes), 1 / net.classes)
        return net.top.encode(torch.cat([features, share], dim=1))
    for layer in stack.layers:
        x = layer.encode(x)
    return x
