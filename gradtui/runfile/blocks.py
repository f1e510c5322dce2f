"""Blocks of measures as numpy arrays: decoding them, folding them, and what was not measured.

A value that was not measured is a NaN of its own (payload 1954, as R marks its NA), so that NaN and infinity stay
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtui.runfile.schema import Pictures

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

_NOT_MEASURED_BITS = np.uint32(0x7FC00000 | 1954)
LAST_BIT = 62  # of a set of optimizers
NOT_MEASURED: np.float32 = np.array([_NOT_MEASURED_BITS]).view(np.float32)[0]


@dataclass(frozen=True)
class Rows:
    """Recorded steps. `measures` is [rows, layers, measures]; everything else is [rows].

    `loss` is NaN where it is NaN and where it is not known; `loss_known` tells the two apart. `optimizers` says whose
    step was measured, as `optimizer_bits` has it.
    """

    step: npt.NDArray[np.int64]
    epoch: DoubleArray
    time: DoubleArray
    loss: DoubleArray
    learning_rate: DoubleArray
    measures: FloatArray
    loss_known: npt.NDArray[np.bool_]
    optimizers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class Aggregates:
    """Buckets of a run, oldest first: the smallest, the largest and the mean of each measure in each bucket.

    `rows` says how many recorded steps each of them holds. A bucket with a NaN has NaN as its largest value and as its
    mean, so that no spike is lost by thinning. `minimum`, `maximum` and `mean` are [buckets, layers, measures], the
    rest is [buckets]. A loss is NaN where none is known; `loss_maximum` is infinite where one was NaN. `optimizers`
    says whose steps were measured, as `optimizer_bits` has it.
    """

    first_step: npt.NDArray[np.int64]
    last_step: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    epoch: DoubleArray
    time: DoubleArray
    loss_minimum: DoubleArray
    loss_maximum: DoubleArray
    loss_mean: DoubleArray
    minimum: FloatArray
    maximum: FloatArray
    mean: FloatArray
    optimizers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first_step)

    @classmethod
    def of_rows(cls, rows: Rows) -> Aggregates:
        """Each recorded step a bucket of its own."""
        loss, measures = rows.loss, rows.measures
        largest = np.where(rows.loss_known & np.isnan(loss), np.inf, loss)
        ones = np.ones(len(rows), np.int64)
        losses, blocks = (loss, largest, loss), (measures, measures, measures)
        return cls(rows.step, rows.step, ones, rows.epoch, rows.time, *losses, *blocks, rows.optimizers)

    @classmethod
    def join(cls, several: Sequence[Aggregates]) -> Aggregates:
        """One after the other; at least one of them."""
        whole = [one for one in several if len(one)]
        if len(whole) <= 1:
            return whole[0] if whole else several[0]
        joined: list[Any] = [np.concatenate([getattr(one, f.name) for one in whole]) for f in fields(cls)]
        return cls(*joined)

    def sliced(self, start: int, stop: int) -> Aggregates:
        """The buckets from `start` to before `stop`."""
        sliced: list[Any] = [getattr(self, f.name)[start:stop] for f in fields(self)]
        return Aggregates(*sliced)

    def merged(self, group: int) -> Aggregates:
        """Each `group` neighbours as one bucket; the length is a multiple of it."""
        if group <= 1 or not len(self):
            return self
        three = (self.minimum, self.maximum, self.mean)
        count = len(self) // group
        low, high, mean = fold(*(a.reshape(count, group, *a.shape[1:]).swapaxes(0, 1) for a in three))
        losses = (self.loss_minimum, self.loss_maximum, self.loss_mean)
        folded = [fold_losses(*rows) for rows in zip(*(a.reshape(-1, group) for a in losses), strict=True)]
        loss_low, loss_high, loss_mean = np.array(folded).T
        last = slice(group - 1, None, group)
        return Aggregates(
            self.first_step[::group],
            self.last_step[last],
            self.rows.reshape(-1, group).sum(axis=1),
            self.epoch[last],
            self.time[last],
            loss_low,
            loss_high,
            loss_mean,
            low,
            high,
            mean,
            np.bitwise_or.reduce(self.optimizers.reshape(-1, group), axis=1),
        )

    def grouped(self, ends: Sequence[int]) -> Aggregates:
        """Neighbours as one bucket, each group up to before one of `ends`; at least one group."""
        starts = [0, *ends[:-1]]
        sizes = {end - start for start, end in zip(starts, ends, strict=True)}
        if len(sizes) == 1:
            return self.merged(sizes.pop())
        return Aggregates.join(
            [self.sliced(start, end).merged(end - start) for start, end in zip(starts, ends, strict=True)]
        )


@dataclass(frozen=True)
class ThroughTime:
    """The gradient through time at one step: recurrent state (`h1`, `c1`, …) -> ‖∂C/∂state_t‖, float32 [time steps]."""

    step: int
    grad_norm: dict[str, FloatArray]


@dataclass(frozen=True)
class NeuronGrads:
    """The gradient of the mean cost by each bias at one step: layer index -> float32 [neurons]."""

    step: int
    bias_grad: dict[int, FloatArray]


@dataclass(frozen=True)
class Scalars:
    """One metric over time, e.g. the validation accuracy; everything is [values]."""

    step: npt.NDArray[np.int64]
    epoch: DoubleArray
    value: DoubleArray


def optimizer_bits(number: int | None, has_measures: bool) -> int:
    """Whose step a row is of, as a set of bits: bit n for number n, the last one for all from there on.

    0 if nothing was measured; all bits if many optimizers stepped at once, or the file is older than their numbers.
    """
    if not has_measures:
        return 0
    return -1 if number is None else 1 << min(max(number, 0), LAST_BIT)


def is_measured(values: FloatArray) -> npt.NDArray[np.bool_]:
    """True where a value was measured, be it NaN; same shape as `values` (float32, contiguous or not)."""
    mask: npt.NDArray[np.bool_] = np.ascontiguousarray(values).view(np.uint32) != _NOT_MEASURED_BITS
    return mask.reshape(values.shape)


def fold(minimum: FloatArray, maximum: FloatArray, mean: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Smallest, largest and mean over the first axis: three [rows, layers, measures] -> three [layers, measures].

    To fold rows that were not folded before, give them three times. NaN wins the largest and the mean; what was never
    measured stays `NOT_MEASURED`.
    """
    mask = is_measured(maximum)
    low: FloatArray = np.fmin.reduce(np.where(mask, minimum, np.float32(np.inf)), axis=0)
    high: FloatArray = np.maximum.reduce(np.where(mask, maximum, np.float32(-np.inf)), axis=0)
    only_nan = np.isposinf(low) & np.isnan(high)
    low[only_nan] = high[only_nan]
    count = mask.sum(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        middle: FloatArray = np.where(mask, mean, np.float32(0)).sum(axis=0) / np.maximum(count, 1).astype(np.float32)
    low[count == 0] = high[count == 0] = middle[count == 0] = NOT_MEASURED
    return low, high, middle


def fold_losses(minimum: DoubleArray, maximum: DoubleArray, mean: DoubleArray) -> tuple[float, float, float]:
    """The same for losses, [rows] each; NaN where none is known."""
    if np.isnan(maximum).all():
        return (float("nan"),) * 3
    with np.errstate(over="ignore", invalid="ignore"):
        known = mean[~np.isnan(mean)]
        middle = float(known.mean()) if len(known) else float("nan")
        return float(np.fmin.reduce(minimum)), float(np.fmax.reduce(maximum)), middle


def pad_layers(blobs: list[bytes | None], layers: int, measures: int) -> FloatArray:
    """Decode BLOBs into [rows, layers, measures]; layers a row does not have yet are `NOT_MEASURED`."""
    width = layers * measures
    if blobs and all(blob is not None and len(blob) == 4 * width for blob in blobs):
        joined = b"".join(blob for blob in blobs if blob is not None)
        return np.frombuffer(joined, "<f4").reshape(len(blobs), layers, measures)
    block = np.full((len(blobs), width), NOT_MEASURED, np.float32)
    for row, blob in zip(block, blobs, strict=True):
        if blob is not None:
            values = np.frombuffer(blob[: 4 * (len(blob) // 4)], "<f4")[:width]
            row[: len(values)] = values
    return block.reshape(len(blobs), layers, measures)


def block_of(blobs: Sequence[bytes], measures: int) -> FloatArray:
    """BLOBs of one length as [rows, layers, measures]."""
    return np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), -1, measures)


def as_pictures(step: int, name: str, layer: str, values: FloatArray) -> Pictures:
    """Numbers [count, rows, columns] as bytes; those of both signs are stretched around 0, others from least to most.

    What is not finite counts as 0. Raises `ValueError` for another shape.
    """
    _, rows, columns = values.shape
    known = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if low < 0:
        high = max(-low, high)
        low = -high
    span = high - low or 1.0
    pixels = np.round((known - low) * (255 / span)).astype(np.uint8)
    return Pictures(step, name, layer, rows, columns, low, high, pixels.tobytes())
