"""Sees every call of `backward` in the process: the loss it was called on, when it begins and when it ends.

`Tensor.backward` and everybody else calls `torch.autograd.backward`, so that is the one function that is wrapped, from
the first recorder to the end of the last.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from gradtui.record.parts import is_sharded


class Listener(Protocol):
    """Is told of each call of `backward`; must not raise."""

    def backward_begins(self, loss: Tensor | None) -> None:
        """The graph is still there; `loss` is the scalar, if it is one."""

    def backward_ended(self) -> None:
        """The gradients are there."""

    def loss_broke(self, loss: Tensor) -> None:
        """The loss is NaN or infinite; the graph is still there."""


class Backwards:
    """What the calls of `backward` tell. There is one, `backwards`.

    Attributes:
        active: a call is under way.
        calls: of `backward` so far.
    """

    def __init__(self) -> None:
        self.active = self._inside = False
        self.calls = 0
        self._listeners: list[Listener] = []
        self._total = 0.0
        self._losses = 0
        self._on_devices: list[Tensor] = []
        self._scaled: tuple[Callable[[], Any], Tensor] | None = None
        self._original: Any = None

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of each call from now on; wraps `backward` for the first."""
        if self._original is None:
            self._original = torch.autograd.backward
            torch.autograd.backward = self._wrap(torch.autograd.backward)
        if listener not in self._listeners:
            self._listeners.append(listener)

    def ignore(self, listener: Listener) -> None:
        """Tell it no more; what was wrapped is taken off after the last."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        if not self._listeners and self._original is not None:
            if getattr(torch.autograd.backward, "__wrapped__", None) is self._original:
                original, self._original = self._original, None
                torch.autograd.backward = original  # type: ignore[assignment]
            self.take()

    def take(self) -> float | Tensor | None:
        """The sum of the losses since this was asked last; None if there were none. A tensor if one is on a device."""
        if not self._losses:
            return None
        total: float | Tensor = self._total
        if self._on_devices:
            total = torch.stack([loss.reshape(()) for loss in self._on_devices]).sum() + self._total
            self._on_devices.clear()
        self._total, self._losses = 0.0, 0
        return total

    def scaled(self, loss: Any, result: Any) -> None:
        """Note that a loss scaler made `result` of `loss`, which is what is to be recorded."""
        if isinstance(loss, Tensor) and isinstance(result, Tensor):
            self._scaled = (weakref.ref(result), loss)

    def _wrap(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
            if self._inside or not self._listeners or torch.compiler.is_compiling():
                return original(tensors, grad_tensors, *args, **kwargs)
            self._inside = True
            try:
                self._begin(tensors, grad_tensors)
                self.active = True
                original(tensors, grad_tensors, *args, **kwargs)
                self.active = False
                self.calls += 1
                for listener in self._listeners:
                    listener.backward_ended()
            finally:
                self._inside = self.active = False

        return backward

    def _begin(self, tensors: Any, grad_tensors: Any) -> None:
        loss = _scalar(tensors, grad_tensors)
        for listener in self._listeners:
            listener.backward_begins(loss)
        if loss is not None:
            if self._scaled is not None:
                (result, unscaled), self._scaled = self._scaled, None
                loss = unscaled if result() is loss else loss
            self._losses += 1
            if loss.is_cpu:
                value = loss.item()
                self._total += value
                if value - value != 0.0:  # NaN or infinite
                    for listener in self._listeners:
                        listener.loss_broke(loss)
            else:
                self._on_devices.append(loss.detach())
                if len(self._on_devices) > 64:
                    self._on_devices[:] = [torch.stack([one.reshape(()) for one in self._on_devices]).sum()]


def _scalar(tensors: Any, grad_tensors: Any) -> Tensor | None:
    """The loss that backward is called on; None if it is called with gradients, or on several tensors."""
    if isinstance(tensors, Sequence) and len(tensors) == 1:
        tensors = tensors[0]
        if isinstance(grad_tensors, Sequence) and len(grad_tensors) == 1:
            grad_tensors = grad_tensors[0]
    if isinstance(tensors, Tensor) and grad_tensors is None and tensors.numel() == 1 and not tensors.is_complex():
        return None if is_sharded(tensors) else tensors
    return None


backwards = Backwards()
