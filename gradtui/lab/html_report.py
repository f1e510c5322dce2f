"""A comparison as one HTML file: table, plots, recipes. Nothing in it is fetched from anywhere."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradtui.errors import GradtuiError, RunFileError
from gradtui.format import printable
from gradtui.lab.plan import Cell, Plan
from gradtui.lab.results import HEADINGS, RunResult, as_cells, learning_speeds, table
from gradtui.runfile import is_measured, open_run
from gradtui.runfile.blocks import DoubleArray, FloatArray
from gradtui.runfile.private_files import write_whole

FLOOR = 1e-45  # float32's smallest number: exact zeros stand there on a logarithmic axis
PANELS_A_ROW = 4
DASHES = ("-", "--", "-.", ":")
# chosen to be told apart with any colour vision (Okabe & Ito 2008)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
# text stays text, and the same comparison gives the same bytes
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "gradtui", "font.size": 9, "font.family": "sans-serif"}


def write_report(plan: Plan, found: Sequence[RunResult], path: Path) -> None:
    """Write the report of a comparison; raises `GradtuiError` if `path` cannot be written.

    Runs that are missing, damaged or diverged stand in the table, with a word about it, and are left out of the plots
    where they have nothing to show.
    """
    by_label: dict[str, list[Cell]] = {label: [] for label in plan.recipes}
    for cell in plan.cells():
        by_label[cell.label].append(cell)
    rows = table(plan, found)
    best = max((row.accuracy.mean for row in rows if row.accuracy is not None), default=None)
    with mpl.rc_context(_STYLE):
        plots = [plot for plot in _plots(by_label) if plot is not None]
    told = "epochs to cost" if plan.target_cost is None else f"epochs to {plan.target_cost:g}"
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
    text = page.render(
        title=printable(plan.title),
        hint=printable(plan.hint),
        seeds=plan.seeds,
        headings=[told if heading == "epochs to cost" else heading for heading in HEADINGS],
        rows=[(as_cells(row), row.accuracy is not None and row.accuracy.mean == best) for row in rows],
        plots=plots,
        recipes=[(printable(label), printable(recipe.summary)) for label, recipe in plan.recipes.items()],
        rates="chosen for each recipe by a sweep on the validation images" if plan.tuned else "as the recipes say",
    )
    try:
        write_whole(path, text, private=False)
    except OSError as error:
        raise GradtuiError(f"cannot write the report {path}: {error.strerror}; name another place") from error


def _plots(cells: dict[str, list[Cell]]) -> list[tuple[str, str, Markup] | None]:
    return [
        _speeds(cells),
        _over_epochs(cells, "val_accuracy", "Validation accuracy over epochs", log=False),
        _over_epochs(cells, "train_cost", "Training cost over epochs", log=True),
        _through_time(cells),
    ]


def _speeds(cells: dict[str, list[Cell]]) -> tuple[str, str, Markup] | None:
    """One small panel a recipe: each layer at the start and at the end, the output's on the right."""
    panels = {label: ends for label, of_label in cells.items() if (ends := _ends(of_label[0])) is not None}
    if not panels:
        return None
    columns = min(PANELS_A_ROW, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(10, 0.4 + 1.9 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    deepest = max(len(start) for start, _ in panels.values())
    for axis, (label, (start, end)) in zip(axes, panels.items(), strict=False):
        places = np.arange(1 - len(start), 1)
        axis.plot(places, start, "o--", color=COLOURS[1], markersize=3, label="start")
        axis.plot(places, end, "s-", color=COLOURS[0], markersize=3, label="end")
        axis.set_xlim(0.5 - deepest, 0.5)
        axis.set_title(_plain(label), fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axis in axes:
        _tidy(axis, log=True)
        axis.axis("on" if axis.get_title() else "off")
    axes[0].legend(frameon=False, fontsize=8)
    figure.supxlabel("layers before the output", fontsize=9)
    figure.supylabel("learning speed ‖∂C/∂b‖", fontsize=9)
    text = "Each layer's learning speed before the first step and at the end, first seed. Level is what one wants."
    return "Learning speed of every layer", text, _svg(figure)


def _ends(cell: Cell) -> tuple[DoubleArray, DoubleArray] | None:
    """Learning speeds [layers] at the first and at the last recorded step, exact zeros at the floor."""
    try:
        with open_run(cell.path) as reader:
            span = reader.span()
            if span is None:
                return None
            ends = (reader.after(span[0] - 1), reader.at(span[1]))
            start, end = (learning_speeds(reader, rows)[0] for rows in ends)
    except (RunFileError, ValueError, IndexError):
        return None
    known = is_measured(start) & is_measured(end)
    return _floored(start[known]), _floored(end[known])


def _over_epochs(cells: dict[str, list[Cell]], name: str, title: str, *, log: bool) -> tuple[str, str, Markup] | None:
    """A line a recipe, the mean over its seeds, in a band from the smallest to the largest."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axis = figure.subplots()
    for number, (label, of_label) in enumerate(cells.items()):
        series = [found for cell in of_label if (found := _series(cell, name)) is not None]
        if not series:
            continue
        length = min(len(epochs) for epochs, _ in series)
        epochs = series[0][0][:length]
        values = np.stack([values[:length] for _, values in series])
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        axis.plot(epochs, values.mean(axis=0), dash, color=colour, linewidth=1.4, label=_plain(label))
        axis.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
    if not axis.has_data():
        return None
    _tidy(axis, log=log)
    axis.set_xlabel("epoch")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return title, "The mean over the seeds; the band reaches from the smallest to the largest.", _svg(figure)


def _series(cell: Cell, name: str) -> tuple[DoubleArray, DoubleArray] | None:
    try:
        with open_run(cell.path) as reader:
            series = reader.scalars()[0].get(name)
    except RunFileError:
        return None
    if series is None:
        return None
    kept = np.isfinite(series.value) & np.isfinite(series.epoch)
    return (series.epoch[kept], series.value[kept]) if kept.any() else None


def _through_time(cells: dict[str, list[Cell]]) -> tuple[str, str, Markup] | None:
    """For recurrent nets: ‖∂C/∂h_t‖ over the time steps, at the start and at the end."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    start, end = figure.subplots(1, 2, sharey=True)
    for number, (label, of_label) in enumerate(cells.items()):
        for axis, step in ((start, 1), (end, 2**62)):
            for index, (state, norms) in enumerate(_states(of_label[0], step).items()):
                style = DASHES[index % len(DASHES)]
                name = f"{_plain(label)} {_plain(state)}"
                colour = COLOURS[number % len(COLOURS)]
                axis.plot(np.arange(1, len(norms) + 1), norms, style, color=colour, linewidth=1.4, label=name)
    if not end.has_data():
        return None
    for axis, title in ((start, "at the start"), (end, "at the end")):
        _tidy(axis, log=True)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("time step")
    end.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    text = (
        "The length of the gradient by each recurrent state, first seed: where it falls to the left, the net forgets."
    )
    return "The gradient through time", text, _svg(figure)


def _states(cell: Cell, step: int) -> dict[str, DoubleArray]:
    try:
        with open_run(cell.path) as reader:
            time = reader.through_time(step)
    except RunFileError:
        return {}
    return {} if time is None else {state: _floored(norms) for state, norms in time.grad_norm.items()}


def _floored(values: FloatArray) -> DoubleArray:
    wide = values.astype(np.float64)
    return np.where(np.isfinite(wide), np.maximum(wide, FLOOR), np.nan)


def _tidy(axis: Axes, *, log: bool) -> None:
    if log:
        axis.set_yscale("log")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)


def _plain(label: str) -> str:
    """A label that matplotlib reads as text and not as mathematics, and that a legend does not hide."""
    return printable(label).replace("$", r"\$").lstrip("_") or "recipe"


def _svg(figure: Figure) -> Markup:
    text = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # text stays text: the browser's font has it, or not
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    return Markup(drawn[drawn.index("<svg") :])


_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5d6675; --line: #d9dbd8; --ground: #fbfbf9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #d7dce5; --soft: #98a2b3; --line: #2c3646; --ground: #0f1218; }
  figure { background: #f3f3ef; border-radius: 6px; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 3rem auto;
       max-width: 64rem; padding: 0 1.5rem; }
h1 { font-size: 1.9rem; margin-bottom: .3rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .3rem; }
p, dd { color: var(--soft); max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; margin: 1.5rem 0; }
th, td { padding: .35rem .8rem .35rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
tr.baseline td:first-child::after { content: " · baseline"; color: var(--soft); }
tr.best td:nth-child(3) { font-weight: 700; }
figure { margin: .8rem 0; padding: .5rem; }
figure svg { width: 100%; height: auto; }
dt { font-weight: 600; margin-top: .6rem; }
dd { margin: 0; }
</style>
<h1>{{ title }}</h1>
<p>{{ hint }}</p>
<div class="wide">
<table>
<tr>{% for heading in headings %}<th>{{ heading }}</th>{% endfor %}</tr>
{% for cells, best in rows %}
<tr class="{{ 'baseline ' if loop.first }}{{ 'best' if best }}">
{%- for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
</div>
<p>Seeds {{ seeds | join(", ") }}. Learning rates: {{ rates }}.</p>
{% for title, text, drawing in plots %}
<h2>{{ title }}</h2>
<p>{{ text }}</p>
<figure>{{ drawing }}</figure>
{% endfor %}
<h2>What the columns mean</h2>
<dl>
<dt>test accuracy, 95 %, n</dt>
<dd>Mean share of the test images that is right, its 95 % confidence interval (Student's t), and how many seeds.</dd>
<dt>epochs to a cost</dt><dd>When the training cost first was as low, the mean over the seeds that got there.</dd>
<dt>speed ratio</dt>
<dd>Learning speed ‖∂C/∂b‖ of the fastest layer over that of the slowest: before the first step, and over the last ten
recorded ones; the median over the seeds.</dd>
<dt>ms/step</dt><dd>Time of the whole training over its steps, evaluations included.</dd>
</dl>
<details><summary>The recipes</summary>
<dl>{% for label, summary in recipes %}<dt>{{ label }}</dt><dd>{{ summary }}</dd>{% endfor %}</dl>
</details>
</html>
"""
