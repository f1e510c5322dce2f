"""Sees the calls by which a training without an optimizer takes gradients: `torch.autograd.grad` and `torch.func`.

Only what may be a step of a training is told: the gradient of one output, from outside any other transform but `vmap`.
What is wrapped, from the first follower to the end of the last, is what these functions call: the compiler knows
`torch.autograd.grad` itself by name.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._functorch import eager_transforms
from torch.compiler import is_compiling

from gradtui.record.grad_inputs import (
    CERTAIN,
    WITH_GRAPH,
    Inputs,
    gradients,
    is_inside_grad,
    is_transformed,
    named_tensors,
    outside_transforms,
    without_batches,
)
from gradtui.record.patches import Replaced, never_compiled, skip_when_compiling


class GradFollower(Protocol):
    """Is told of each call; must not raise."""

    def grad_begins(self, inputs: Inputs, loss: Tensor | None) -> None:
        """Gradients by `inputs` are about to be taken; the loss is not known yet in `torch.func`."""

    def grad_ended(self, inputs: Inputs, grads: Sequence[Tensor | None], loss: Tensor) -> None:
        """They have been taken."""


class Thread(threading.local):
    """Whether the thread that asks is in a call, or in what is done around it."""

    inside = False


class GradCalls:
    """What these calls tell. There is one, `grad_calls`.

    Attributes:
        transformed: calls inside a transform that cannot be looked into.
    """

    def __init__(self) -> None:
        self.transformed = 0
        self._followers: list[GradFollower] = []
        self._replaced: list[Replaced] = []
        self._thread = Thread()
        self._hidden = False

    def follow(self, follower: GradFollower) -> None:
        """Tell `follower` of each call from now on; wraps the functions for the first."""
        if not self._replaced:
            self._replaced = [
                Replaced(owner, name, wrap)
                for owner, name, wrap in (
                    (torch.autograd, "_engine_run_backward", self._wrap_engine),
                    (eager_transforms, "grad_and_value_impl", self._wrap_functional),
                )
                if hasattr(owner, name)  # they are private, so that another PyTorch may lack them
            ]
            if "torch._dynamo" in sys.modules:
                self.hide()
        if follower not in self._followers:
            self._followers.append(follower)

    def unfollow(self, follower: GradFollower) -> None:
        """Tell it no more."""
        if follower in self._followers:
            self._followers.remove(follower)
        if not self._followers:
            self._replaced = [replaced for replaced in self._replaced if not replaced.undo()]
            self._hidden = False
            for name in ("_find", "_begin", "_end"):
                vars(self).pop(name, None)

    def hide(self) -> None:
        """Keep what we do out of the code that compiled functions call eagerly. Loads the compiler."""
        if self._replaced and not self._hidden:
            for replaced in self._replaced:
                if replaced.ours.__name__ == "_engine_run_backward":  # the compiler looks into the other one by itself
                    skip_when_compiling(replaced.ours)
            for name in ("_find", "_begin", "_end"):
                setattr(self, name, never_compiled(getattr(self, name)))
            self._hidden = True

    def _find(self, outputs: Any, inputs: Any, with_graph: bool) -> tuple[Inputs, Tensor] | None:
        """The inputs and the output of what may be a step."""
        found, output = named_tensors(inputs), _only_tensor(outputs)
        if found is None or output is None or found.changes != CERTAIN or is_transformed():
            self.transformed += found is None  # `vjp` and `jacrev` take them by wrapped tensors
            return None
        found.changes = WITH_GRAPH if with_graph else CERTAIN
        return found, output

    def _begin(self, inputs: Inputs, loss: Tensor | None) -> None:
        for follower in tuple(self._followers):
            follower.grad_begins(inputs, loss)

    def _end(self, inputs: Inputs, grads: Sequence[Tensor | None], loss: Tensor) -> None:
        for follower in tuple(self._followers):
            follower.grad_ended(inputs, grads, loss)

    def _wrap_engine(self, original: Any) -> Any:
        @functools.wraps(original)
        def _engine_run_backward(outputs: Any, *args: Any, accumulate_grad: bool, **kwargs: Any) -> Any:
            found = None
            if not (accumulate_grad or is_compiling() or self._thread.inside or len(args) < 4):
                _, _, create_graph, inputs = args[:4]
                found = self._find(outputs, inputs, bool(create_graph))
            if found is None:
                return original(outputs, *args, accumulate_grad=accumulate_grad, **kwargs)
            self._thread.inside = True
            try:
                self._begin(*found)
                grads = original(outputs, *args, accumulate_grad=accumulate_grad, **kwargs)
                self._end(found[0], grads, found[1])
            finally:
                self._thread.inside = False
            return grads

        return _engine_run_backward

    def _wrap_functional(self, original: Any) -> Any:
        @functools.wraps(original)
        def grad_and_value_impl(func: Any, argnums: Any, has_aux: Any, args: Any, kwargs: Any) -> Any:
            if is_compiling() or self._thread.inside or is_inside_grad():
                return original(func, argnums, has_aux, args, kwargs)
            batches = is_transformed()
            found = _arguments(func, argnums, args)
            if found is None:
                self.transformed += batches
                return original(func, argnums, has_aux, args, kwargs)
            self._thread.inside = True
            try:
                with outside_transforms():
                    self._begin(found, None)
                result = original(func, argnums, has_aux, args, kwargs)
                loss = result[1][0] if has_aux else result[1]
                with outside_transforms():
                    grads = gradients(found, result[0], batches=batches)
                    if grads is not None:
                        self._end(found, grads, without_batches(loss).mean() if batches else loss)
            finally:
                self._thread.inside = False
            return result

        return grad_and_value_impl


def _arguments(func: Any, argnums: Any, args: tuple[Any, ...]) -> Inputs | None:
    """What a function of `torch.func` takes the gradient by."""
    numbers = (argnums,) if type(argnums) is int else argnums
    if not isinstance(numbers, tuple) or not all(-len(args) <= number < len(args) for number in numbers):
        return None
    if type(argnums) is int:
        return named_tensors(args[argnums])
    try:
        names = list(inspect.signature(func).parameters)
    except (TypeError, ValueError):
        names = []
    names += [str(number) for number in range(len(names), len(args))]
    return named_tensors({names[number % len(args)]: args[number] for number in numbers})


def _only_tensor(outputs: Any) -> Tensor | None:
    if isinstance(outputs, Sequence) and len(outputs) == 1:
        outputs = outputs[0]
    return outputs if isinstance(outputs, Tensor) else None


grad_calls = GradCalls()
