"""Data by name for the commands: digits, mnist, an .npz file, or an .npy file that is memory-mapped."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pretrain.data import Dataset, digits, mnist
from pretrain.errors import DataError
from pretrain.rows import Mapped, Rows, rows_of

Array = npt.NDArray[Any]

# usual names of arrays in .npz files
_IMAGES = ("images", "x_train", "train_images", "x", "X", "data")
_LABELS = ("labels", "y_train", "train_labels", "y", "Y", "target")
_TEST_IMAGES, _TEST_LABELS = ("test_images", "x_test"), ("test_labels", "y_test")
_USED = (_IMAGES, _LABELS, _TEST_IMAGES, _TEST_LABELS)
# what a file that is damaged or forged may raise
UNREADABLE = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError, SyntaxError, MemoryError,
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip
BYTE = 255.0  # the largest byte


@dataclass(frozen=True)
class DataSplit:
    """Images [n, …] in memory or in a file, and their labels [n], if there are any."""

    images: Array
    labels: Array | None = None

    def rows(self, device: torch.device, scale: float | None) -> Rows:
        """The images as rows of float32 on `device`, divided by `scale`; bytes by 255 if there is none."""
        flat = self.images.reshape(len(self.images), -1)
        if scale is None:
            scale = BYTE if flat.dtype == np.uint8 else 1.0
        rows = rows_of(flat, device, torch.float32)
        return rows if scale == 1 else Mapped(rows, lambda x: x / scale, rows.columns)

    def needs_labels(self, name: str) -> Array:
        """The labels; raises `DataError` if there are none."""
        if self.labels is None:
            raise DataError(f"{name} has no labels: give them with --labels FILE.npy")
        return self.labels


@dataclass(frozen=True)
class Source:
    """A data set in its splits; `image_shape` is (rows, columns), if the examples are pictures."""

    name: str
    train: DataSplit
    validation: DataSplit | None = None
    test: DataSplit | None = None
    image_shape: tuple[int, int] | None = None


def source(name: str, folder: Path | None = None, labels: Path | None = None) -> Source:
    """The data called `name`: digits, mnist (its IDX files in `folder`), or the path of an .npz or .npy file.

    Of an .npz file the images are `images`, `x` or `x_train`, the labels `labels`, `y` or `y_train`, and what is called
    `x_test` and `y_test` is the test. An .npy file [n, …] is read as it is needed; `labels` is an .npy file beside it.
    Raises `DataError` for data that are missing, damaged or not numeric.
    """
    if name == "digits":
        return _of_dataset(digits())
    if name == "mnist":
        return _of_dataset(mnist(folder))
    path = Path(name)
    if path.suffix not in (".npy", ".npz"):
        raise DataError(f"unknown data {name!r}: use digits, mnist, or an .npz or .npy file")
    found = Source(str(path), _checked(_mapped(path), path)) if path.suffix == ".npy" else _of_npz(path)
    if labels is not None:
        given = _mapped(labels)
        if given.ndim != 1 or len(given) != len(found.train.images):
            count = len(found.train.images)
            raise DataError(
                f"{labels} holds {list(given.shape)}, but {path} {count:,} examples: there must be one label each"
            )
        found = replace(found, train=DataSplit(found.train.images, given))
    return found


def hold_out(split: DataSplit, share: float, seed: int) -> tuple[DataSplit, DataSplit]:
    """The split without `share` of its examples, and these, drawn by `seed`; both are copies in memory."""
    order = np.random.default_rng(seed).permutation(len(split.images))
    count = max(1, round(share * len(order)))
    if count >= len(order):
        raise DataError(f"{len(order)} examples are too few to hold out {share:.0%} of them for validation")
    sides = (np.sort(order[count:]), np.sort(order[:count]))
    kept, held = (
        DataSplit(split.images[side], None if split.labels is None else split.labels[side]) for side in sides
    )  # fmt: skip
    return kept, held


def _of_dataset(data: Dataset) -> Source:
    train, validation, test = (
        DataSplit(split.images, split.labels) for split in (data.train, data.validation, data.test)
    )
    return Source(data.name, train, validation, test, data.image_shape)


def _of_npz(path: Path) -> Source:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            # no others: each may unpack to a thousand times what it takes in the file
            used = [next((name for name in usual if name in names), None) for usual in _USED]
            arrays = {name: file[name] for name in used if name is not None}
    except FileNotFoundError as error:
        raise DataError(f"the file {path} does not exist") from error
    except UNREADABLE as error:
        raise DataError(f"cannot read {path}: {error or type(error).__name__}") from error
    images = _first(arrays, _IMAGES)
    if images is None:
        raise DataError(
            f"{path} holds {', '.join(names) or 'nothing'}: the images must be called one of {', '.join(_IMAGES)}"
        )
    train = _checked(images, path, _first(arrays, _LABELS))
    tests = _first(arrays, _TEST_IMAGES)
    test = None if tests is None else _checked(tests, path, _first(arrays, _TEST_LABELS))
    return Source(str(path), train, None, test, _shape(images))


def _first(arrays: dict[str, Array], names: tuple[str, ...]) -> Array | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _mapped(path: Path) -> Array:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"the file {path} does not exist") from error
    except UNREADABLE as error:
        raise DataError(f"cannot read {path}: {error or type(error).__name__}") from error
    if not isinstance(values, np.ndarray):
        raise DataError(f"{path} holds several arrays: rename it to .npz")
    return values


def _checked(images: Array, path: Path, labels: Array | None = None) -> DataSplit:
    if images.ndim < 2 or images.dtype.kind not in "biuf":
        raise DataError(
            f"{path} holds {list(images.shape)} {images.dtype}: it must hold numbers as [examples, columns]"
        )
    if not len(images):
        raise DataError(f"{path} holds no examples")
    if labels is not None:
        labels = labels.reshape(-1)
        if len(labels) != len(images):
            raise DataError(f"{path} holds {len(images):,} examples but {len(labels):,} labels: they must match")
    return DataSplit(images, labels)


def _shape(images: Array) -> tuple[int, int] | None:
    return (images.shape[1], images.shape[2]) if images.ndim == 3 else None
