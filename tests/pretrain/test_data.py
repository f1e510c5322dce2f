"""The data sets, and the IDX reader against anything that a file can hold."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pretrain.data import MNIST_FILES, digits, mnist, read_idx
from pretrain.errors import DataError

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
        (b"\0\0\x08\x03" + struct.pack(">3I", 0, 2**32 - 1, 2**32 - 1), "promises 0 × 4294967295"),
        (b"\0\0\x0e\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 0), "promises"),
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


SIZES = st.lists(st.sampled_from([0, 1, 2, 255, 2**16, 2**30, 2**31, 2**32 - 1]), min_size=1, max_size=9)


@given(kind=st.sampled_from(sorted(TYPES.values())), sizes=SIZES, values=st.binary(max_size=20))
def test_any_header_is_an_array_or_a_data_error(
    kind: int, sizes: list[int], values: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("idx") / "data"
    path.write_bytes(bytes([0, 0, kind, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + values)
    try:
        assert read_idx(path).shape == tuple(sizes)
    except DataError as error:
        assert str(path) in str(error)


def test_a_small_file_that_unpacks_to_much_is_refused_before_it_does(tmp_path: Path) -> None:
    path = tmp_path / "data.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(2, "u1")) + bytes(100 << 20)))
    tracemalloc.start()
    with pytest.raises(DataError, match="has bytes left over"):
        read_idx(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 << 20


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
    with pytest.raises(DataError, match="5 train images: MNIST has 60,000"):
        mnist(small_mnist(tmp_path, 5, 5))


def test_missing_files_are_all_named_with_the_folder_and_what_to_do(tmp_path: Path) -> None:
    small_mnist(tmp_path, 5, 5)
    for name in ("t10k-labels-idx1-ubyte.gz", "train-images-idx3-ubyte"):
        (tmp_path / name).unlink()
    with pytest.raises(DataError) as caught:
        mnist(tmp_path)
    text = str(caught.value)
    assert f"{tmp_path} has no train-images-idx3-ubyte, no t10k-labels-idx1-ubyte (.gz or not)" in text
    assert "LeCun, Cortes and Burges" in text and "--data-dir, or GRADTUI_DATA" in text
    assert "train-labels" not in text and "\n" not in text and "://" not in text
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


def test_only_the_training_images_that_are_asked_for_are_made_into_numbers(mnist_folder: Path) -> None:
    few, all_of_them = mnist(mnist_folder, 1000), mnist(mnist_folder)
    assert len(few.train) == 1000
    np.testing.assert_array_equal(few.train.images, all_of_them.train.images[:1000])
    np.testing.assert_array_equal(few.validation.images, all_of_them.validation.images)
