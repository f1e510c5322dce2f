"""What a recording measures: the column of each measure in a row, and the functions that some are taken by."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradtui import measures as ours
from gradtui.errors import one_line, say_once
from gradtui.measures import Measure, Norm, run_measures
from gradtui.record.copy_stream import is_mps, widest_float

Index = npt.NDArray[np.intp]


class Columns:
    """The measures of a recording, in the order of the columns of a row [layers × measures].

    Args:
        measures: what is measured; by default what is registered.

    Attributes:
        norms: (column, norm) of those that are taken from sums of squares.
        of_parameters, of_outputs: the functions that the others are taken by.
    """

    def __init__(self, measures: Sequence[Measure] | None = None) -> None:
        self.measures = run_measures() if measures is None else tuple(measures)
        self.norms: list[tuple[int, Norm]] = [(i, m.norm) for i, m in enumerate(self.measures) if m.norm is not None]
        placed = list(enumerate(self.measures))
        self.of_parameters = [MeasureFunction(m.of_parameters, m.name, i) for i, m in placed if m.of_parameters]
        self.of_outputs = [MeasureFunction(m.of_outputs, m.name, i) for i, m in placed if m.of_outputs]

    def __len__(self) -> int:
        return len(self.measures)


class MeasureFunction:
    """The function that a measure is taken by; one that fails is said once and not called again.

    Args:
        function: as `Measure` describes it.
        name: of the measure.
        column: of the measure.
    """

    def __init__(self, function: Callable[..., Any], name: str, column: int) -> None:
        self.column = column
        self._function, self._name = function, name
        self._is_ours = getattr(function, "__module__", "") == ours.__name__
        self._has_failed = False

    def __call__(self, device: torch.device, *arguments: Any) -> float | Tensor | None:
        """A number, which stays on `device` if it is there, or None if there is nothing to measure. Raises nothing.

        Call it under `torch.no_grad()`.
        """
        if self._has_failed:
            return None
        try:
            if self._is_ours:
                return _number(self._function(*arguments))
            with generators_restored(device):
                return _number(self._function(*arguments))
        except Exception as error:
            # a kind of tensor without such numbers is no reason to leave ours out everywhere
            if not self._is_ours:
                self._has_failed = True
                say_once(f"the measure {self._name} is left out from now on ({one_line(error)})")
            return None


class Placed:
    """Numbers and their places in a row [layers × measures], in host memory or, if any is there, on a device."""

    __slots__ = ("places", "values")

    def __init__(self, found: Mapping[tuple[int, int], float | Tensor], columns: int) -> None:
        """`found`: (layer, column) -> number; `columns`: how many there are."""
        self.places: Index = np.array([layer * columns + column for layer, column in found], np.intp)
        self.values: list[Any] | Tensor = list(found.values())
        devices = [value.device for value in self.values if isinstance(value, Tensor)]
        if devices:
            kind = widest_float(devices[0])
            self.values = torch.stack([torch.as_tensor(v, dtype=kind, device=devices[0]) for v in self.values])


@contextmanager
def generators_restored(device: torch.device) -> Iterator[None]:
    """Afterwards the generators of random numbers are as before: Python's, NumPy's, PyTorch's and the device's."""
    module: Any = torch.get_device_module(device) if device.type != "cpu" else None
    where = () if is_mps(device) else (device,)
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_device = module.get_rng_state(*where) if module is not None else None
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
        if on_device is not None:
            module.set_rng_state(on_device, *where)


def _number(value: Any) -> float | Tensor | None:
    """A float; on a device the tensor itself, where asking would wait. Raises TypeError if it is no number."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_complex():
            raise TypeError(f"a tensor of shape {list(value.shape)} and {value.dtype} is no number")
        return value.item() if value.is_cpu else value.detach().reshape(())
    if not hasattr(type(value), "__float__"):
        raise TypeError(f"{value!r} is no number")
    return float(value)
