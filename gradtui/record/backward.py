"""Sees every call of `backward` in the process: the loss it was called on, when it begins and when it ends.

`Tensor.backward` and everybody else calls `torch.autograd.backward`, so that is the one function that is wrapped, from
the first recorder to the end of the last.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from gradtui.record.dtensor import is_sharded
from gradtui.record.patches import Replaced, never_compiled, skip_when_compiling

FIRST_WAITS = 2  # losses on a device that are waited for


class Listener(Protocol):
    """Is told of losses that broke; must not raise."""

    def loss_broke(self, loss: Tensor) -> None:
        """The loss is NaN or infinite; the graph is still there."""


class Follower(Protocol):
    """Is told of each call of `backward`; must not raise."""

    def backward_begins(self, loss: Tensor | None) -> None:
        """The graph is still there; `loss` is the scalar, if it is one."""

    def backward_ended(self) -> None:
        """The gradients are there."""


class Backwards:
    """What the calls of `backward` tell. There is one, `backwards`.

    Attributes:
        active: a call is under way.
        calls: of `backward` so far, while it is followed.
        output: what `backward` is about to be called on, if it is one tensor; while followers are told of it.
    """

    def __init__(self) -> None:
        self.active = False
        self.calls = 0
        self.output: Tensor | None = None
        self._inside = False  # it, or what is done around it
        self._listeners: list[Listener] = []
        self._followers: list[Follower] = []
        self._at_end: list[Callable[[], None]] = []
        self._total = 0.0
        self._losses = 0
        self._waited = 0
        self._on_devices: list[Tensor] = []
        self._scaled: tuple[Callable[[], Any], Tensor] | None = None
        self._replaced: Replaced | None = None
        self._is_hidden = False
        self._is_plain = True

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of losses that break from now on; wraps `backward` for the first."""
        self._put_on()
        self._waited = 0
        if listener not in self._listeners:
            self._listeners.append(listener)

    def follow(self, follower: Follower) -> None:
        """Tell `follower` of each call from now on."""
        self._put_on()
        if follower not in self._followers:
            self._followers.append(follower)
        self._is_plain = False

    def unfollow(self, follower: Follower) -> None:
        """Tell it no more."""
        if follower in self._followers:
            self._followers.remove(follower)
            self._settle()
            self._take_off()

    def at_end(self, call: Callable[[], None]) -> None:
        """Call it once, after the next call of `backward` that succeeds."""
        self._at_end.append(call)
        self._is_plain = False

    def ignore(self, listener: Listener) -> None:
        """Tell it no more; what was wrapped is taken off after the last."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            self._take_off()

    def _take_off(self) -> None:
        if self._listeners or self._followers or self._replaced is None:
            return
        if self._replaced.undo():
            self._replaced, self._is_hidden = None, False
            for name in ("_begin", "_end"):
                vars(self).pop(name, None)
        self.take()

    def start_over(self) -> None:
        """In a forked child: the call that the parent was in is not ours."""
        self.active = self._inside = False
        self.drop()

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

    def drop(self) -> None:
        """Discard the losses collected since the last `take`."""
        if self._losses:
            self._total, self._losses = 0.0, 0
            if self._on_devices:
                self._on_devices.clear()

    def scaled(self, loss: Any, result: Any) -> None:
        """Note that a loss scaler made `result` of `loss`, which is what is to be recorded."""
        if isinstance(loss, Tensor) and isinstance(result, Tensor):
            self._scaled = (weakref.ref(result), loss)
            self._is_plain = False

    def _put_on(self) -> None:
        if self._replaced is None:
            self._replaced = Replaced(torch.autograd, "backward", self._wrap)
        if "torch._dynamo" in sys.modules:
            self.hide()

    def hide(self) -> None:
        """Keep what we do out of a compiled training step, which calls `backward` eagerly. Loads the compiler."""
        if self._replaced is not None and self._replaced.is_on and not self._is_hidden:
            self._is_hidden = True
            skip_when_compiling(self._replaced.ours)
        if "_begin" not in vars(self):
            self._begin, self._end = never_compiled(self._begin), never_compiled(self._end)  # type: ignore[method-assign]

    def _wrap(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
            # this runs at each step, which may take no more than 100 µs: the usual case calls nothing of ours
            if self._is_plain and not self.active and type(tensors) is Tensor and grad_tensors is None:
                try:
                    value = tensors.item() if tensors.is_cpu else None
                except RuntimeError:
                    value = None  # no scalar, as PyTorch is about to say
                if type(value) is float and value - value == 0.0:
                    self._losses += 1
                    self._total += value
                    self.active = True
                    try:
                        original(tensors, grad_tensors, *args, **kwargs)
                    finally:
                        self.active = False
                    if not self._is_plain:  # something was asked for meanwhile
                        self._end()
                    return None
            if self._inside or self.active:
                return original(tensors, grad_tensors, *args, **kwargs)
            self._inside = True
            try:
                self._begin(tensors, grad_tensors)
                self.active = True
                original(tensors, grad_tensors, *args, **kwargs)
                self.active = False
                self._end()
            finally:
                self._inside = self.active = False

        return backward

    def _begin(self, tensors: Any, grad_tensors: Any) -> None:
        """All that is not the finite loss of a training in host memory, once it is set up."""
        loss = _only(tensors, grad_tensors)
        output = tensors[0] if isinstance(tensors, Sequence) and len(tensors) == 1 else tensors
        self.output = output if isinstance(output, Tensor) else None
        for follower in tuple(self._followers):
            follower.backward_begins(loss)
        self.output = None
        if loss is not None:
            self.see(loss)

    def see(self, loss: Tensor) -> None:
        """Take the loss of a step whose graph is still there."""
        if self._scaled is not None:
            (result, unscaled), self._scaled = self._scaled, None
            self._settle()
            loss = unscaled if result() is loss else loss
        if not self.add(loss):
            for listener in self._listeners:
                listener.loss_broke(loss)

    def add(self, loss: Tensor) -> bool:
        """Add the loss of a step; False if it is NaN or infinite, as far as that is known without waiting.

        The first ones on a device are waited for: what breaks a training at once could not be found later.
        """
        if loss.is_cpu:
            value = loss.item()
            if type(value) is float:  # a complex one has no gradient, as PyTorch is about to say
                self._losses += 1
                self._total += value
                return value - value == 0.0
        elif not loss.is_complex():
            self._losses += 1
            self._on_devices.append(loss.detach())
            if len(self._on_devices) > 64:
                self._on_devices[:] = [torch.stack([one.reshape(()) for one in self._on_devices]).sum()]
            if self._waited < FIRST_WAITS and loss.numel() == 1 and not _is_captured(loss):
                self._waited += 1
                try:
                    value = loss.item()
                except RuntimeError:
                    return True  # it has no number, as on the meta device
                return bool(value - value == 0.0)
        return True

    @property
    def has_losses(self) -> bool:
        """True if there are any that nobody has taken."""
        return self._losses > 0

    def _end(self) -> None:
        self.calls += 1
        calls = self._at_end + [follower.backward_ended for follower in self._followers]
        self._at_end.clear()
        self._settle()
        for call in calls:
            call()

    def _settle(self) -> None:
        """Note whether the next call is one of the usual kind."""
        self._is_plain = not (self._followers or self._at_end or self._scaled)


def _is_captured(tensor: Tensor) -> bool:
    """True while a CUDA graph is recorded, in which nothing may be waited for."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def _only(tensors: Any, grad_tensors: Any) -> Tensor | None:
    """The one number that backward is called on; None if gradients are given, if it is sharded, or several."""
    if isinstance(tensors, Sequence) and len(tensors) == 1:
        tensors = tensors[0]
        if isinstance(grad_tensors, Sequence) and len(grad_tensors) == 1:
            grad_tensors = grad_tensors[0]
    if not isinstance(tensors, Tensor) or grad_tensors is not None or tensors.numel() != 1 or is_sharded(tensors):
        return None
    return tensors


backwards = Backwards()
