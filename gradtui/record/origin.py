"""Where a NaN or ∞ came from: which layers' parameters have one, and which operation of the forward pass made it.

The autograd graph of a loss keeps what each operation was given or gave (`_saved_*`). Its nodes are numbered in the
order in which they ran (`_sequence_nr`), so the first of them with such a number says where it began.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradtui.record.dtensor import is_sharded, local_shard
from gradtui.record.graph import graph_nodes
from gradtui.record.layers import LayerTable
from gradtui.runfile.schema import Origin

INFINITY = float("inf")


class GradientGuard:
    """Looks at a gradient after each backward, if something changes gradients before the step, as clipping does.

    One NaN makes the norm that clipping divides by NaN, and so every gradient: which layer it was can be seen only
    before. What is looked at is the smallest gradient of the first layer, which backpropagation reaches last: 2 µs.
    Gradients on a device or sharded are not looked at, because that would wait.

    Attributes:
        found: the step in which a gradient was first NaN or ∞, and the last layer that had one.
        alters: whether gradients are changed before the step; None while that is not known.
    """

    def __init__(self, table: LayerTable) -> None:
        self._table = table
        self.found: tuple[int, int] | None = None
        self.alters: bool | None = None
        self._seen: tuple[weakref.ref[Tensor], int] | None = None

    def after_backward(self, step: int) -> None:
        """Look at the gradient of the step to come."""
        if self.alters is False:
            return
        first = next((slot.layer for slot in self._table.slots if slot.parameter.grad is not None), None)
        grads = [p.grad for p in (s.parameter for s in self._table.slots if s.layer == first) if p.grad is not None]
        grads = [grad for grad in grads if grad.is_cpu and grad.layout == torch.strided and not is_sharded(grad)]
        if not grads:
            return
        grad = min(grads, key=Tensor.numel)
        self._seen = weakref.ref(grad), grad._version
        total = grad.sum().item()
        if total - total == 0.0:
            self.found = None  # what there was has been left out
        elif self.found is None:
            layers = broken_layers(self._table, lambda p: p.grad)
            self.found = (step, layers[-1]) if layers else None

    def before_step(self) -> None:
        """See whether the gradient has been changed since the backward."""
        seen, self._seen = self._seen, None
        if seen is not None and not self.alters:
            grad = seen[0]()
            self.alters = grad is None or grad._version != seen[1]


def find_origin(loss: Tensor, table: LayerTable, guard: GradientGuard, steps: int) -> Origin:
    """Where a loss became NaN or infinite, after so many steps: in this forward pass, or in an earlier backward."""
    broken = broken_layers(table)
    if not broken:
        return Origin(steps + 1, "forward", *where_it_broke(loss, table))
    # backpropagation runs from the output to the input: the last layer met it first
    step, layer = guard.found or (max(1, steps), broken[-1])
    return Origin(step, "backward", layer, "its gradient was NaN or infinite")


def broken_layers(table: LayerTable, tensor_of: Callable[[Tensor], Tensor | None] = lambda p: p) -> list[int]:
    """The layers, in order, with a NaN or ∞ in a parameter, or in what `tensor_of` makes of it. Waits for devices."""
    return sorted({slot.layer for slot in table.slots if not _is_finite(tensor_of(slot.parameter))})


def where_it_broke(loss: Tensor, table: LayerTable) -> tuple[int | None, str]:
    """The layer whose output was the first with a NaN or ∞ in the forward pass, and in words what happened.

    None stands for the time before the first layer: the input itself was not finite. A −∞ counts only where a layer is
    given it, or, if the net has made it, where nothing else is found: logarithms of probabilities have it in good
    health, and masks of attention are made of it.
    """
    # a view of a parameter, such as its transpose, is no operation on what flows through the net
    nodes = [node for node in graph_nodes(loss) if not (_is_view(node) and _parameters(node))]
    nodes.sort(key=lambda node: node._sequence_nr())
    found = _first_broken(nodes, table, lenient=True) or _first_broken(nodes, table, lenient=False)
    if found is not None:
        return found
    layers = _layers(table)
    last = next((layers[key] for node in reversed(nodes) for key in _parameters(node) if key in layers), None)
    return last, "the loss was made NaN or infinite after it"


def _layers(table: LayerTable) -> dict[int, int]:
    """The layer of each parameter, by id."""
    return {id(slot.parameter): slot.layer for slot in table.slots}


def _first_broken(nodes: list[Any], table: LayerTable, *, lenient: bool) -> tuple[int | None, str] | None:
    """The first operation that was given or made a NaN or ∞: the layer before it, and what happened."""
    layer_of = _layers(table)
    layer: int | None = None
    for node in nodes:
        own = [layer_of[key] for key in _parameters(node) if key in layer_of]
        given, made = _saved(node)
        # what has no gradient is a constant, such as a mask
        if any(not _is_finite(tensor, not own and (lenient or not tensor.requires_grad)) for tensor in given):
            if layer is None:
                return None, "the input of the model was NaN or infinite"
            before = f" before {table.layers[own[0]].name}" if own and own[0] != layer else ""
            return layer, f"what {_name(node)} was given after it{before} was NaN or infinite"
        if own:
            layer = own[0]
        if any(not _is_finite(tensor, lenient and not own) for tensor in made):
            return layer, f"what {_name(node)} returned after it was NaN or infinite"
    return None


def _parameters(node: Any) -> list[int]:
    """The ids of the leaves that go into an operation, directly or through a view such as a transpose."""
    found = []
    for following, _ in node.next_functions:
        if following is None:
            continue
        if hasattr(following, "variable"):
            found.append(id(following.variable))
        elif _is_view(following):
            found += [id(leaf.variable) for leaf, _ in following.next_functions if hasattr(leaf, "variable")]
    return found


def _is_view(node: Any) -> bool:
    return type(node).__name__ in ("TBackward0", "TransposeBackward0", "ViewBackward0", "PermuteBackward0")


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


def _is_finite(tensor: Tensor | None, forgives: bool = False) -> bool:
    """True if no number is NaN or infinite; −∞ may be if it `forgives`."""
    if tensor is None or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    tensor = local_shard(tensor)
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.to_dense()
    tensor = tensor.detach()
    if bool(torch.isfinite(tensor).all()):
        return True
    return forgives and not tensor.is_complex() and bool((tensor < INFINITY).all())  # false for a NaN too


def _name(node: Any) -> str:
    """An operation as its users call it: `log` for LogBackward0."""
    return str(type(node).__name__).partition("Backward")[0].lower()
