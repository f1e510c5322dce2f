"""The autograd graph of a loss: one walk over the operations behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

MOST_NODES = 200_000  # of one graph


def graph_nodes(loss: Tensor) -> Iterator[Any]:
    """The operations behind a loss, each once, at most `MOST_NODES`; not the leaves."""
    seen: set[Any] = set()
    waiting: list[Any] = [loss.grad_fn]
    while waiting and len(seen) < MOST_NODES:
        node = waiting.pop()
        if node is None or node in seen or hasattr(node, "variable"):
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]


def leaf_uses(loss: Tensor) -> dict[int, tuple[int, Tensor]]:
    """The leaf tensors behind a loss that need a gradient: id -> (number of the first operation that used it, leaf)."""
    found: dict[int, tuple[int, Tensor]] = {}
    for node in graph_nodes(loss):
        number = node._sequence_nr()
        for following, _ in node.next_functions:
            leaf = getattr(following, "variable", None)
            if leaf is not None and (id(leaf) not in found or number < found[id(leaf)][0]):
                found[id(leaf)] = number, leaf
    return found
