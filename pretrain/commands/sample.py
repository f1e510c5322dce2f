"""`sample`: samples of a stack of RBMs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pretrain.commands.early_checks import LAYERS_FILE
from pretrain.errors import DataError
from pretrain.limits import check_memory
from pretrain.stack import load_stack


def sample(given: argparse.Namespace) -> int:
    """Write samples of a stack of RBMs."""
    stack = load_stack(given.folder / LAYERS_FILE)
    net = stack.belief_net()
    check_memory(4.0 * given.count * net.inputs, f"{given.count:,} samples")
    labels = None if given.label is None else torch.full((given.count,), given.label)
    generator = torch.Generator().manual_seed(given.seed)
    try:
        drawn = net.sample(given.count, labels=labels, steps=given.steps, generator=generator)
    except ValueError as error:
        raise DataError(str(error)) from error
    values = drawn.detach().numpy()
    shape: Any = stack.about.get("image_shape")
    # a list of two in a file that is whole
    fits = type(shape) is list and len(shape) == 2 and all(type(side) is int and side > 0 for side in shape)
    images = values.reshape(len(values), *shape) if fits and shape[0] * shape[1] == values.shape[1] else values
    _write(given.out, images)
    print(f"{given.count} samples: {given.out}")
    return 0


def _write(path: Path, images: np.ndarray[Any, Any]) -> None:
    """The images as they are, or side by side as a picture."""
    try:
        if path.suffix == ".npy":
            np.save(path, images)
            return
        if images.ndim != 3:
            raise DataError(f"{path}: the data are not images: use a file name that ends in .npy")
        try:
            from matplotlib.image import imsave
        except ImportError as error:
            raise DataError(
                "a .png needs matplotlib: pip install matplotlib, or use a file name that ends in .npy"
            ) from error
        imsave(path, tiled(images), cmap="gray", vmin=0, vmax=1)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error


def tiled(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images [n, rows, columns] side by side in a square, a pixel apart."""
    count, height, width = images.shape
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    canvas = np.zeros((down * (height + 1) - 1, across * (width + 1) - 1), images.dtype)
    for number, image in enumerate(images):
        top, left = number // across * (height + 1), number % across * (width + 1)
        canvas[top : top + height, left : left + width] = image
    return canvas
