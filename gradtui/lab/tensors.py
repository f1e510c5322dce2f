"""A recipe's data as tensors, resident in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gradtui.errors import DataMissingError
from gradtui.lab.background import data_folder
from gradtui.lab.recipe import Recipe
from pretrain.data import Dataset, Images, adding, digits, mnist
from pretrain.errors import DataError

SEQUENCES = 1_000  # of the adding problem, for the validation and as many for the test
_VALIDATION, _TEST = 1, 2  # parts of the adding problem beside the epochs: each has numbers of its own


@dataclass(frozen=True)
class Tensors:
    """Inputs [n, …] and targets: one-hot [n, classes], labels [n] for softmax, numbers [n, 1] for sequences.

    `validation` and `test` are (inputs, labels or numbers); None for the data set `point`.
    """

    images: Tensor
    targets: Tensor
    validation: tuple[Tensor, Tensor] | None
    test: tuple[Tensor, Tensor] | None


def load(recipe: Recipe) -> Tensors:
    """The data of a recipe; raises `DataMissingError` if they are not there."""
    dtype = torch.float64 if recipe.dtype == "float64" else torch.float32
    if recipe.data == "point":
        one = torch.tensor([[recipe.point]], dtype=dtype)
        return Tensors(one, torch.ones(1, 1, dtype=dtype), None, None)
    if recipe.data == "adding":
        return Tensors(
            *sequences_of_epoch(recipe, 0),
            _sequences(recipe, SEQUENCES, _VALIDATION),
            _sequences(recipe, SEQUENCES, _TEST),
        )
    dataset = _dataset(recipe)
    training = dataset.train.first(recipe.train_size)
    shift, scale = _scaling(recipe, training.images)
    parts = []
    for split in (training, dataset.validation, dataset.test):
        images = torch.from_numpy((split.images - shift) * scale if recipe.input_scale != "unit" else split.images)
        if recipe.recurrent:  # read row by row, from the top
            images = images.reshape(len(images), *dataset.image_shape)
        parts.append((images.to(dtype), torch.from_numpy(split.labels)))
    images, labels = parts[0]
    targets = labels if recipe.cost == "softmax" else functional.one_hot(labels, dataset.classes).to(dtype)
    return Tensors(images, targets, parts[1], parts[2])


def sequences_of_epoch(recipe: Recipe, epoch: int) -> tuple[Tensor, Tensor]:
    """The adding problem has new sequences in each epoch: [images, length, 2] and their targets [images, 1]."""
    return _sequences(recipe, recipe.images, 0, epoch)


def _sequences(recipe: Recipe, count: int, part: int, epoch: int = 0) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if recipe.dtype == "float64" else torch.float32
    inputs, targets = adding(count, recipe.length, np.random.default_rng((recipe.seed, part, epoch)))
    return torch.from_numpy(inputs).to(dtype), torch.from_numpy(targets).to(dtype)


def _dataset(recipe: Recipe) -> Dataset:
    try:
        if recipe.data == "digits":
            return digits()
        folder = data_folder(recipe)
        return mnist(None if folder is None else Path(folder).expanduser(), recipe.train_size)
    except DataError as error:
        raise DataMissingError(str(error)) from error


def _scaling(recipe: Recipe, images: Images) -> tuple[Images | np.float32, Images | np.float32]:
    """What is taken off each input, and what the rest is multiplied by."""
    if recipe.input_scale == "standardised":
        deviation = images.std(axis=0)
        # a pixel that is always blank stays 0
        return images.mean(axis=0), np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    return np.float32(0.5), np.float32(2.0)
