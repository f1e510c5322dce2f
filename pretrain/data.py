"""The data sets: handwritten digits (bundled with scikit-learn) and MNIST from its IDX files. numpy only."""

from __future__ import annotations

import gzip
import importlib.util
import io
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MNIST_TRAINING = 50_000  # Nielsen's split: the other 10,000 of the 60,000 are for validation
DIGITS_TRAINING, DIGITS_VALIDATION = 1_200, 297  # the other 300 of the 1,797 are for the test
MOST_BYTES = 1 << 32  # a header that promises more is not believed

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class DataError(ValueError):
    """Data are missing or damaged; the message is one line that says what, where and what to do."""


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
    parts = (_part(whole, 0, DIGITS_TRAINING), _part(whole, DIGITS_TRAINING, second), _part(whole, second, None))
    return Dataset("digits", *parts, classes=10, image_shape=(8, 8))


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


def mnist(folder: Path | None) -> Dataset:
    """MNIST, pixels divided by 256 as in Nielsen's book: 50,000 training, 10,000 validation, 10,000 test images.

    Raises `DataError` if `folder` does not hold the four IDX files, plain or gzip-compressed.
    """
    if folder is None:
        raise DataError("MNIST is not there: name the folder with its IDX files (--data-dir, or GRADTUI_DATA)")
    training, test = (_mnist_part(folder, part) for part in ("train", "test"))
    return Dataset(
        "mnist", _part(training, 0, MNIST_TRAINING), _part(training, MNIST_TRAINING, None), test, 10, (28, 28)
    )


def read_idx(path: Path) -> npt.NDArray[np.generic]:
    """An IDX file, plain or gzip-compressed, as an array in native byte order.

    The format: two zero bytes, a type, the number of dimensions, each as a big-endian 32-bit size, then the values.
    Raises `DataError` for anything else.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = _gunzip(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    return _parse_idx(content, path)


def _gunzip(content: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        return file.read(MOST_BYTES + 1)


def _parse_idx(content: bytes, path: Path) -> npt.NDArray[np.generic]:
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES or not content[3]:
        raise DataError(f"{path} is not an IDX file: its first bytes are {content[:4].hex(' ') or 'missing'}")
    dimensions, kind = content[3], np.dtype(_IDX_TYPES[content[2]])
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{path} is cut short: its header needs {start} bytes, it has {len(content)}")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    size = math.prod(shape) * kind.itemsize
    if dimensions > 8 or size > MOST_BYTES:
        raise DataError(f"{path} promises {' × '.join(map(str, shape[:8]))} values: that is no data set of ours")
    if len(content) - start != size:
        what = "is cut short" if len(content) - start < size else "has bytes left over"
        raise DataError(f"{path} {what}: its header promises {size:,} bytes of values, it has {len(content) - start:,}")
    values = np.frombuffer(content, kind, offset=start).reshape(shape)
    return values.astype(kind.newbyteorder("="))


def _mnist_part(folder: Path, part: str) -> Split:
    images, labels = (read_idx(_find(folder, name)) for name in MNIST_FILES[part])
    if images.ndim != 3 or images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise DataError(
            f"{MNIST_FILES[part][0]} in {folder} holds {images.shape} {images.dtype}, not 28×28 bytes an image"
        )
    if labels.shape != images.shape[:1] or labels.dtype != np.uint8:
        raise DataError(f"{folder} holds {len(images):,} {part} images but {labels.shape} labels: they must match")
    if len(labels) and labels.max() > 9:
        raise DataError(f"{MNIST_FILES[part][1]} in {folder} holds the label {labels.max()}: MNIST's are 0 to 9")
    pixels = images.reshape(len(images), -1).astype(np.float32) / np.float32(256)
    return Split(pixels, labels.astype(np.int64))


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.exists():
            return candidate
    raise DataError(
        f"MNIST is not there: {name}[.gz] is not in {folder}; put the four IDX files of the MNIST database of LeCun,"
        " Cortes and Burges there, or name another folder (--data-dir, or GRADTUI_DATA)"
    )


def _part(split: Split, start: int, stop: int | None) -> Split:
    return Split(split.images[start:stop], split.labels[start:stop])
