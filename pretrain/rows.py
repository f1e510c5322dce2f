"""Examples by index, from memory, a memory-mapped file, a torch data set, or the output of layers."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own name for it
from torch.utils.data import Dataset as TorchDataset

from pretrain.errors import DataError

CHUNK_BYTES = 1 << 24  # what is read at once when all rows are read: 16 MB
MAPPED_BYTES = 1 << 28  # so many bytes of a mapped file may be resident before they are released
PAGES_A_ROW = 1 << 21  # a row on its own may load a large page, 2 MB, around it


@runtime_checkable
class Rows(Protocol):
    """Examples [n, columns], read batch by batch."""

    columns: int

    def __len__(self) -> int:
        """The number of examples."""

    def take(self, indices: Tensor) -> Tensor:
        """The examples of these indices [batch], as [batch, columns]."""

    def slice(self, start: int, stop: int) -> Tensor:
        """The examples from `start` to before `stop`."""


Data = Tensor | npt.NDArray[Any] | TorchDataset[Any] | Rows


class TensorRows:
    """Rows of a tensor."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.columns = values, values.shape[1]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: Tensor) -> Tensor:
        """A copy of the rows."""
        return self.values.index_select(0, indices.to(self.values.device))

    def slice(self, start: int, stop: int) -> Tensor:
        """A view of the rows."""
        return self.values[start:stop]


class _ArrayRows:
    """Rows of a tensor or an array, converted to `dtype` on `device` when they are read.

    Pages of a mapped file count as this process's memory until they are released.
    """

    def __init__(self, values: Tensor | npt.NDArray[Any], device: torch.device, dtype: torch.dtype) -> None:
        self._values, self._device, self._dtype = values, device, dtype
        self._mapping, self._touched = _mapping_of(values), 0
        self.columns = values.shape[1]
        self._row_bytes = values.nbytes // max(1, len(values))
        self._native = None if isinstance(values, Tensor) else _native(values.dtype)

    def __len__(self) -> int:
        return len(self._values)

    def take(self, indices: Tensor) -> Tensor:
        if isinstance(self._values, Tensor):
            return self._made(self._values[indices.to(self._values.device)])
        if self._mapping is None:
            return self._made(np.asarray(self._values[indices.numpy()], self._native))
        # a few rows at a time: a thousand scattered rows would load 2 GB
        chosen = np.empty((len(indices), self.columns), self._native)
        few = max(1, MAPPED_BYTES // (self._row_bytes + PAGES_A_ROW))
        for start in range(0, len(indices), few):
            some = indices[start : start + few].numpy()
            self._release(len(some) * (self._row_bytes + PAGES_A_ROW))
            chosen[start : start + few] = self._values[some]
        return self._made(chosen)

    def slice(self, start: int, stop: int) -> Tensor:
        self._release((stop - start) * self._row_bytes + PAGES_A_ROW)
        values = self._values[start:stop]
        # a copy: torch would warn of an array that may not be written to
        return self._made(values if isinstance(values, Tensor) else np.array(values, self._native))

    def _made(self, values: Tensor | npt.NDArray[Any]) -> Tensor:
        return torch.as_tensor(values).to(self._device, self._dtype)

    def _release(self, more: int) -> None:
        self._touched += more
        if self._mapping is not None and self._touched > MAPPED_BYTES:
            self._mapping.madvise(mmap.MADV_DONTNEED)
            self._touched = more


class _DatasetRows:
    """Examples of a torch data set, flattened; of a tuple the first is the example."""

    def __init__(self, examples: TorchDataset[Any], device: torch.device, dtype: torch.dtype) -> None:
        self._examples, self._device, self._dtype = examples, device, dtype
        self._count = len(examples)  # type: ignore[arg-type]  # its presence was checked
        try:
            self.columns = self.slice(0, 1).shape[1] if self._count else 0
        except (TypeError, KeyError, IndexError, ValueError) as error:
            what = f"{type(examples).__name__} has no examples of numbers by index"
            raise DataError(
                f"{what} ({type(error).__name__}): use an array [n, columns] or a map-style data set"
            ) from error

    def __len__(self) -> int:
        return self._count

    def take(self, indices: Tensor) -> Tensor:
        return self._made([self._examples[number] for number in indices.tolist()])

    def slice(self, start: int, stop: int) -> Tensor:
        return self._made([self._examples[number] for number in range(start, stop)])

    def _made(self, examples: list[Any]) -> Tensor:
        images = [example[0] if _is_labelled(example) else example for example in examples]
        flat = [torch.as_tensor(image).reshape(-1).to(self._dtype) for image in images]
        if len({len(image) for image in flat}) > 1:
            raise DataError("the data set's examples differ in size: resize them to one size")
        return torch.stack(flat).to(self._device)


class _SparseRows:
    """Rows of a sparse matrix of scipy, made dense when they are read."""

    def __init__(self, matrix: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._matrix, self._device, self._dtype = matrix.astype(_native(matrix.dtype)).tocsr(), device, dtype
        self.columns: int = matrix.shape[1]

    def __len__(self) -> int:
        return int(self._matrix.shape[0])

    def take(self, indices: Tensor) -> Tensor:
        return self._made(self._matrix[indices.numpy()])

    def slice(self, start: int, stop: int) -> Tensor:
        return self._made(self._matrix[start:stop])

    def _made(self, rows: Any) -> Tensor:
        return torch.from_numpy(rows.toarray()).to(self._device, self._dtype)


class _SparseTensorRows:
    """Rows of a sparse tensor, made dense when they are read."""

    def __init__(self, values: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        coo = (values if values.layout == torch.sparse_coo else values.to_sparse()).coalesce()
        if coo.dense_dim():
            raise DataError("the data are a sparse tensor of dense rows: call to_dense()")
        self._device, self._dtype = device, dtype
        self._count, self.columns = values.shape
        # sorted by row: those of row i lie from self._starts[i] on
        (rows, self._columns), self._values = coo.indices(), coo.values()
        self._starts = torch.searchsorted(rows, torch.arange(self._count + 1, device=rows.device))

    def __len__(self) -> int:
        return self._count

    def take(self, indices: Tensor) -> Tensor:
        indices = indices.to(self._starts.device)
        first, counts = self._starts[indices], self._starts[indices + 1] - self._starts[indices]
        row = torch.repeat_interleave(torch.arange(len(indices), device=counts.device), counts)
        # the number of each value among those of its row, after where that row's begin
        place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row] + first[row]
        dense = torch.zeros(len(indices), self.columns, dtype=self._dtype, device=row.device)
        dense[row, self._columns[place]] = self._values[place].to(self._dtype)
        return dense.to(self._device)

    def slice(self, start: int, stop: int) -> Tensor:
        return self.take(torch.arange(start, stop))


class Mapped:
    """Rows mapped by the function `through`, batch by batch."""

    def __init__(self, rows: Rows, through: Callable[[Tensor], Tensor], columns: int) -> None:
        self._rows, self._through, self.columns = rows, through, columns

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: Tensor) -> Tensor:
        """The mapped rows of these indices."""
        return self._through(self._rows.take(indices))

    def slice(self, start: int, stop: int) -> Tensor:
        """The mapped rows from `start` to before `stop`."""
        return self._through(self._rows.slice(start, stop))


class Labelled:
    """Rows with the labels [n] appended, one-hot: [columns + classes]."""

    def __init__(self, rows: Rows, labels: Tensor, classes: int) -> None:
        self._rows, self._labels, self._classes = rows, labels, classes
        self.columns = rows.columns + classes

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: Tensor) -> Tensor:
        """The rows of these indices."""
        return self._joined(self._rows.take(indices), self._labels[indices.to(self._labels.device)])

    def slice(self, start: int, stop: int) -> Tensor:
        """The rows from `start` to before `stop`."""
        return self._joined(self._rows.slice(start, stop), self._labels[start:stop])

    def _joined(self, x: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([x, F.one_hot(labels, self._classes).to(x.dtype)], dim=1)


def rows_of(data: Data, device: torch.device, dtype: torch.dtype) -> Rows:
    """The examples of a tensor or array [n, columns], or of a map-style torch data set; `Rows` are returned.

    Sparse tensors and matrices of scipy are made dense batch by batch; what has a `to_numpy`, as a frame of pandas, is
    an array. Raises `DataError` for anything else, and for an empty set.
    """
    rows: Rows
    if isinstance(data, (Tensor, np.ndarray)) or hasattr(data, "tocsr"):
        _check_kind(data)
        if hasattr(data, "tocsr"):
            return _checked(_SparseRows(data, device, dtype))
        if isinstance(data, Tensor) and data.layout != torch.strided:
            return _checked(_SparseTensorRows(data.detach(), device, dtype))
        there = _in_memory(data)
        if there is not None and there.device == device and there.dtype == dtype:
            rows = TensorRows(there)
        else:
            rows = _ArrayRows(data.detach() if isinstance(data, Tensor) else data, device, dtype)
    elif hasattr(data, "to_numpy"):
        return rows_of(data.to_numpy(), device, dtype)
    elif isinstance(data, Rows):
        rows = data
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        rows = _DatasetRows(data, device, dtype)
    else:
        raise DataError(f"{type(data).__name__} has no length or no indexing: use a map-style data set")
    return _checked(rows)


def _checked(rows: Rows) -> Rows:
    if not len(rows):
        raise DataError("the data set is empty")
    if not rows.columns:
        raise DataError("the examples are empty: they have no columns")
    return rows


def _check_kind(data: Any) -> None:
    """Raise `DataError` for arrays, tensors and matrices that are not [n, columns] of real numbers."""
    if isinstance(data, Tensor) and data.is_nested:
        raise DataError("the data are a nested tensor: pass one tensor [n, columns]")
    if len(data.shape) != 2:
        raise DataError(f"the data have shape {list(data.shape)}: they must be [n, columns]")
    if isinstance(data, Tensor):
        is_number = not (data.is_complex() or data.is_quantized)
        if data.is_meta:
            raise DataError("the data are on the device meta, which holds no numbers")
    else:
        is_number = data.dtype.kind in "biuf"
        if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
            raise DataError("some of the data are masked: fill them with numbers, e.g. data.filled(0)")
    if not is_number:
        raise DataError(f"the data are of type {data.dtype}: they must be real numbers")


def bytes_of(rows: Rows, dtype: torch.dtype) -> int:
    """The bytes that the rows take in memory."""
    return len(rows) * rows.columns * dtype.itemsize


def chunks(rows: Rows) -> Iterator[tuple[int, Tensor]]:
    """All rows in order, in chunks of at most 16 MB, each with the number of its first."""
    size = max(1, min(4096, CHUNK_BYTES // max(1, 4 * rows.columns)))
    for start in range(0, len(rows), size):
        yield start, rows.slice(start, min(start + size, len(rows)))


def gathered(rows: Rows) -> TensorRows:
    """The rows, all in memory."""
    if isinstance(rows, TensorRows):
        return rows
    all_chunks = chunks(rows)
    _, first = next(all_chunks)
    values = first.new_empty(len(rows), first.shape[1])
    values[: len(first)] = first
    for start, chunk in all_chunks:
        values[start : start + len(chunk)] = chunk
    return TensorRows(values)


def check_rows(rows: Rows, check: Callable[[Tensor], None]) -> None:
    """Runs `check` over all rows; adds the numbers of the rows to its `DataError`."""
    for start, chunk in chunks(rows):
        try:
            check(chunk)
        except DataError as error:
            if len(chunk) == len(rows):
                raise
            raise DataError(f"rows {start:,} to {start + len(chunk) - 1:,}: {error}") from error


def _native(kind: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which torch can read values: it knows no other byte order, and no more than 64 bits."""
    return np.dtype(np.float64) if kind.kind == "f" and kind.itemsize > 8 else kind.newbyteorder("=")


def _is_labelled(example: Any) -> bool:
    """Whether an example of a data set is (example, label, …), and not a list of its numbers."""
    return isinstance(example, (tuple, list)) and not all(isinstance(value, (int, float)) for value in example)


def _in_memory(values: Tensor | npt.NDArray[Any]) -> Tensor | None:
    """The values as a tensor that shares their memory, where torch can have one."""
    if isinstance(values, Tensor):
        return values.detach()
    flags, mapped = values.flags, isinstance(values, np.memmap)
    plain = flags.c_contiguous and flags.writeable and values.dtype == _native(values.dtype) and not mapped
    return torch.from_numpy(values) if plain else None


def _mapping_of(values: object) -> mmap.mmap | None:
    """The mapped file under an array, if its pages can be released without loss."""
    mode = getattr(values, "mode", None)  # copy-on-write pages hold changes that no file has
    while isinstance(values, np.ndarray):
        values = values.base
    can_release = isinstance(values, mmap.mmap) and mode in ("r", "r+") and hasattr(mmap, "MADV_DONTNEED")
    return values if can_release and isinstance(values, mmap.mmap) else None
