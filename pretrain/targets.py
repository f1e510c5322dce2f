"""Labels by index, and checks of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from pretrain.errors import DataError
from pretrain.rows import Data


class Targets:
    """Labels [n], integers, held in memory on their device: eight bytes each are few beside the images."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Tensor:
        """The labels [batch] of the examples of these indices."""
        return self.labels[indices.to(self.labels.device)]


def targets_of(targets: Data, count: int, device: torch.device) -> Targets:
    """The labels of `count` examples: a tensor or array [n], or a torch data set of (example, label).

    Raises `DataError` for another shape or number of labels, and for labels that are not integers from 0 up.
    """
    if isinstance(targets, TorchDataset):
        labels = torch.as_tensor([int(targets[number][1]) for number in range(count)])
    else:
        # a copy: torch would warn of an array that may not be written to
        labels = targets.detach() if isinstance(targets, Tensor) else _tensor(np.array(targets))
    if labels.ndim != 1 or len(labels) != count:
        raise DataError(f"there are {count:,} examples, but labels of shape {list(labels.shape)}: pass one each")
    whole = labels.to(torch.int64)
    if labels.dtype.is_complex or bool((whole != labels).any()) or (count and int(whole.min()) < 0):
        raise DataError("the labels must be whole numbers from 0 up, one number per class")
    return Targets(whole.to(device))


def _tensor(labels: np.ndarray[Any, Any]) -> Tensor:
    if labels.dtype.kind not in "biuf":
        raise DataError(f"the labels are of type {labels.dtype}: they must be whole numbers from 0 up")
    kind = np.float64 if labels.dtype.itemsize > 8 else labels.dtype.newbyteorder("=")
    return torch.as_tensor(labels.astype(kind, copy=False))


def check_labels(targets: Targets, classes: int | None = None) -> int:
    """How many classes there are: one more than the largest label, or `classes`.

    Raises `DataError` if all labels are equal, or a label is out of range.
    """
    largest = int(targets.labels.max())
    if largest == int(targets.labels.min()):
        raise DataError(f"all labels are {largest}: with one class there is nothing to learn")
    if classes is not None and largest >= classes:
        raise DataError(f"there is a label {largest}, but the net has {classes} outputs, for labels from 0")
    return largest + 1 if classes is None else classes
