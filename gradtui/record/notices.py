"""What a run should say the moment it happens: a gradient that is NaN or infinite, or exactly zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gradtui.measures import MEASURES
from gradtui.runfile.blocks import FloatArray, is_measured

GRAD_NORM, PARAM_NORM = (list(MEASURES).index(name) for name in ("grad_norm", "param_norm"))
MOST_EVENTS = 8  # of each kind in a run
MOST_NAMES = 4  # layers named in one line

Mask = npt.NDArray[np.bool_]
Notice = tuple[int, str, str]


def skipped_step(layers: Sequence[str]) -> str:
    """What is said of a step that a loss scaler skipped."""
    return f"the loss scaler skipped the step: the gradient overflowed in {', '.join(layers) or 'unknown layers'}"


class Notices:
    """Looks at each batch of recorded steps; each layer is spoken of once for each kind of trouble.

    Args:
        names: the layers' names in order of execution; may be set later.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = list(names)
        self._told: dict[str, set[int]] = {}
        self._events: dict[str, int] = {}

    def __call__(self, steps: Sequence[int], block: FloatArray) -> list[Notice]:
        """The events of a batch: (steps [rows], [rows, layers, measures]) -> (step, kind, text)."""
        gradient, parameter = block[:, :, GRAD_NORM], block[:, :, PARAM_NORM]
        with np.errstate(invalid="ignore"):
            broken_gradient = ~np.isfinite(gradient) & is_measured(gradient)
            broken_parameter = ~np.isfinite(parameter) & is_measured(parameter)
            zero = gradient == 0
        found: list[Notice] = []
        for row in np.flatnonzero((broken_gradient | broken_parameter | zero).any(axis=1)).tolist():
            step = int(steps[row])
            found += self._nonfinite(step, "gradient", gradient[row], broken_gradient[row])
            found += self._nonfinite(step, "norm of the parameters", parameter[row], broken_parameter[row])
            found += self._zero(step, zero[row])
        return found

    def _nonfinite(self, step: int, what: str, values: FloatArray, broken: Mask) -> list[Notice]:
        layers = self._new(f"nonfinite {what}", broken)
        if not layers:
            return []
        kinds = {"NaN" if np.isnan(values[layer]) else "infinite" for layer in layers}
        # backpropagation runs from the output to the input: the last layer met it first
        origin = f" (first in {self._name(layers[-1])}, nearest the output)" if len(layers) > 1 else ""
        return [(step, "nonfinite", f"the {what} of {self._list(layers)} is {' or '.join(sorted(kinds))}{origin}")]

    def _zero(self, step: int, zero: Mask) -> list[Notice]:
        layers = self._new("zero", zero)
        if not layers:
            return []
        its = "its units are" if len(layers) == 1 else "their units are"
        why = f"{its} saturated or cut off, or the values are too small for the number format"
        return [(step, "zero", f"the gradient of {self._list(layers)} is exactly 0: {why}")]

    def _new(self, kind: str, mask: Mask) -> list[int]:
        told = self._told.setdefault(kind, set())
        layers = [int(layer) for layer in np.flatnonzero(mask) if int(layer) not in told]
        if not layers or self._events.get(kind, 0) >= MOST_EVENTS:
            return []
        told.update(layers)
        self._events[kind] = self._events.get(kind, 0) + 1
        return layers

    def _name(self, layer: int) -> str:
        return self.names[layer] if layer < len(self.names) else f"layer {layer + 1}"

    def _list(self, layers: list[int]) -> str:
        shown = ", ".join(self._name(layer) for layer in layers[:MOST_NAMES])
        return shown if len(layers) <= MOST_NAMES else f"{shown} and {len(layers) - MOST_NAMES} more"
