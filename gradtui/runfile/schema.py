"""What stands in a run file: the tables, and the records that cross it.

The measures of one recorded step are one little-endian float32 BLOB of shape [layers, measures]; the table
`measures` names its columns, the table `layers` its rows. A value that was not measured is a NaN of its own
(payload 1954, as R marks its NA), so that NaN and infinity stay values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

APPLICATION_ID = 0x67726164  # "grad", so that `file` and other tools can tell a run from any SQLite database
SCHEMA_VERSION = 1

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
Outcome = Literal["finished", "stopped", "failed"]

_NOT_MEASURED_BITS = np.uint32(0x7FC00000 | 1954)
NOT_MEASURED: np.float32 = np.array([_NOT_MEASURED_BITS]).view(np.float32)[0]

SCHEMA = """
CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;  -- values are JSON
CREATE TABLE measures (position INTEGER PRIMARY KEY, name TEXT, symbol TEXT, unit TEXT, definition TEXT);
CREATE TABLE layers (
    layer INTEGER PRIMARY KEY,        -- its row in steps.measures; the order of execution
    name TEXT, kind TEXT,
    shapes TEXT,                      -- JSON: parameter name -> shape
    parameters INTEGER,
    input_shape TEXT, output_shape TEXT  -- JSON, without the batch dimension; NULL if never seen
);
CREATE TABLE steps (
    step INTEGER PRIMARY KEY, epoch REAL,
    time REAL,                        -- seconds since the start
    loss REAL, learning_rate REAL,    -- NaN stands as the text 'nan', because SQLite turns a NaN into NULL
    measures BLOB                     -- float32[layers, measures], little-endian; NULL if only the loss is known
);
CREATE TABLE envelope (               -- the same, folded: smallest, largest and mean of some hundred rows
    first_step INTEGER PRIMARY KEY, last_step INTEGER, rows INTEGER, epoch REAL, time REAL,
    loss_minimum REAL, loss_maximum REAL, loss_mean REAL, minimum BLOB, maximum BLOB, mean BLOB
);
CREATE TABLE neurons (                -- float32[neurons]: the gradient of the mean cost by each bias
    step INTEGER, layer INTEGER, bias_grad BLOB, PRIMARY KEY (step, layer)
);
CREATE TABLE scalars (scalar INTEGER PRIMARY KEY, step INTEGER, epoch REAL, name TEXT, value REAL);
CREATE TABLE events (event INTEGER PRIMARY KEY, time REAL, step INTEGER, kind TEXT, text TEXT);
CREATE TABLE heartbeat (one INTEGER PRIMARY KEY CHECK (one = 1), time REAL, step INTEGER, rows INTEGER);
CREATE TABLE ending (one INTEGER PRIMARY KEY CHECK (one = 1), time REAL, outcome TEXT, detail TEXT);
CREATE TABLE commands (command INTEGER PRIMARY KEY, time REAL, name TEXT, taken INTEGER DEFAULT 0);
"""


@dataclass(frozen=True)
class Measure:
    """One column of a step's BLOB, e.g. `Measure("bias_grad_norm", "‖∂C/∂b‖", "cost per unit bias", "…")`."""

    name: str
    symbol: str
    unit: str
    definition: str


@dataclass(frozen=True)
class Layer:
    """One row of a step's BLOB: a module that owns parameters.

    `shapes` maps the module's own parameter names to their shapes. `input_shape` and `output_shape` leave the
    batch dimension out; None means that no forward pass was seen.
    """

    name: str
    kind: str
    shapes: dict[str, tuple[int, ...]]
    parameters: int
    input_shape: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Header:
    """What was run, where and how. Times are seconds since the epoch (UTC)."""

    name: str
    command: list[str] = field(default_factory=list)
    recipe: dict[str, Any] | None = None
    started: float = 0.0
    host: str = ""
    pid: int = 0
    machine: str = ""
    process_start: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    sampling: str = ""
    total_steps: int | None = None
    total_epochs: float | None = None
    takes_commands: list[str] = field(default_factory=list)
    log: str | None = None


@dataclass(frozen=True)
class Rows:
    """Recorded steps. `measures` is [rows, layers, measures]; everything else is [rows].

    `loss` is NaN where it is NaN and where it is not known; `loss_known` tells the two apart.
    """

    step: npt.NDArray[np.int64]
    epoch: DoubleArray
    time: DoubleArray
    loss: DoubleArray
    learning_rate: DoubleArray
    measures: FloatArray
    loss_known: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class Envelope:
    """Stretches of a run, oldest first: the smallest, the largest and the mean of each measure in each stretch.

    A stretch with a NaN has NaN as its largest value and as its mean, so that no spike is lost by thinning. `minimum`,
    `maximum` and `mean` are [stretches, layers, measures], the rest is [stretches].
    """

    first_step: npt.NDArray[np.int64]
    last_step: npt.NDArray[np.int64]
    epoch: DoubleArray
    time: DoubleArray
    loss_minimum: DoubleArray
    loss_maximum: DoubleArray
    loss_mean: DoubleArray
    minimum: FloatArray
    maximum: FloatArray
    mean: FloatArray

    def __len__(self) -> int:
        return len(self.first_step)

    @classmethod
    def of_rows(cls, rows: Rows) -> Envelope:
        """Each recorded step a stretch of its own."""
        loss, measures = rows.loss, rows.measures
        return cls(rows.step, rows.step, rows.epoch, rows.time, loss, loss, loss, measures, measures, measures)

    @classmethod
    def join(cls, parts: Sequence[Envelope]) -> Envelope:
        """One after the other; at least one of them."""
        whole = [part for part in parts if len(part)]
        if len(whole) <= 1:
            return whole[0] if whole else parts[0]
        joined: list[Any] = [np.concatenate([getattr(part, f.name) for part in whole]) for f in fields(cls)]
        return cls(*joined)

    def part(self, start: int, stop: int) -> Envelope:
        """The stretches from `start` to before `stop`."""
        sliced: list[Any] = [getattr(self, f.name)[start:stop] for f in fields(self)]
        return Envelope(*sliced)

    def merged(self, group: int) -> Envelope:
        """Each `group` neighbours as one stretch; the length is a multiple of it."""
        if group <= 1 or not len(self):
            return self
        three = (self.minimum, self.maximum, self.mean)
        low, high, mean = fold(*(a.reshape(-1, group, *a.shape[1:]).swapaxes(0, 1) for a in three))
        losses = (self.loss_minimum, self.loss_maximum, self.loss_mean)
        folded = [fold_losses(*rows) for rows in zip(*(a.reshape(-1, group) for a in losses), strict=True)]
        loss_low, loss_high, loss_mean = np.array(folded).T
        last = slice(group - 1, None, group)
        return Envelope(
            self.first_step[::group],
            self.last_step[last],
            self.epoch[last],
            self.time[last],
            loss_low,
            loss_high,
            loss_mean,
            low,
            high,
            mean,
        )


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


@dataclass(frozen=True)
class Event:
    """Something that happened, in words; `time` is seconds since the start."""

    time: float
    step: int | None
    kind: str
    text: str


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
        return float(np.fmin.reduce(minimum)), float(np.fmax.reduce(maximum)), float(np.nanmean(mean))


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
