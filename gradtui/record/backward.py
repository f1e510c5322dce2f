"""Sees every call of `backward` in the process: the loss it was called on, when it begins and when it ends.

`Tensor.backward` and everybody else calls `torch.autograd.backward`, so that is the one function that is wrapped, from
the first recorder to the end of the last.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

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


Heard = TypeVar("Heard", Listener, Follower)


class ThreadCalls:
    """The calls of one thread, and the losses that nobody has taken yet."""

    def __init__(self) -> None:
        self.called = False  # at any time
        self.active = False
        self.inside = False  # a call, or what is done around it
        self.calls = 0
        self.output: Tensor | None = None
        self.at_end: list[Callable[[], None]] = []
        self.total = 0.0
        self.losses = 0
        self.on_devices: list[Tensor] = []
        self.scaled: tuple[Callable[[], Any], Tensor] | None = None


class Threads(threading.local):
    """The calls of the thread that asks."""

    def __init__(self) -> None:
        self.mine = ThreadCalls()


class Backwards:
    """What the calls of `backward` tell. There is one, `backwards`.

    Trainings in several threads do not hear of each other. A thread that has never called `backward`, as those in which
    PyTorch computes gradients, has part in the newest call.
    """

    def __init__(self) -> None:
        self._listeners: dict[Listener, ThreadCalls | None] = {}  # the thread of which it is told, None for all
        self._followers: dict[Follower, ThreadCalls | None] = {}
        self._threads = Threads()
        self._newest = self._threads.mine
        self._waited = 0
        self._lock = threading.RLock()
        self._replaced: Replaced | None = None
        self._is_hidden = False
        self._is_plain = True

    @property
    def active(self) -> bool:
        """A call is under way."""
        return self._calls().active

    @property
    def calls(self) -> int:
        """How many there were so far, while they are followed."""
        return self._calls().calls

    @property
    def output(self) -> Tensor | None:
        """What `backward` is about to be called on, if it is one tensor; while followers are told of it."""
        return self._threads.mine.output

    def _calls(self) -> ThreadCalls:
        mine = self._threads.mine
        return mine if mine.called else self._newest

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of losses that break from now on; wraps `backward` for the first."""
        self._put_on()
        self._waited = 0
        self._listeners.setdefault(listener, self._threads.mine)

    def follow(self, follower: Follower, *, everywhere: bool = False) -> None:
        """Tell `follower` of each call from now on: of this thread, if it calls `backward`; of all, if `everywhere`."""
        self._put_on()
        self._followers.setdefault(follower, None if everywhere else self._threads.mine)
        self._is_plain = False

    def unfollow(self, follower: Follower) -> None:
        """Tell it no more."""
        if follower in self._followers:
            self._followers.pop(follower, None)
            self._is_plain = not self._followers
            self._take_off()

    def at_end(self, call: Callable[[], None]) -> None:
        """Call it once, after the next call of `backward` that succeeds."""
        self._calls().at_end.append(call)

    def ignore(self, listener: Listener) -> None:
        """Tell it no more; what was wrapped is taken off after the last."""
        if listener in self._listeners:
            self._listeners.pop(listener, None)
            self._take_off()

    def _take_off(self) -> None:
        with self._lock:
            if self._listeners or self._followers or self._replaced is None:
                return
            if self._replaced.undo():
                self._replaced, self._is_hidden = None, False
                for name in ("_begin", "_end"):
                    vars(self).pop(name, None)
        self.take()

    def start_over(self) -> None:
        """In a forked child: the call that the parent was in is not ours."""
        self._lock = threading.RLock()
        self._threads = Threads()
        self._newest = self._threads.mine

    def take(self) -> float | Tensor | None:
        """The sum of the losses since this was asked last; None if there were none. A tensor if one is on a device."""
        calls = self._calls()
        if not calls.losses:
            return None
        total: float | Tensor = calls.total
        if calls.on_devices:
            total = torch.stack([loss.reshape(()) for loss in calls.on_devices]).sum() + calls.total
            calls.on_devices.clear()
        calls.total, calls.losses = 0.0, 0
        return total

    def drop(self) -> None:
        """Discard the losses collected since the last `take`."""
        calls = self._calls()
        if calls.losses:
            calls.total, calls.losses = 0.0, 0
            if calls.on_devices:
                calls.on_devices.clear()

    def scaled(self, loss: Any, result: Any) -> None:
        """Note that a loss scaler made `result` of `loss`, which is what is to be recorded."""
        if isinstance(loss, Tensor) and isinstance(result, Tensor):
            self._threads.mine.scaled = (weakref.ref(result), loss)

    def _put_on(self) -> None:
        with self._lock:
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
            mine = self._threads.mine
            mine.called, self._newest = True, mine
            if self._is_plain and not (mine.active or mine.scaled) and type(tensors) is Tensor and grad_tensors is None:
                try:
                    value = tensors.item() if tensors.is_cpu else None
                except RuntimeError:
                    value = None  # no scalar, as PyTorch is about to say
                if type(value) is float and value - value == 0.0:
                    mine.losses += 1
                    mine.total += value
                    mine.active = True
                    try:
                        original(tensors, grad_tensors, *args, **kwargs)
                    finally:
                        mine.active = False
                    if mine.at_end or not self._is_plain:  # something was asked for meanwhile
                        self._end()
                    return None
            if mine.inside or mine.active:
                return original(tensors, grad_tensors, *args, **kwargs)
            mine.inside = True
            try:
                self._begin(tensors, grad_tensors)
                mine.active = True
                original(tensors, grad_tensors, *args, **kwargs)
                mine.active = False
                self._end()
            finally:
                mine.inside = mine.active = False

        return backward

    def _begin(self, tensors: Any, grad_tensors: Any) -> None:
        """All that is not the finite loss of a training in host memory, once it is set up."""
        loss = _only(tensors, grad_tensors)
        output = tensors[0] if isinstance(tensors, Sequence) and len(tensors) == 1 else tensors
        mine = self._threads.mine
        mine.output = output if isinstance(output, Tensor) else None
        for follower in self._told(self._followers):
            follower.backward_begins(loss)
        mine.output = None
        if loss is not None:
            self.see(loss)

    def see(self, loss: Tensor) -> None:
        """Take the loss of a step whose graph is still there."""
        mine = self._threads.mine
        if mine.scaled is not None:
            (result, unscaled), mine.scaled = mine.scaled, None
            loss = unscaled if result() is loss else loss
        if not self.add(loss):
            for listener in self._told(self._listeners):
                listener.loss_broke(loss)

    def _told(self, those: dict[Heard, ThreadCalls | None]) -> list[Heard]:
        """Those that are to hear of a call of this thread: also who waits in a thread that never calls."""
        mine = self._threads.mine
        return [one for one, thread in list(those.items()) if thread in (None, mine) or not thread.called]

    def add(self, loss: Tensor) -> bool:
        """Add the loss of a step; False if it is NaN or infinite, as far as that is known without waiting.

        The first ones on a device are waited for: what breaks a training at once could not be found later.
        """
        calls = self._calls()
        if loss.is_cpu:
            value = loss.item()
            if type(value) is float:  # a complex one has no gradient, as PyTorch is about to say
                calls.losses += 1
                calls.total += value
                return value - value == 0.0
        elif not loss.is_complex():
            calls.losses += 1
            calls.on_devices.append(loss.detach())
            if len(calls.on_devices) > 64:
                calls.on_devices[:] = [torch.stack([one.reshape(()) for one in calls.on_devices]).sum()]
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
        return self._calls().losses > 0

    def _end(self) -> None:
        mine = self._threads.mine
        mine.calls += 1
        calls = mine.at_end + [follower.backward_ended for follower in self._told(self._followers)]
        mine.at_end = []
        for call in calls:
            call()


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
