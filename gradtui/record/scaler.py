"""Sees the steps that a `GradScaler` takes or skips, and the losses that it scales.

A skipped step calls no hook of the optimizer, so the scaler's own methods are wrapped, from the first recorder to the
end of the last.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

from torch.amp import GradScaler

from gradtui.record.backward import backwards
from gradtui.record.patches import Replaced


class Listener(Protocol):
    """A recorder, as a scaler's wrapper sees it."""

    @property
    def step(self) -> int:
        """Steps taken so far."""

    def observes(self, optimizer: Any) -> bool:
        """True if it measures the steps of this optimizer."""

    def step_skipped(self, optimizer: Any) -> None:
        """The scaler left a step out; must not raise."""

    def step_had_no_effect(self, optimizer: Any) -> None:
        """It left that to the optimizer; must not raise."""


class Scalers:
    """All gradient scalers of the process. There is one, `scalers`."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._replaced: list[Replaced] = []

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of each skipped step; wraps `GradScaler` for the first."""
        if not self._replaced:
            self._replaced = [
                Replaced(GradScaler, "scale", self._wrap_scale),
                Replaced(GradScaler, "step", self._wrap_step),
            ]
        self._listeners.append(listener)

    def ignore(self, listener: Listener) -> None:
        """Tell it no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        if not self._listeners:
            self._replaced = [replaced for replaced in self._replaced if not replaced.undo()]

    def _wrap_scale(self, original: Any) -> Any:
        @functools.wraps(original)
        def scale(scaler: GradScaler, outputs: Any) -> Any:
            scaled = original(scaler, outputs)
            backwards.scaled(outputs, scaled)
            return scaled

        return scale

    def _wrap_step(self, original: Any) -> Any:
        @functools.wraps(original)
        def step(scaler: GradScaler, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            before = [(listener, listener.step) for listener in self._listeners if listener.observes(optimizer)]
            result = original(scaler, optimizer, *args, **kwargs)
            for listener, steps in before:
                if listener.step == steps:
                    listener.step_skipped(optimizer)
                elif _overflowed(scaler, optimizer):
                    listener.step_had_no_effect(optimizer)
            return result

        return step


def _overflowed(scaler: GradScaler, optimizer: Any) -> bool:
    """True if a fused optimizer found gradients in host memory not finite; a device would have to be waited for."""
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return False
    states: Any = getattr(scaler, "_per_optimizer_states", {})
    found = states[id(optimizer)]["found_inf_per_device"].values() if id(optimizer) in states else ()
    return any(one.is_cpu and bool(one) for one in found)


scalers = Scalers()
