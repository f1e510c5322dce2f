"""The large plot, drawn by plotext from a window of a run, thinned first: plotext takes its time for each point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotext
from rich.text import Text

from gradtui.runfile import is_measured
from gradtui.tui.text import clean, title_of

if TYPE_CHECKING:
    from gradtui.runfile import RunReader
    from gradtui.runfile.blocks import DoubleArray

MOST_CURVES = 24


def large_plot(
    reader: RunReader,
    window: tuple[int, int],
    measure: int,
    width: int,
    height: int,
    *,
    log: bool,
    colours: list[tuple[int, int, int]],
) -> Text:
    """Plot one measure, a curve a layer; the loss if `measure` is one past the last. `colours` are RGB, one a layer."""
    history = reader.window(*window)
    layers = reader.layers()
    steps = history.last_step.astype(float)
    if measure >= len(reader.measures):
        title = "Loss"
        curves = {"loss": (history.loss_mean, colours[-1])}
    else:
        column = reader.measures[measure]
        title = f"{title_of(column)}  [{clean(column.unit)}]"
        stride = max(1, -(-len(layers) // MOST_CURVES))
        picked = sorted({*range(0, len(layers), stride), len(layers) - 1}) if layers else []
        mean = history.mean[:, :, measure]
        values: DoubleArray = np.where(is_measured(mean), mean, np.nan).astype(np.float64)
        from gradtui.view import numbered

        numbers, names = numbered(layers)
        curves = {f"{numbers[i]} {clean(names[i])}": (values[:, i], colours[i]) for i in picked}
    plotext.clear_figure()
    plotext.plotsize(width, height)
    plotext.theme("clear")
    drawn = False
    for name, (series, colour) in curves.items():
        x, y = _thin(steps, series, 2 * width, log)
        if len(x):
            drawn = True
            plotext.plot(x.tolist(), y.tolist(), marker="braille", color=colour, label=name[:24])
    if not drawn:
        return Text(f"{clean(title)}: nothing to plot between step {window[0]:,} and {window[1]:,}")
    if log:
        _log_ticks([series for series, _ in curves.values()])
    ticks = np.linspace(window[0], window[1], max(2, min(6, width // 18))).round()
    plotext.xticks(ticks.tolist(), [f"{tick:,.0f}" for tick in ticks])
    plotext.title(clean(title))
    plotext.xlabel("step")
    return Text.from_ansi(plotext.build(), no_wrap=True)


def _thin(steps: DoubleArray, series: DoubleArray, columns: int, log: bool) -> tuple[DoubleArray, DoubleArray]:
    """At most `columns` groups, of each the smallest and the largest; log10 of the values if `log`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log10(series) if log else series
    keep = np.isfinite(y)
    x, y = steps[keep], y[keep]
    group = -(-len(x) // columns)
    if group <= 1:
        return x, y
    whole = len(x) // group * group
    blocks = y[:whole].reshape(-1, group)
    low, high = blocks.min(axis=1), blocks.max(axis=1)
    return np.repeat(x[:whole].reshape(-1, group)[:, 0], 2), np.column_stack([low, high]).ravel()


def _log_ticks(curves: list[DoubleArray]) -> None:
    """Label the axis with the values themselves: plotext is given their logarithms."""
    every = np.concatenate(curves)
    every = every[np.isfinite(every) & (every > 0)]
    if not len(every):
        return
    low, high = np.floor(np.log10(every.min())), np.ceil(np.log10(every.max()))
    ticks = np.arange(low, high + 1, max(1, round((high - low) / 8)))
    plotext.yticks(ticks.tolist(), [f"1e{tick:+03.0f}" for tick in ticks])
