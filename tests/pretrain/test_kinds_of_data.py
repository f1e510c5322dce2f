"""Every form in which people hold examples: trained on as they are, or refused in one line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from pretrain.errors import DataError
from pretrain.greedy import train_greedily
from pretrain.layers import LAYERS
from pretrain.rbm import RBM
from pretrain.rows import rows_of
from pretrain.settings import LayerSettings

torch.set_num_threads(1)
# whole numbers from 0 to 1: each form below holds them exactly
BITS = (np.random.default_rng(0).random((60, 8)) < 0.2).astype(np.float32)
BITS[7] = 0  # a row that a sparse matrix does not store


def weights_after(data: Any, **settings: Any) -> Tensor:
    rbm = RBM(8, 5, generator=torch.Generator().manual_seed(0))
    train_greedily([rbm], data, epochs=2, batch_size=7, **settings)
    return rbm.weight.detach()


class Frame:
    """What a data frame of pandas has, whose rows cannot be had by their numbers."""

    def __init__(self, values: Any) -> None:
        self.values, self.columns = values, list(range(values.shape[1]))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, column: str) -> Any:
        return self.values[:, self.columns.index(column)]  # type: ignore[arg-type]

    def take(self, indices: Any) -> Frame:
        return Frame(self.values[indices])

    def to_numpy(self) -> Any:
        return self.values


def mapped(folder: Path) -> Any:
    np.save(folder / "bits.npy", BITS)
    return np.load(folder / "bits.npy", mmap_mode="r")


def sparse_csr(folder: Path) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the layout new
        return torch.from_numpy(BITS).to_sparse_csr()


FORMS: dict[str, Callable[[Path], Any]] = {
    "csr": lambda folder: sp.csr_matrix(BITS),
    "csc": lambda folder: sp.csc_array(BITS.astype(np.int8)),
    "coo": lambda folder: sp.coo_matrix(BITS.astype(np.float64)),
    "sparse tensor": lambda folder: torch.from_numpy(BITS).to_sparse(),
    "sparse tensor of float64": lambda folder: torch.from_numpy(BITS).double().to_sparse(),
    "csr tensor": sparse_csr,
    "frame": lambda folder: Frame(BITS),
    "list of lists": lambda folder: BITS.tolist(),
    "bool": lambda folder: BITS.astype(bool),
    "uint8": lambda folder: BITS.astype(np.uint8),
    "int64": lambda folder: torch.from_numpy(BITS).long(),
    "uint16": lambda folder: BITS.astype(np.uint16),
    "float16": lambda folder: BITS.astype(np.float16),
    "bfloat16": lambda folder: torch.from_numpy(BITS).bfloat16(),
    "big-endian": lambda folder: BITS.astype(">f4"),
    "longdouble": lambda folder: BITS.astype(np.longdouble),
    "memory map": mapped,
    "read-only": lambda folder: np.broadcast_to(BITS, (1, 60, 8))[0],
    "strided": lambda folder: np.repeat(BITS, 2, axis=1)[:, ::2],
    "transposed": lambda folder: np.asfortranarray(BITS),
    "with gradient": lambda folder: torch.from_numpy(BITS.copy()).double().requires_grad_(),
}


@pytest.fixture(scope="module")
def dense() -> Tensor:
    return weights_after(torch.from_numpy(BITS))


@pytest.mark.parametrize("form", FORMS)
def test_the_same_numbers_train_the_same_machine(form: str, dense: Tensor, tmp_path: Path) -> None:
    data = FORMS[form](tmp_path)
    assert torch.equal(weights_after(data), dense)
    assert torch.equal(weights_after(data, memory=0), dense), "streamed, batch by batch"


@pytest.mark.parametrize("form", ["csr", "sparse tensor"])
def test_rows_of_sparse_data_are_read_in_any_order(form: str, tmp_path: Path) -> None:
    rows = rows_of(FORMS[form](tmp_path), torch.device("cpu"), torch.float32)
    indices = torch.tensor([59, 7, 7, 0, 31])
    assert torch.equal(rows.take(indices), torch.from_numpy(BITS)[indices])
    assert torch.equal(rows.slice(5, 9), torch.from_numpy(BITS)[5:9])
    assert (len(rows), rows.columns) == (60, 8)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (np.array([[{}] * 8]), "of type object: they must be real numbers"),
        (Frame(np.array([["x", 1]], object)), "of type object"),
        (BITS.astype(complex), "complex128: they must be real numbers"),
        (torch.from_numpy(BITS).to(torch.complex64), "complex64: they must be real numbers"),
        (sp.csr_matrix(BITS.astype(complex)), "complex128"),
        (np.array([["2020-01-01"] * 8], "datetime64[D]"), "datetime64"),
        (np.ma.masked_equal(BITS, 1), "some of the data are masked"),
        (np.full((4, 8), np.nan), "NaN or infinite"),
        (sp.csr_matrix(np.full((4, 8), np.inf)), "NaN or infinite"),
        (np.full((4, 8), 1e300), "NaN or infinite"),  # in the layer's float32
        (BITS * 2, "lie in [0, 2], but Bernoulli units need [0, 1]"),
        (BITS[0], "shape [8]"),
        (BITS[None], "shape [1, 60, 8]"),
        (torch.tensor(1.0), "shape []"),
        (BITS[:0], "the data set is empty"),
        (BITS[:, :0], "they have no columns"),
        (sp.csr_matrix((0, 8)), "the data set is empty"),
        (sp.csr_matrix(BITS[:, :4]), "takes [n, 8], not [60, 4]"),
        (torch.empty(4, 8, device="meta"), "on the device meta"),
        ("digits", "str has no examples of numbers by index"),
        ({"images": BITS}, "dict has no examples of numbers by index"),
        (None, "NoneType has no length"),
        ([], "the data set is empty"),
        ([[0.5] * 8, [0.5] * 7], "differ in size"),
        (3, "int has no length"),
    ],
)
def test_what_no_layer_can_learn_from_is_refused_in_one_line(data: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        weights_after(data)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["a", "b"] * 30, "labels are of type <U1"),
        ([None] * 60, "labels are of type object"),
        (np.full(60, np.nan), "whole numbers from 0 up"),
        (np.full(60, -1), "whole numbers from 0 up"),
        (sp.csr_matrix(np.ones((60, 1))), "labels are of type object"),
        (np.ones((60, 2)), "shape [60, 2]"),
    ],
)
def test_labels_that_are_none_are_refused_in_one_line(labels: Any, says: str) -> None:
    layer = LAYERS["supervised"].make(8, 5, LayerSettings())
    with pytest.raises(DataError) as caught:
        train_greedily([layer], BITS, targets=labels, epochs=1)
    assert says in str(caught.value) and "\n" not in str(caught.value)
