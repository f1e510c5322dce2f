"""What a damaged file may do to the reader of the data, and that nobody's images are in two parts at once."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.data import digits, mnist, read_idx
from pretrain.errors import DataError

VALUES = np.arange(200, dtype="u1").reshape(8, 25)
WHOLE = b"\0\0\x08\x02" + struct.pack(">2I", 8, 25) + VALUES.tobytes()
PACKED = gzip.compress(WHOLE, mtime=0)


@settings(deadline=None)
@given(place=st.integers(0, len(PACKED) - 1), bits=st.integers(1, 255))
def test_a_damaged_byte_of_a_gz_never_changes_a_value(
    place: int, bits: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("idx") / "data.gz"
    path.write_bytes(PACKED[:place] + bytes([PACKED[place] ^ bits]) + PACKED[place + 1 :])
    try:
        read = read_idx(path)
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:  # a byte that says nothing of the content: the time, the system
        np.testing.assert_array_equal(read, VALUES)


@settings(deadline=None)
@given(keep=st.integers(0, len(PACKED) - 1))
def test_a_gz_that_is_cut_anywhere_is_a_data_error(keep: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("idx") / "data.gz"
    path.write_bytes(PACKED[:keep])
    with pytest.raises(DataError):
        read_idx(path)


def test_a_folder_in_the_place_of_a_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path / "nothing")


def test_no_digit_is_in_two_parts_and_none_is_lost() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    data = digits()
    parts = (data.train, data.validation, data.test)
    ours = np.concatenate([np.column_stack([part.images * 16, part.labels]) for part in parts])
    theirs = np.column_stack([pixels, labels])
    assert len(np.unique(theirs, axis=0)) == 1797, "no two digits are the same, so each row names one"
    np.testing.assert_array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
    assert len(ours) == 1797


def test_mnist_counts_pixels_in_256ths_and_every_label_in_every_part(mnist_folder: Path) -> None:
    data = mnist(mnist_folder)
    for part in (data.train, data.validation, data.test):
        assert part.images.dtype == np.float32 and part.images.shape == (len(part), 784)
        assert (part.images.min(), part.images.max()) == (0, 255 / 256)
        assert set(part.labels) == set(range(10))
    sample = data.train.images[:100].astype(float) * 256
    np.testing.assert_array_equal(sample, np.rint(sample))
    assert data.train.labels[0] == 5
