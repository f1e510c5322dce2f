"""Sees the calls by which a training without an optimizer takes gradients: `torch.autograd.grad` and `torch.func`.

Only what may be a step of a training is told: the gradient of one number, from outside any other transform, and without
a graph of the derivative, which penalties and the inner loops of meta-learning ask for. What is wrapped, from the first
follower to the end of the last, is what these functions call: the compiler knows `torch.autograd.grad` itself by name.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._functorch import eager_transforms
from torch.compiler import is_compiling

from gradtui.record.patches import Replaced, never_compiled, skip_when_compiling

Inputs = dict[str, Tensor]  # by the names that the training has for them, or by number


class GradFollower(Protocol):
    """Is told of each call; must not raise."""

    def grad_begins(self, inputs: Inputs, loss: Tensor | None) -> None:
        """Gradients by `inputs` are about to be taken; the loss is not known yet in `torch.func`."""

    def grad_ended(self, inputs: Inputs, grads: Sequence[Tensor | None], loss: Tensor) -> None:
        """They have been taken."""


class GradCalls:
    """What these calls tell. There is one, `grad_calls`.

    Attributes:
        transformed: calls inside another transform such as `vmap`, which cannot be looked into.
    """

    def __init__(self) -> None:
        self.transformed = 0
        self._followers: list[GradFollower] = []
        self._replaced: list[Replaced] = []
        self._inside = False
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

    def _find(self, outputs: Any, inputs: Any) -> tuple[Inputs, Tensor] | None:
        """The inputs and the loss of what may be a step."""
        found, loss = _leaves(inputs), _scalar(outputs)
        return None if found is None or loss is None or _is_transformed() else (found, loss)

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
            if not (accumulate_grad or is_compiling() or self._inside or len(args) < 4):
                _, _, create_graph, inputs = args[:4]
                found = None if create_graph else self._find(outputs, inputs)
            if found is None:
                return original(outputs, *args, accumulate_grad=accumulate_grad, **kwargs)
            self._inside = True
            try:
                self._begin(*found)
                grads = original(outputs, *args, accumulate_grad=accumulate_grad, **kwargs)
                self._end(found[0], grads, found[1])
            finally:
                self._inside = False
            return grads

        return _engine_run_backward

    def _wrap_functional(self, original: Any) -> Any:
        @functools.wraps(original)
        def grad_and_value_impl(func: Any, argnums: Any, has_aux: Any, args: Any, kwargs: Any) -> Any:
            if is_compiling() or self._inside:
                return original(func, argnums, has_aux, args, kwargs)
            if _is_transformed():
                self.transformed += 1
                return original(func, argnums, has_aux, args, kwargs)
            found = _leaves(_by_which(args, argnums))
            if found is None:
                return original(func, argnums, has_aux, args, kwargs)
            self._inside = True
            try:
                self._begin(found, None)
                result = original(func, argnums, has_aux, args, kwargs)
                grads = _leaves(result[0])
                loss = result[1][0] if has_aux else result[1]
                if grads is not None:
                    self._end(found, list(grads.values()), loss)
            finally:
                self._inside = False
            return result

        return grad_and_value_impl


def _by_which(args: Sequence[Any], argnums: Any) -> Any:
    """Those of the arguments that the gradient is taken by; None if there are no such ones."""
    if isinstance(argnums, tuple):
        return [_by_which(args, number) for number in argnums]
    return args[argnums] if type(argnums) is int and -len(args) <= argnums < len(args) else None


def _is_transformed() -> bool:
    """True inside `vmap` or the gradient of a gradient: what is seen there is no plain tensor."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _leaves(tree: Any) -> Inputs | None:
    """The tensors of a tree of dicts, lists and tuples by their paths, if all are floats that come of no others."""
    found: Inputs = {}
    return found if _gather(tree, "", found) and found else None


def _gather(tree: Any, path: str, found: Inputs) -> bool:
    """Add the tensors of a tree to `found`; False if there is anything else in it."""
    if isinstance(tree, Tensor):
        found[path or "0"] = tree
        return tree.is_leaf and tree.is_floating_point()
    if isinstance(tree, Mapping):
        entries = list(tree.items())
    elif isinstance(tree, (tuple, list)):
        entries = list(zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True))
    else:
        return False
    return all(_gather(value, f"{path}.{key}" if path else str(key), found) for key, value in entries)


def _scalar(outputs: Any) -> Tensor | None:
    if isinstance(outputs, Sequence) and len(outputs) == 1:
        outputs = outputs[0]
    return outputs if isinstance(outputs, Tensor) and outputs.numel() == 1 else None


grad_calls = GradCalls()
