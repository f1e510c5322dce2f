"""Runs made up by a formula, so that tests know every number in them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gradtui.runfile import Header, Layer, Measure, RunWriter
from gradtui.runfile.liveness import machine_identity, process_start

MEASURES = (
    Measure("bias_grad_norm", "‖∂C/∂b‖", "cost per unit bias", "the learning speed", title="Learning speed"),
    Measure("update_ratio", "‖Δθ‖/‖θ‖", "1", "the step really taken", title="Update ratio", source="updates"),
)


def header(name: str = "synthetic", **facts: object) -> Header:
    """A header of this process."""
    pid = os.getpid()
    known = {
        "pid": pid,
        "machine": machine_identity(),
        "process_start": process_start(pid) or "",
        "started": time.time(),
    }
    return Header(name=name, **{**known, **facts})  # type: ignore[arg-type]


def layers(count: int, names: Sequence[str] | None = None, neurons: int = 30) -> list[Layer]:
    """`count` linear layers of `neurons` units."""
    shapes = {"weight": (neurons, neurons), "bias": (neurons,)}
    count_of_parameters = neurons * (neurons + 1)
    return [Layer(names[i] if names else f"fc{i + 1}", "Linear", shapes, count_of_parameters) for i in range(count)]


def speeds(step: int, count: int) -> np.ndarray:
    """[layers, measures]: up to five times slower a layer towards the input, fading and swaying with the steps."""
    depth = np.arange(count)[::-1]
    value = 0.3 * min(5.0, 10 ** (10 / count)) ** -depth * (1.2 + np.sin(step / 40 + depth)) * np.exp(-step / 4000)
    return np.stack([value, 1e-3 + 0 * value], axis=1).astype(np.float32)


def write_steps(writer: RunWriter, first: int, last: int, count: int) -> None:
    """Record the steps `first` … `last` of a run of `count` layers."""
    for step in range(first, last + 1):
        writer.step(step, step / 100, step / 1000, float(np.exp(-step / 1000)), 0.1, speeds(step, count).tobytes())
        if step % 100 == 0:
            writer.scalar(step, step / 100, "val_accuracy", 1 - 0.9 * float(np.exp(-step / 500)))
            grads = {
                i: np.sin(np.arange(30) + i).astype(np.float32) * speeds(step, count)[i, 0]
                for i in range(min(count, 60))
            }
            writer.neurons(step, grads)


def make_run(
    path: Path,
    *,
    count: int = 4,
    steps: int = 1000,
    names: Sequence[str] | None = None,
    close: bool = True,
    **facts: object,
) -> RunWriter:
    """A run file of `count` layers and `steps` steps; closed unless told otherwise."""
    writer = RunWriter(path, header(**facts), MEASURES)
    writer.set_layers(layers(count, names))
    write_steps(writer, 1, steps, count)
    if close:
        writer.close()
    return writer
