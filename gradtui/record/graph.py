"""The autograd graph of a loss: one walk over the operations behind it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor

MOST_NODES = 200_000  # of one graph
VIEWS = ("TBackward0", "TransposeBackward0", "ViewBackward0", "PermuteBackward0")
CASTS = ("ToCopyBackward0",)


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


def is_larger(loss: Tensor, limit: int) -> bool:
    """Whether there are more operations behind a loss than that."""
    return next(islice(graph_nodes(loss), limit, None), None) is not None


def leaves_into(node: Any) -> list[Tensor]:
    """The leaves that go into an operation, directly or through views and casts."""
    found = []
    for following, _ in node.next_functions:
        if following is None:
            continue
        if hasattr(following, "variable"):
            found.append(following.variable)
        elif is_view(following):
            found += leaves_into(following)
    return found


def is_view(node: Any) -> bool:
    """Whether it only looks at its tensor in another way: of a leaf that is no operation on what flows through."""
    return type(node).__name__ in VIEWS + CASTS


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


def leaves_of(loss: Tensor) -> list[Tensor]:
    """The leaf tensors behind a loss that need a gradient, in the order in which they were used."""
    return [leaf for _, leaf in sorted(leaf_uses(loss).values(), key=lambda use: use[0])]
