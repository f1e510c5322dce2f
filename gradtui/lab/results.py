"""What came out of a comparison: a figure for each run, and a table with means and intervals. numpy."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from gradtui.bias_gradients import cancelled
from gradtui.errors import RunFileError
from gradtui.format import as_json as json_of
from gradtui.format import multiple, printable
from gradtui.lab.plan import Cell, Plan
from gradtui.lab.pretraining import FINE_TUNING
from gradtui.measures import LEARNING_SPEED, WEIGHT_GRADIENT, column_of
from gradtui.runfile import NOT_MEASURED, Rows, RunReader, Scalars, is_measured, open_run
from gradtui.runfile.blocks import FloatArray

FEWEST_SEEDS = 3  # for an interval that is shown: of two values it is nine times as wide as what lies between them
LAST_ROWS = 10  # recorded steps whose mean is "the end": one step's gradient is noisy


@dataclass(frozen=True)
class RunResult:
    """One training. None where it was not measured or never happened; `state` is live, finished, stopped, died, …

    Attributes:
        accuracy: share of the test images that is right.
        epochs_to_target: when the training cost first was as low as asked.
        speed_ratio_start, speed_ratio_end: learning speed of the fastest layer over that of the slowest;
            ∞ if one stands still.
        seconds_per_step: of the whole training, evaluations included.
    """

    label: str
    seed: int
    learning_rate: float
    state: str
    detail: str = ""
    accuracy: float | None = None
    validation: float | None = None
    cost: float | None = None
    validation_cost: float | None = None
    epochs_to_target: float | None = None
    speed_ratio_start: float | None = None
    speed_ratio_end: float | None = None
    seconds_per_step: float | None = None

    @property
    def over(self) -> bool:
        """Whether the training came to its end, be it a divergence; one that was killed or stopped did not."""
        return self.state == "finished" or self.diverged

    @property
    def diverged(self) -> bool:
        """Whether the loss stopped being a number."""
        return self.detail.startswith("diverged")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % confidence interval (Student's t); `half_width` is None for fewer than 2."""

    mean: float
    half_width: float | None
    count: int


@dataclass(frozen=True)
class TableRow:
    """One recipe of the table; None where no seed has a figure."""

    label: str
    learning_rate: float
    runs: int
    planned: int
    accuracy: Estimate | None
    epochs_to_target: Estimate | None
    reached_target: int
    speed_ratio_start: float | None
    speed_ratio_end: float | None
    milliseconds_per_step: float | None
    remark: str


def result_of(cell: Cell, target_cost: float | None) -> RunResult:
    """What a run file says of its training; a file that is not there, or cannot be read, says so in `state`."""
    bare = RunResult(cell.label, cell.recipe.seed, cell.recipe.rate, "missing")
    if not cell.path.exists():
        return bare
    try:
        with open_run(cell.path) as reader:
            return _read(cell, reader, target_cost)
    except RunFileError as error:
        return RunResult(cell.label, cell.recipe.seed, cell.recipe.rate, "damaged", str(error))


def results(plan: Plan) -> list[RunResult]:
    """One result for each training of a plan."""
    return [result_of(cell, plan.target_cost) for cell in plan.cells()]


def _read(cell: Cell, reader: RunReader, target_cost: float | None) -> RunResult:
    status = reader.status()
    scalars, _ = reader.scalars()
    span = reader.span()
    start = end = pace = None
    if span is not None:
        start = speed_ratio(learning_speeds(reader, reader.after(_first_whole_step(reader, span[0]) - 1)))
        last = reader.at(span[1], LAST_ROWS)
        end = speed_ratio(learning_speeds(reader, last))
        pace = _seconds_per_step(reader, last)
    return RunResult(
        cell.label,
        cell.recipe.seed,
        cell.recipe.rate,
        status.state,
        status.detail,
        accuracy=_last(scalars.get("test_accuracy")),
        validation=_last(scalars.get("val_accuracy")),
        cost=_last(scalars.get("train_cost")),
        validation_cost=_last(scalars.get("val_cost")),
        epochs_to_target=_first_below(scalars.get("train_cost"), target_cost),
        speed_ratio_start=start,
        speed_ratio_end=end,
        seconds_per_step=pace,
    )


def _first_whole_step(reader: RunReader, first: int) -> int:
    """The first step of the whole net: of a pretrained one, after its layers were trained one at a time."""
    return next((event.step + 1 for event in reader.events() if event.kind == FINE_TUNING and event.step), first)


def learning_speeds(reader: RunReader, rows: Rows) -> FloatArray:
    """The learning speeds [steps, layers] of recorded steps; those of cancelled biases count as not measured.

    Raises `RunFileError` if the run has none.
    """
    names = {one.name for one in reader.measures}
    if LEARNING_SPEED not in names:
        raise RunFileError(f"{reader.path} has no learning speeds, which a training of gradtui's own always has")
    speeds: FloatArray = rows.measures[:, :, column_of(reader.measures, LEARNING_SPEED)].copy()
    if WEIGHT_GRADIENT not in names:
        return speeds
    weights = rows.measures[:, :, column_of(reader.measures, WEIGHT_GRADIENT)]
    for speed, weight in zip(speeds, weights, strict=True):
        speed[cancelled(speed, weight)] = NOT_MEASURED
    return speeds


def speed_ratio(speeds: FloatArray) -> float | None:
    """Fastest over slowest layer, of learning speeds [steps, layers]; None unless two layers are measured.

    The mean over the steps counts; ∞ if a layer stands still, NaN if a speed is not finite.
    """
    measured = speeds[:, is_measured(speeds).all(axis=0)].astype(np.float64)
    if not len(measured) or measured.shape[1] < 2:
        return None
    mean = measured.mean(axis=0)
    if not np.isfinite(mean).all():
        return math.nan
    return float(mean.max() / mean.min()) if mean.min() > 0 else math.inf


def _seconds_per_step(reader: RunReader, last: Rows) -> float | None:
    first = reader.newer(-1, 1)
    if not len(last) or not len(first):
        return None
    steps = int(last.step[0] - first.step[0])
    return float(last.time[0] - first.time[0]) / steps if steps else None


def _last(series: Scalars | None) -> float | None:
    return None if series is None or not len(series.value) else float(series.value[-1])


def _first_below(series: Scalars | None, target: float | None) -> float | None:
    if series is None or target is None:
        return None
    reached = np.flatnonzero(series.value <= target)
    return float(series.epoch[reached[0]]) if len(reached) else None


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and 95 % interval: mean ± t(0.975, n − 1)·s/√n; None of nothing."""
    if not values:
        return None
    mean, count = math.fsum(values) / len(values), len(values)
    if count < 2:
        return Estimate(mean, None, count)
    from scipy.stats import t  # takes half a second to load, and is needed here only

    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    return Estimate(mean, float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count), count)


def table(plan: Plan, found: Sequence[RunResult]) -> list[TableRow]:
    """One row for each recipe, in the order of the plan."""
    return [
        _row(label, recipe.rate, [result for result in found if result.label == label], len(plan.seeds))
        for label, recipe in plan.recipes.items()
    ]


def _row(label: str, rate: float, of_label: list[RunResult], planned: int) -> TableRow:
    over = [result for result in of_label if result.over]
    reached = [r.epochs_to_target for r in over if r.epochs_to_target is not None]
    return TableRow(
        label,
        of_label[0].learning_rate if of_label else rate,
        len(over),
        planned,
        estimate([r.accuracy for r in over if r.accuracy is not None]),
        estimate(reached),
        len(reached),
        _median([r.speed_ratio_start for r in over]),
        _median([r.speed_ratio_end for r in over if not r.diverged]),
        _median([None if r.seconds_per_step is None else 1000 * r.seconds_per_step for r in over]),
        _remark(of_label, planned),
    )


def _remark(of_label: list[RunResult], planned: int) -> str:
    diverged = [result.detail.split(":")[0] for result in of_label if result.diverged]
    missing = planned - sum(result.over for result in of_label)
    remarks = []
    if diverged:
        more = f" ({len(diverged)} of {planned} seeds)" if planned > 1 else ""
        remarks.append(diverged[0] + more)
    if missing:
        remarks.append(f"{missing} of {planned} not done")
    return "; ".join(remarks)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


# -- as text --------------------------------------------------------------------------------------------------------

HEADINGS = (
    "recipe", "η", "test accuracy", "95 %", "n", "epochs to cost", "speed ratio at the start", "at the end", "ms/step",
    "remark",
)  # fmt: skip


def as_cells(row: TableRow) -> tuple[str, ...]:
    """A row in words, one for each of `HEADINGS`."""
    accuracy = row.accuracy
    half = accuracy.half_width if accuracy is not None and accuracy.count >= FEWEST_SEEDS else None
    return (
        printable(row.label),
        f"{row.learning_rate:.3g}",
        "" if accuracy is None else f"{100 * accuracy.mean:.1f} %",
        "" if half is None else f"±{100 * half:.1f}",
        str(row.runs),
        "" if row.epochs_to_target is None else f"{row.epochs_to_target.mean:.3g}",
        "" if row.speed_ratio_start is None else multiple(row.speed_ratio_start),
        "" if row.speed_ratio_end is None else multiple(row.speed_ratio_end),
        "" if row.milliseconds_per_step is None else f"{row.milliseconds_per_step:.2f}",
        printable(row.remark),
    )


def as_json(plan: Plan, found: Sequence[RunResult]) -> str:
    """Table and runs, for scripts; NaN and ∞ are the strings nan, inf and -inf."""
    facts = {
        "name": plan.name,
        "title": plan.title,
        "target_cost": plan.target_cost,
        "learning_rates_tuned": plan.tuned,
        "table": [asdict(row) for row in table(plan, found)],
        "runs": [asdict(result) for result in found],
    }
    return json_of(facts, indent=1)


def as_csv(plan: Plan, found: Sequence[RunResult]) -> str:
    """One line for each run."""
    text = io.StringIO()
    keys = list(vars(found[0])) if found else []
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(keys)
    for result in found:
        writer.writerow(map(_csv_cell, vars(result).values()))
    return text.getvalue()


def _csv_cell(value: str | float | None) -> str | float:
    if value is None:
        return ""
    return printable(value) if isinstance(value, str) else value
