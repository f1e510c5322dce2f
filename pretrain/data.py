"""The data sets: handwritten digits (bundled with scikit-learn), MNIST from its IDX files, synthetic sequences.

numpy only.
"""

from __future__ import annotations

import gzip
import importlib.util
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from pretrain.errors import DataError

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MNIST_COUNTS = {"train": 60_000, "test": 10_000}
MNIST_TRAINING = 50_000  # Nielsen's split: the other 10,000 of the 60,000 are for validation
DIGITS_TRAINING, DIGITS_VALIDATION = 1_200, 297  # the other 300 of the 1,797 are for the test
PIECE = 1 << 20  # bytes that are read at a time
MOST_BYTES = 1 << 30  # a header that claims more is refused: EMNIST, the largest relative of MNIST, has 0.55 GB

MOST_OF_MNIST = 1 << 28  # a few MB of a .gz may unpack to as much as its header promises

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@dataclass(frozen=True)
class Split:
    """Images [n, pixels] in [0, 1], and their labels [n]."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Split:
        """The first `count` images; None means all."""
        return self if count is None else Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Dataset:
    """A data set in its three parts; `image_shape` is (rows, columns)."""

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    image_shape: tuple[int, int]


def digits() -> Dataset:
    """1,797 handwritten digits of 8×8 pixels, scaled to [0, 1], shuffled once by a fixed seed.

    1,200 are for training, 297 for validation, 300 for the test. Source: Alpaydin & Kaynak 1998, the test part, as
    bundled with scikit-learn.
    """
    pixels, labels = _bundled_digits()
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (pixels[order] / 16).astype(np.float32), labels[order].astype(np.int64)
    whole = Split(images, labels)
    second = DIGITS_TRAINING + DIGITS_VALIDATION
    splits = (_range(whole, 0, DIGITS_TRAINING), _range(whole, DIGITS_TRAINING, second), _range(whole, second, None))
    return Dataset("digits", *splits, classes=10, image_shape=(8, 8))


def _bundled_digits() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Pixels [1797, 64] from 0 to 16, and labels [1797]."""
    package = importlib.util.find_spec("sklearn")
    table = Path(package.origin).parent / "datasets/data/digits.csv.gz" if package and package.origin else None
    if table is not None and table.exists():
        # read straight from the package: importing scikit-learn for its table would take most of a second
        values = np.loadtxt(table, delimiter=",")
        return values[:, :-1], values[:, -1].astype(np.int64)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels


def mnist(folder: Path | None, train_size: int | None = None) -> Dataset:
    """MNIST, pixels divided by 256 as in Nielsen's book: 50,000 training, 10,000 validation, 10,000 test images.

    Of the training images only the first `train_size` are made into numbers; None means all. Raises `DataError` if
    `folder` does not hold the four IDX files, plain or gzip-compressed.
    """
    paths = mnist_paths(folder)
    assert folder is not None  # that was an error
    images, labels = _mnist_split(folder, paths, "train")
    taken = MNIST_TRAINING if train_size is None else min(train_size, MNIST_TRAINING)
    return Dataset(
        "mnist",
        _as_numbers(images[:taken], labels[:taken]),
        _as_numbers(images[MNIST_TRAINING:], labels[MNIST_TRAINING:]),
        _as_numbers(*_mnist_split(folder, paths, "test")),
        classes=10,
        image_shape=(28, 28),
    )


def adding(count: int, length: int, generator: np.random.Generator) -> tuple[Images, Images]:
    """The adding problem: sequences [count, length, 2] and their targets [count, 1].

    At each time step stand a number from U(0, 1) and a mark, which is 1 at one step of the first half and one of the
    second, otherwise 0; the target is the sum of the two marked numbers. Always guessing 1 has a mean squared error of
    1/6. Source: Hochreiter & Schmidhuber 1997, section 5.4, in the form of Le et al. 2015. Raises `DataError` for a
    length under 2.
    """
    if length < 2:
        raise DataError(f"the adding problem needs sequences of 2 time steps or more, not {length}")
    numbers = generator.random((count, length), np.float32)
    half = length // 2
    first, second = generator.integers(0, half, count), generator.integers(half, length, count)
    rows = np.arange(count)
    marks = np.zeros_like(numbers)
    marks[rows, first] = marks[rows, second] = 1
    targets = numbers[rows, first] + numbers[rows, second]
    return np.stack([numbers, marks], axis=2), targets[:, None]


def read_idx(path: Path, most: int = MOST_BYTES) -> npt.NDArray[np.generic]:
    """An IDX file, plain or gzip-compressed, as an array in native byte order.

    The format: two zero bytes, a type, the number of dimensions, each as a big-endian 32-bit size, then the values.
    Raises `DataError` for anything else, and where more than `most` bytes of values are promised.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise DataError(f"cannot read {path}: it is not a file")
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            return _parse_idx(gzip.GzipFile(fileobj=raw) if packed else raw, path, most)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise DataError(f"cannot read {path}: {error or 'it takes more memory than there is'}") from error


def _read(file: BinaryIO | gzip.GzipFile, most: int) -> bytes:
    """As `file.read(most)`, but memory is taken for what is there alone, and not for what is promised."""
    pieces, left = [], most
    while left and (piece := file.read(min(left, PIECE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _parse_idx(file: BinaryIO | gzip.GzipFile, path: Path, most: int) -> npt.NDArray[np.generic]:
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _IDX_TYPES or not start[3]:
        raise DataError(f"{path} is not an IDX file: its first bytes are {start.hex(' ') or 'missing'}")
    dimensions, kind = start[3], np.dtype(_IDX_TYPES[start[2]])
    header = file.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise DataError(f"{path} is cut short: its header needs {4 + 4 * dimensions} bytes, it has {4 + len(header)}")
    shape = struct.unpack(f">{dimensions}I", header)
    # numpy counts a size of 0 as 1 when it asks whether an array is too large, so this does too
    if dimensions > 8 or math.prod(max(1, side) for side in shape) * kind.itemsize > most:
        raise DataError(f"{path} promises {' × '.join(map(str, shape[:8]))} values: that is no data set of ours")
    size = math.prod(shape) * kind.itemsize
    # one byte more than was promised tells whether there are more, however many a small .gz unpacks to
    content = _read(file, size + 1)
    if len(content) != size:
        what = f"it has {len(content):,}: it is cut short" if len(content) < size else "it has bytes left over"
        raise DataError(f"{path} does not fit its header, which promises {size:,} bytes of values: {what}")
    return np.frombuffer(content, kind).reshape(shape).astype(kind.newbyteorder("="))


def mnist_paths(folder: Path | None) -> dict[str, Path]:
    """Where the four files are, by their names; raises `DataError` as `mnist`."""
    if folder is None:
        raise DataError("MNIST is not there: name the folder with its IDX files (--data-dir, or GRADTUI_DATA)")
    names = [name for pair in MNIST_FILES.values() for name in pair]
    candidates = [(name, folder / f"{name}{end}") for name in names for end in (".gz", "")]
    try:
        paths = {name: path for name, path in candidates if path.exists()}
    except OSError as error:  # a folder that may not be entered, or a name that is too long
        raise DataError(f"cannot look for MNIST in {folder}: {error.strerror}") from error
    missing = [name for name in names if name not in paths]
    if missing:
        raise DataError(
            f"MNIST is not there: {folder} has no {', no '.join(missing)} (.gz or not); put the four IDX files of the"
            " MNIST database of LeCun, Cortes and Burges there, or name another folder (--data-dir, or GRADTUI_DATA)",
            most=5000,  # a path may have 4,096
        )
    return paths


def _mnist_split(folder: Path, paths: Mapping[str, Path], split: str) -> tuple[Bytes, Bytes]:
    """Images [n, 28, 28] and labels [n], as the files hold them."""
    images, labels = (read_idx(paths[name], MOST_OF_MNIST) for name in MNIST_FILES[split])
    if images.ndim != 3 or images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise DataError(
            f"{MNIST_FILES[split][0]} in {folder} holds {images.shape} {images.dtype}, not 28×28 bytes an image"
        )
    if labels.shape != images.shape[:1] or labels.dtype != np.uint8:
        raise DataError(f"{folder} holds {len(images):,} {split} images but {labels.shape} labels: they must match")
    if len(labels) and labels.max() > 9:
        raise DataError(f"{MNIST_FILES[split][1]} in {folder} holds the label {labels.max()}: MNIST's are 0 to 9")
    if len(labels) != MNIST_COUNTS[split]:
        raise DataError(f"{folder} holds {len(labels):,} {split} images: MNIST has {MNIST_COUNTS[split]:,}")
    return images.astype(np.uint8, copy=False), labels.astype(np.uint8, copy=False)


def _as_numbers(images: Bytes, labels: Bytes) -> Split:
    pixels = images.reshape(len(images), 28 * 28).astype(np.float32)
    pixels /= 256
    return Split(pixels, labels.astype(np.int64))


def _range(split: Split, start: int, stop: int | None) -> Split:
    return Split(split.images[start:stop], split.labels[start:stop])
