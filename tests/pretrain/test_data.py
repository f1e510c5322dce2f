"""The data sets, and the IDX reader against anything that a file can hold."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pretrain.data import MNIST_FILES, DataError, digits, mnist, read_idx

TYPES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, TYPES[array.dtype.str[1:]], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@settings(deadline=None)
@given(
    array=st.sampled_from(sorted(TYPES)).flatmap(
        lambda kind: arrays.arrays(np.dtype(kind), arrays.array_shapes(max_dims=4, max_side=5))
    ),
    packed=st.booleans(),
)
def test_any_array_comes_back(array: np.ndarray, packed: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("idx") / "data"
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    read = read_idx(path)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@settings(deadline=None)
@given(
    content=st.binary(max_size=60)
    | st.binary(max_size=40).map(lambda rest: b"\0\0\x08" + rest)
    | st.binary(max_size=40).map(lambda rest: b"\x1f\x8b" + rest)
    | st.tuples(st.binary(min_size=5, max_size=60), st.integers(0, 70)).map(lambda p: gzip.compress(p[0])[: p[1]])
)
def test_any_bytes_are_an_array_or_a_data_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("idx") / "data"
    path.write_bytes(content)
    try:
        read_idx(path)
    except DataError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (idx(np.zeros((3, 4), "u1"))[:-1], "is cut short"),
        (idx(np.zeros((3, 4), "u1")) + b"x", "has bytes left over"),
        (b"\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "promises"),
        (b"\0\0\x08\x03\0", "is cut short"),
        (b"hello", "is not an IDX file"),
        (b"", "is not an IDX file"),
        (b"\x1f\x8bgarbage", "cannot read"),
    ],
)
def test_damage_is_named(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_idx(path)


def small_mnist(folder: Path, images: int, labels: int, *, label: int = 3, side: int = 28) -> Path:
    for part in MNIST_FILES.values():
        (folder / part[0]).write_bytes(idx(np.zeros((images, side, side), "u1")))
        (folder / f"{part[1]}.gz").write_bytes(gzip.compress(idx(np.full(labels, label, "u1"))))
    return folder


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must match"):
        mnist(small_mnist(tmp_path, 5, 4))
    with pytest.raises(DataError, match="label 12"):
        mnist(small_mnist(tmp_path, 5, 5, label=12))
    with pytest.raises(DataError, match="not 28×28"):
        mnist(small_mnist(tmp_path, 5, 5, side=27))
    with pytest.raises(DataError, match="t10k-labels"):
        (small_mnist(tmp_path, 5, 5) / "t10k-labels-idx1-ubyte.gz").unlink()
        mnist(tmp_path)
    with pytest.raises(DataError, match="--data-dir, or GRADTUI_DATA"):
        mnist(None)


def test_digits_are_split_once_and_for_all() -> None:
    data, again = digits(), digits()
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1200, 297, 300]
    images = np.concatenate([data.train.images, data.validation.images, data.test.images])
    assert images.shape == (1797, 64) and images.dtype == np.float32
    assert images.min() == 0 and images.max() == 1
    np.testing.assert_array_equal(data.train.images, again.train.images)
    from sklearn.datasets import load_digits

    whole = load_digits().data / 16
    np.testing.assert_array_equal(np.unique(images, axis=0), np.unique(whole.astype(np.float32), axis=0))
    assert all(set(part.labels) == set(range(10)) for part in (data.train, data.validation, data.test))


def test_mnist_is_split_as_in_the_book(mnist_folder: Path) -> None:
    data = mnist(mnist_folder)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [50_000, 10_000, 10_000]
    assert data.train.images.max() == np.float32(255 / 256) and data.train.images.min() == 0
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
