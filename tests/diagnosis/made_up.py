"""Runs made up of numbers, for the tests of the diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradtui.diagnosis import Evidence, Finding
from gradtui.runfile import Layer
from gradtui.runfile.blocks import Aggregates
from gradtui.runfile.schema import Origin

MEASURES = ("grad_norm", "param_norm", "update_ratio", "saturated", "dead")
ROWS, LAYERS = 100, 4
FALLING = np.geomspace(2.3, 0.1, ROWS)
FLAT = 2.3 + 0.02 * np.sin(np.arange(ROWS))


def healthy(rows: int = ROWS, layers: int = LAYERS, loss: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Measures [rows, layers, measures] and losses [rows] of a net that learns, or has the losses given."""
    block = np.empty((rows, layers, len(MEASURES)), np.float32)
    block[...] = np.array([0.3, 5.0, 1e-3, 0.1, 0.05], np.float32)
    return block, np.geomspace(2.3, 0.1, rows) if loss is None else np.asarray(loss, np.float64)


def evidence(
    block: np.ndarray,
    loss: np.ndarray,
    origins: Sequence[Origin] = (),
    first: int = 1,
    *,
    held: Sequence[tuple[int, ...]] = (),
    branches: Sequence[tuple[int, ...]] = (),
    took: Any = None,
) -> Evidence:
    """`held` are the optimizers of each layer, `took` the set of them whose step each row is, as bits."""
    rows, count, _ = block.shape
    steps = np.arange(first, first + rows, dtype=np.int64)
    layers = [Layer(f"fc{i + 1}", "Linear", {"weight": (10, 9), "bias": (10,)}, 100) for i in range(count)]
    layers = [replace(one, optimizers=held[i]) if held else one for i, one in enumerate(layers)]
    layers = [replace(one, branches=branches[i]) if branches else one for i, one in enumerate(layers)]
    worst = np.where(np.isnan(loss), np.inf, loss)
    times = np.linspace(0, 1, rows)
    ones = np.ones(rows, np.int64)
    parts = Aggregates(
        steps,
        steps,
        ones,
        times,
        times,
        loss,
        worst,
        loss,
        block,
        block,
        block,
        -ones if took is None else np.asarray(took),
    )
    return Evidence(layers, MEASURES, parts, origins)


def put(block: np.ndarray, measure: str, value: Any, layer: Any = slice(None), since: int = 1) -> None:
    """Set a measure of a layer from a step on."""
    block[since - 1 :, layer, MEASURES.index(measure)] = value


def kinds(findings: Sequence[Finding]) -> set[str]:
    return {finding.kind for finding in findings}


def only(findings: Sequence[Finding], kind: str) -> Finding:
    """The one finding of a kind."""
    (found,) = [finding for finding in findings if finding.kind == kind]
    return found
