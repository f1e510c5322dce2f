"""NaN and infinity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradtui.diagnosis.kinds import Finding, Thresholds, finding
from gradtui.diagnosis.series import Series
from gradtui.runfile.schema import Origin

# what helps where the reason is known, by words that tell it; otherwise the remedies of the kind
REMEDIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("whose largest number is", ("wider-format", "scale-loss", "lower-rate", "clip-norm")),
    ("a row that is all -∞", ("partial-mask",)),
    ("the input of the model", ("check-data",)),
    ("the target given", ("check-data",)),
    ("of no targets at all", ("check-labels",)),
    ("the ε of", ("larger-epsilon", "wider-format")),
    ("the learning rate is", ("lower-rate",)),
)


@finding(
    "nan",
    meaning="a NaN or an infinity appeared",
    remedies=("lower-rate", "clip-norm", "epsilon", "check-data"),
    order=10,
    early=True,
    ends=False,
)
def nan(series: Series, limits: Thresholds) -> Iterator[Finding]:
    """The first NaN or ∞: as the recorder saw it begin, or as the rows show it where they know it earlier."""
    broken = series.broken
    origin = series.evidence.origins[0] if series.evidence.origins else None
    if origin is not None:
        # a gradient that was broken in every recorded step up to there is older than the loss that shows it
        before = np.flatnonzero(series.steps < origin.step)
        whole = before[~broken[before].any(axis=1) & series.measured("grad_norm")[before].any(axis=1)]
        earlier = before[before > (whole[-1] if len(whole) else -1)]
        rows = earlier[broken[earlier].any(axis=1)]
        if not len(rows):
            yield _as_seen(series, origin)
            return
    else:
        shown = broken | series.broken_parameters
        rows = np.flatnonzero(shown.any(axis=1) | np.isinf(series.evidence.aggregates.loss_maximum))
        if not len(rows):
            return
    first = int(rows[0])
    if origin is None and _broke_forwards(series, first):
        step = int(series.steps[first])
        text = f"first in the forward pass of step {step:,}: the loss is NaN or infinite, the parameters are not"
        yield series.finding("nan", [], step, text, {"step": float(step)})
        return
    # backpropagation runs from the output to the input: the last layer met it first
    layers = np.flatnonzero(broken[first] | series.broken_parameters[first])[-1:].tolist()
    what = "the loss"
    if layers:
        what = "a gradient" if broken[first].any() else "the norm of the parameters"
        layers = np.flatnonzero(broken[first])[-1:].tolist() or layers
    step = int(series.first_steps[first])
    yield series.finding("nan", layers, step, f"{what} is NaN or infinite", {"step": float(step)})


def _broke_forwards(series: Series, row: int) -> bool:
    """Whether a row of one step has a broken loss, and parameters that were all whole before the step."""
    is_one = series.first_steps[row] == series.steps[row]
    measured = series.measured("param_norm")[row]
    whole = measured.any() and not series.broken_parameters[row].any()
    return bool(is_one and whole and np.isinf(series.evidence.aggregates.loss_maximum[row]))


def _had_whole_gradients(series: Series, step: int, layer: int) -> bool:
    """Whether the gradient of a layer was measured in a step, and no gradient was broken then."""
    rows = np.flatnonzero((series.first_steps == step) & (series.steps == step))
    return bool(len(rows) and series.measured("grad_norm")[rows, layer].any() and not series.broken[rows].any())


def _as_seen(series: Series, origin: Origin) -> Finding:
    """The finding of what the recorder saw begin."""
    layers = [] if origin.layer is None or origin.layer >= len(series.names) else [origin.layer]
    if origin.phase == "backward" and layers and _had_whole_gradients(series, origin.step, layers[0]):
        # the optimizer keeps nothing of its gradients, but the row of that step has them
        what = "its parameters became NaN or infinite, but its gradient was finite"
        origin = Origin(origin.step, "optimizer", origin.layer, what)
    where = "the optimizer's step" if origin.phase == "optimizer" else f"the {origin.phase} pass of step"
    text = f"first in {where} {origin.step:,}: {origin.what}"
    remedies = next((names for words, names in REMEDIES if words in origin.what), ())
    return series.finding("nan", layers, origin.step, text, {"step": float(origin.step)}, remedies=remedies)
