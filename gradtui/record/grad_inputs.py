"""What a training takes gradients by: tensors, or lists, dicts and named tuples of them, also inside `vmap`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters, temporarily_clear_interpreter_stack

CERTAIN = 1  # changes of the inputs that make a training of calls
WITH_GRAPH = 5  # the same of calls that ask for a graph of the derivative, as penalties and meta-learning do
NOT_LEAVES = 20  # the same of calls by tensors that come of others, as in the inner loop of meta-learning


class Inputs(dict[str, Tensor]):
    """What gradients are taken by, by the names that the training has for them, or by number.

    Attributes:
        changes: that have to be seen before the calls count as a training.
    """

    changes = CERTAIN


def named_tensors(tree: Any) -> Inputs | None:
    """The tensors of a tree by name, if all are of floats; None if not.

    Names within names are joined by dots. What `vmap` has put around tensors is taken off.
    """
    found = Inputs()
    try:
        is_tree = _collect(tree, "", found)
    except RecursionError:
        is_tree = False
    if not is_tree or not found or not all(tensor.is_floating_point() for tensor in found.values()):
        return None
    if not all(tensor.is_leaf for tensor in found.values()):
        found.changes = NOT_LEAVES
    return found


def _collect(tree: Any, name: str, found: Inputs) -> bool:
    if isinstance(tree, Tensor):
        tensor = without_batches(tree)
        found[name or "0"] = tensor
        return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    if isinstance(tree, Mapping):
        entries = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        entries = list(zip(tree._fields, tree, strict=True))
    elif isinstance(tree, (tuple, list)):
        entries = [(str(number), value) for number, value in enumerate(tree)]
    else:
        return False
    return all(_collect(value, f"{name}.{key}" if name else key, found) for key, value in entries)


def gradients(inputs: Inputs, tree: Any, *, batches: bool) -> list[Tensor] | None:
    """The gradients of inputs, as a function of `torch.func` returned them; means over what `vmap` maps beyond them."""
    grads = named_tensors(tree)
    if grads is None or len(grads) != len(inputs):
        return None
    if not batches:
        return list(grads.values())
    pairs = zip(grads.values(), inputs.values(), strict=True)
    return [grad.mean(dim=tuple(range(grad.dim() - tensor.dim()))) if grad.dim() > tensor.dim() else grad
            for grad, tensor in pairs]  # fmt: skip


def without_batches(tensor: Tensor) -> Tensor:
    """A tensor with the dimensions over which `vmap` maps in front."""
    functorch = torch._C._functorch
    while functorch.is_batchedtensor(tensor):
        place = functorch.maybe_get_bdim(tensor)
        tensor = functorch.get_unwrapped(tensor)
        if place:
            with temporarily_clear_interpreter_stack():
                tensor = tensor.movedim(place, 0)
    return tensor


def is_transformed() -> bool:
    """True inside a function of `torch.func` or `vmap`: what is seen there is no plain tensor."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def is_inside_grad() -> bool:
    """True inside a transform that is not `vmap`, as in the gradient of a gradient."""
    if not is_transformed():
        return False
    return any(interpreter.key() != TransformType.Vmap for interpreter in retrieve_all_functorch_interpreters())


def outside_transforms() -> AbstractContextManager[Any]:
    """Work on plain tensors meanwhile."""
    found: AbstractContextManager[Any] = temporarily_clear_interpreter_stack()
    return found
