"""Sees the calls by which a training without an optimizer takes gradients: `torch.autograd.grad` and `torch.func`.

Only what may be a step of a training is told: the gradient of one number, from outside any other transform, and without
a graph of the derivative, which penalties and the inner loops of meta-learning ask for. Both functions are wrapped from
the first follower to the end of the last.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._functorch import eager_transforms
from torch.compiler import is_compiling

from gradtui.record.patches import Replaced

Inputs = dict[str, Tensor]  # by the names that the training has for them, or by number


class GradFollower(Protocol):
    """Is told of each call; must not raise."""

    def grad_begins(self, inputs: Inputs, loss: Tensor | None) -> None:
        """Gradients by `inputs` are about to be taken; the loss is not known yet in `torch.func`."""

    def grad_ended(self, inputs: Inputs, grads: Sequence[Tensor | None], loss: Tensor) -> None:
        """They have been taken."""


class GradCalls:
    """What these calls tell. There is one, `grad_calls`."""

    def __init__(self) -> None:
        self._followers: list[GradFollower] = []
        self._replaced: list[Replaced] = []
        self._inside = False

    def follow(self, follower: GradFollower) -> None:
        """Tell `follower` of each call from now on; wraps the functions for the first."""
        if not self._replaced:
            self._replaced = [
                Replaced(torch.autograd, "grad", self._wrap_grad),
                Replaced(eager_transforms, "grad_and_value_impl", self._wrap_functional),
            ]
        if follower not in self._followers:
            self._followers.append(follower)

    def unfollow(self, follower: GradFollower) -> None:
        """Tell it no more."""
        if follower in self._followers:
            self._followers.remove(follower)
        if not self._followers:
            self._replaced = [replaced for replaced in self._replaced if not replaced.undo()]

    def _wrap_grad(self, original: Any) -> Any:
        @functools.wraps(original)
        def grad(outputs: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
            if is_compiling() or self._inside or not self._followers or not _is_first_order(arguments, named):
                return original(outputs, inputs, *arguments, **named)
            found, loss = _leaves(inputs), _scalar(outputs)
            if found is None or loss is None or _is_transformed():
                return original(outputs, inputs, *arguments, **named)
            self._inside = True
            try:
                for follower in tuple(self._followers):
                    follower.grad_begins(found, loss)
                result = original(outputs, inputs, *arguments, **named)
                grads = list(result.values()) if isinstance(result, dict) else list(result)
                for follower in tuple(self._followers):
                    follower.grad_ended(found, grads, loss)
            finally:
                self._inside = False
            return result

        return grad

    def _wrap_functional(self, original: Any) -> Any:
        @functools.wraps(original)
        def grad_and_value_impl(func: Any, argnums: Any, has_aux: Any, args: Any, kwargs: Any) -> Any:
            if is_compiling() or self._inside or not self._followers or _is_transformed():
                return original(func, argnums, has_aux, args, kwargs)
            found = _leaves(args[argnums]) if type(argnums) is int and -len(args) <= argnums < len(args) else None
            if found is None:
                return original(func, argnums, has_aux, args, kwargs)
            self._inside = True
            try:
                for follower in tuple(self._followers):
                    follower.grad_begins(found, None)
                result = original(func, argnums, has_aux, args, kwargs)
                grads = _leaves(result[0])
                loss = result[1][0] if has_aux else result[1]
                if grads is not None:
                    for follower in tuple(self._followers):
                        follower.grad_ended(found, list(grads.values()), loss)
            finally:
                self._inside = False
            return result

        return grad_and_value_impl


def _is_first_order(arguments: Sequence[Any], named: Mapping[str, Any]) -> bool:
    """True if neither gradients of the outputs are given nor a graph of the derivative is asked for."""
    given = dict(zip(("grad_outputs", "retain_graph", "create_graph"), arguments, strict=False)) | dict(named)
    return given.get("grad_outputs") is None and not given.get("create_graph")


def _is_transformed() -> bool:
    """True inside `vmap` or the gradient of a gradient: what is seen there is no plain tensor."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _leaves(tree: Any) -> Inputs | None:
    """The tensors of a tensor, list or dict, if all are floats and none comes of other tensors; None if not."""
    if isinstance(tree, Tensor):
        tree = (tree,)
    if isinstance(tree, Mapping):
        found = {str(key): value for key, value in tree.items()}
    elif isinstance(tree, (tuple, list)):
        found = {str(number): value for number, value in enumerate(tree)}
    else:
        return None
    plain = all(isinstance(one, Tensor) and one.is_leaf and one.is_floating_point() for one in found.values())
    return found if found and plain else None


def _scalar(outputs: Any) -> Tensor | None:
    if isinstance(outputs, Sequence) and len(outputs) == 1:
        outputs = outputs[0]
    return outputs if isinstance(outputs, Tensor) and outputs.numel() == 1 else None


grad_calls = GradCalls()
