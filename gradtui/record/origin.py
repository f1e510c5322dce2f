"""Where a NaN or ∞ came from: which layers' parameters have one, and which operation of the forward pass made it.

The autograd graph of a loss keeps what each operation was given or gave (`_saved_*`). Its nodes are numbered in the
order in which they ran (`_sequence_nr`), so the first of them with such a number says where it began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gradtui.record.layers import LayerTable
from gradtui.record.parts import local_part

MOST_NODES = 200_000  # of a graph that are looked at


def broken_layers(table: LayerTable, tensor_of: Callable[[Tensor], Tensor | None] = lambda p: p) -> list[int]:
    """The layers, in order, with a NaN or ∞ in a parameter, or in what `tensor_of` makes of it. Waits for devices."""
    return sorted({slot.layer for slot in table.slots if not _is_finite(tensor_of(slot.parameter))})


def where_it_broke(loss: Tensor, table: LayerTable) -> tuple[int | None, str]:
    """The layer whose output was the first with a NaN or ∞ in the forward pass, and in words what happened.

    None stands for the time before the first layer: the input itself was not finite.
    """
    nodes = sorted(_nodes(loss), key=lambda node: node._sequence_nr())
    layer_of = {id(slot.parameter): slot.layer for slot in table.slots}
    layer: int | None = None
    for node in nodes:
        own = [layer_of[key] for key in _parameters(node) if key in layer_of]
        given, made = _saved(node)
        if any(not _is_finite(tensor) for tensor in given):
            if layer is None:
                return None, "the input of the model was NaN or infinite"
            before = f" before {table.layers[own[0]].name}" if own and own[0] != layer else ""
            return layer, f"what {_name(node)} was given after it{before} was NaN or infinite"
        if own:
            layer = own[0]
        if any(not _is_finite(tensor) for tensor in made):
            return layer, f"what {_name(node)} returned after it was NaN or infinite"
    return layer, "the loss was made NaN or infinite after it"


def _nodes(loss: Tensor) -> Iterator[Any]:
    """The operations behind a loss, each once; not the leaves."""
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting and len(seen) < MOST_NODES:
        node = waiting.pop()
        if node is None or node in seen or hasattr(node, "variable"):
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]


def _parameters(node: Any) -> list[int]:
    """The ids of the leaves that go into an operation, directly or through a view such as a transpose."""
    found = []
    for following, _ in node.next_functions:
        if following is None:
            continue
        if hasattr(following, "variable"):
            found.append(id(following.variable))
        elif type(following).__name__ in ("TBackward0", "TransposeBackward0", "ViewBackward0", "PermuteBackward0"):
            found += [id(leaf.variable) for leaf, _ in following.next_functions if hasattr(leaf, "variable")]
    return found


def _saved(node: Any) -> tuple[list[Tensor], list[Tensor]]:
    """What an operation kept of its inputs, and of its results; parameters are left out."""
    given: list[Tensor] = []
    made: list[Tensor] = []
    for name in dir(node):
        if not name.startswith("_saved_"):
            continue
        try:
            value = getattr(node, name)
        except RuntimeError:
            continue  # freed, or changed in place since
        if isinstance(value, Tensor) and not (value.is_leaf and value.requires_grad):
            (made if name in ("_saved_result", "_saved_output", "_saved_out") else given).append(value)
    return given, made


def _is_finite(tensor: Tensor | None) -> bool:
    if tensor is None or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    tensor = local_part(tensor)
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.to_dense()
    return bool(torch.isfinite(tensor.detach()).all())


def _name(node: Any) -> str:
    """An operation as its users call it: `log` for LogBackward0."""
    return str(type(node).__name__).partition("Backward")[0].lower()
