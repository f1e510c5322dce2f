"""Where a forward pass broke: the first of its operations that was given or returned a NaN or an infinity.

The autograd graph of a loss keeps what each operation was given or gave. Its operations are numbered in the order in
which they ran, so the first of them with such a number says where it began; what ran between the last whole number
and that one may have made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradtui.record.dtensor import local_shard
from gradtui.record.graph import graph_nodes, is_view, leaves_into
from gradtui.record.operations import (
    COMPILED,
    EXPONENTIAL,
    GROWING,
    kept,
    limit_of,
    operation,
    output_type,
    poles,
    saved,
    spelled,
)

INFINITY = float("inf")
INPUT_BROKEN = "the input of the model was NaN or infinite"


def operations_of(loss: Tensor) -> list[Any]:
    """What ran to make a loss, in that order, without views and casts of the parameters."""
    # a view of a parameter, such as its transpose, is no operation on what flows through the net
    nodes = [node for node in graph_nodes(loss) if not (is_view(node) and leaves_into(node))]
    nodes.sort(key=lambda node: node._sequence_nr())
    return nodes


class ForwardBreak:
    """Where the forward pass behind a loss broke.

    A -∞ counts only where a layer is given it, or, if the net has made it, where nothing else is found: logarithms of
    probabilities have it in good health, and masks of attention are made of it.

    Attributes:
        passed: the parameters that had been used up to there, in order; none if it was before the first layer.
        what: in words, what happened.
    """

    def __init__(self, loss: Tensor) -> None:
        self.passed: list[Tensor] = []
        self.what = ""
        self._nodes = operations_of(loss)
        if any(type(node).__name__.startswith(COMPILED) for node in self._nodes):
            self.what = "the loss was made NaN or infinite inside the compiled part of the model, or after it"
        elif not (self._look(lenient=True) or self._look(lenient=False)):
            self._at_the_end(loss)

    def _look(self, *, lenient: bool) -> bool:
        """Find the first operation that was given or made a NaN or ∞."""
        self.passed = []
        whole: set[Any] = set()  # operations whose results have been seen to be whole
        for node in self._nodes:
            own = leaves_into(node)
            given, made = saved(node)
            # what has no gradient is a constant, such as a mask
            bad = [one for one in given if not is_finite(one, not own and (lenient or not one.requires_grad))]
            if bad:
                self._was_given(node, bad[0], own, whole)
                return True
            self.passed += own
            bad = [one for one in made if not is_finite(one, lenient and not own)]
            if bad:
                self._returned(node, bad[0], whole)
                return True
            inputs = [following for following, _ in node.next_functions if following is not None]
            inputs = [one for one in inputs if not hasattr(one, "variable") and not (is_view(one) and leaves_into(one))]
            if len(given) >= len(inputs):
                whole.update(inputs)
            if made:
                whole.add(node)
        return False

    def _was_given(self, node: Any, bad: Tensor, own: list[Tensor], whole: set[Any]) -> None:
        bad = local_shard(bad)
        if kept(node, "_saved_target") is not None and not bad.requires_grad and _is_target(node, bad):
            self.passed, self.what = [], f"the target given to {spelled(node)} was NaN or infinite"
        elif not self.passed:
            self.what = INPUT_BROKEN
            if not bad.requires_grad and bad.element_size() == 2 and not bad.isnan().any():
                self.what = f"the input of the model is infinite in {limit_of(bad.dtype)}"
        elif not bad.requires_grad:
            self.what = f"{spelled(node)} was given numbers after it that no layer made, and that are NaN or infinite"
        elif not self._made_by(_unseen_before(node, whole), bad):
            self.what = f"what {spelled(node)} was given after it was NaN or infinite"

    def _returned(self, node: Any, bad: Tensor, whole: set[Any]) -> None:
        if not self._made_by([*_unseen_before(node, whole), node], local_shard(bad)):
            self.what = f"what {spelled(node)} returned after it was NaN or infinite"

    def _made_by(self, suspects: Sequence[Any], bad: Tensor) -> bool:
        """Say which of the operations that may have made it did, if one of them is known to."""
        for node in suspects:
            certain, _ = poles(node, "value")
            if certain:
                self._passed_up_to(node)
                self.what = f"{certain[0]} after it"
                return True
        has_infinity = bool((bad.abs() == INFINITY).any())
        for node in sorted(suspects, key=lambda one: operation(one) not in EXPONENTIAL):
            kind = output_type(node)
            if kind is not None and operation(node) in GROWING and (has_infinity or kind == torch.float16):
                self._passed_up_to(node)
                what = "its output" if leaves_into(node) else f"{spelled(node)} after it"
                self.what = f"{what} overflowed {limit_of(kind)}"
                return True
        return False

    def _passed_up_to(self, node: Any) -> None:
        """Only what an operation and those before it used has been passed."""
        earlier = [one for one in self._nodes if one._sequence_nr() <= node._sequence_nr()]
        self.passed = [leaf for one in earlier for leaf in leaves_into(one)]

    def _at_the_end(self, loss: Tensor) -> None:
        """Nothing that was kept is broken, so it was made by what kept nothing, after all layers."""
        self.passed = [leaf for node in self._nodes for leaf in leaves_into(node)]
        last = max((i for i, node in enumerate(self._nodes) if leaves_into(node)), default=-1)
        if not self._made_by(self._nodes[last + 1 :], loss.detach()):
            self.what = "the loss was made NaN or infinite after it"


def _is_target(node: Any, bad: Tensor) -> bool:
    target = kept(node, "_saved_target")
    return isinstance(target, Tensor) and target.shape == bad.shape and not is_finite(target)


def _unseen_before(node: Any, whole: set[Any]) -> list[Any]:
    """The operations before one, as far back as nothing is known of their results, in the order in which they ran."""
    found: set[Any] = set()
    waiting = [following for following, _ in node.next_functions]
    while waiting:
        one = waiting.pop()
        if one is None or one in found or one in whole or hasattr(one, "variable"):
            continue
        found.add(one)
        if not leaves_into(one):  # what a layer was given has been looked at
            waiting += [following for following, _ in one.next_functions]
    return sorted(found, key=lambda one: one._sequence_nr())


def is_finite(tensor: Tensor | None, forgives: bool = False) -> bool:
    """True if no number is NaN or infinite; -∞ may be if it `forgives`. Waits for devices."""
    if tensor is None or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    tensor = local_shard(tensor)
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.to_dense()
    tensor = tensor.detach()
    if bool(torch.isfinite(tensor).all()):
        return True
    return forgives and not tensor.is_complex() and bool((tensor < INFINITY).all())  # false for a NaN too
