"""Which layers lead to which of the last layers: those of which none is the same have losses of their own.

The heads of an actor and of a critic may have losses of very different sizes, so that their gradients say nothing about
each other; the layers that both share lead to both. It is seen in the graphs of the first losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from gradtui.record.backward import backwards
from gradtui.record.graph import graph_nodes, is_view
from gradtui.record.layers import LayerTable

LOOKS = 4  # first losses that are looked at, as an actor and a critic may have one each
MOST_COST = 0.05  # s: what takes longer is looked at once


class Branches:
    """Looks at the graphs of the first losses once layers are known, and notes their branches in the table.

    Args:
        table: the layers.
        cpu: seconds that this thread has worked.
        looked: called with what a look cost in seconds, and whether there is something new.
    """

    def __init__(self, table: LayerTable, cpu: Callable[[], float], looked: Callable[[float, bool], None]) -> None:
        self._table, self._cpu, self._looked = table, cpu, looked
        self._looks = 0

    def begin(self) -> None:
        """There are new layers: look at the next losses."""
        self._looks = LOOKS
        backwards.follow(self)

    def remove(self) -> None:
        """Look no more."""
        backwards.unfollow(self)

    def backward_begins(self, loss: Tensor | None) -> None:
        """Look at the graph of a loss."""
        if loss is None or not self._looks:
            return
        begin = self._cpu()
        try:
            layer_of = {id(slot.parameter): slot.layer for slot in self._table.slots}
            is_new = self._table.note_branches(branches_of(loss, layer_of))
        except Exception:
            self._looks, is_new = 1, False  # without them all layers are compared
        cost = self._cpu() - begin
        self._looks = self._looks - 1 if cost < MOST_COST else 0
        self._looked(cost, is_new)

    def backward_ended(self) -> None:
        """Follow no longer than needed."""
        if not self._looks:
            self.remove()


def branches_of(loss: Tensor, layer_of: Mapping[int, int]) -> dict[int, set[int]]:
    """Layer -> the last layers that it leads to on its way to the loss; empty if nearly all are last ones.

    `layer_of` has the layer of each parameter by id. A layer is a last one if no other one comes after it.
    """
    ends: dict[int, int] = {}  # layer -> its bit
    found: dict[int, int] = {}
    above: dict[Any, int] = {}  # the last layers that an operation leads to
    # an operation has a higher number than those whose results it was given
    for node in sorted(graph_nodes(loss), key=lambda node: node._sequence_nr(), reverse=True):
        if _parameter(node) is not None:
            continue  # it belongs to the operation that it is used in
        leads_to = above.pop(node, 0)
        own: list[int] = []
        rest: list[Any] = []
        for following, _ in node.next_functions:
            parameter = _parameter(following)
            if parameter is None:
                rest += [] if following is None else [following]
            elif id(parameter) in layer_of:
                own.append(layer_of[id(parameter)])
        if own and not leads_to:
            leads_to = ends.setdefault(max(own), 1 << len(ends))
        for layer in own:
            found[layer] = found.get(layer, 0) | leads_to
        for following in rest:
            above[following] = above.get(following, 0) | leads_to
    if len(ends) > max(4, len(found) // 3):
        return {}  # as where parameters are made of others, so that none comes to where it is used
    return {layer: {end for end, bit in ends.items() if bits & bit} for layer, bits in found.items()}


def _parameter(node: Any) -> Tensor | None:
    """The leaf that comes to an operation as it is, or seen in another way."""
    while node is not None and not hasattr(node, "variable"):
        node = node.next_functions[0][0] if is_view(node) else None
    leaf: Tensor | None = None if node is None else node.variable
    return leaf
