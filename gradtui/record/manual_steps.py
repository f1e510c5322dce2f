"""Trainings without an optimizer, as in `p.data.add_(p.grad, alpha=-lr)`: seen by parameters that change."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

from gradtui.record.graph import leaves_of

SAMPLED = 64  # elements of a parameter by which a change is noticed
PATIENCE = 1000  # calls of backward after which no change is expected any more


class UpdateDetector:
    """Watches the leaves of the first losses for changes that no optimizer made.

    Args:
        loss: the first one.
    """

    def __init__(self, loss: Tensor) -> None:
        self._leaves: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
        self._looks = 0
        for leaf in leaves_of(loss):
            if has_memory(leaf):
                self._leaves[id(leaf)] = (weakref.ref(leaf), sample_of(leaf))

    @property
    def is_over(self) -> bool:
        """True once it is no longer worth looking."""
        return self._looks >= PATIENCE

    def has_found(self) -> bool:
        """True once a parameter has changed."""
        self._looks += 1
        return bool(self._changed())

    def parameters(self) -> list[Tensor]:
        """What is trained: the leaves that changed, and the others that are parameters of modules."""
        changed = {id(leaf) for leaf in self._changed()}
        leaves = [leaf for leaf in (ref() for ref, _ in self._leaves.values()) if leaf is not None]
        return [leaf for leaf in leaves if id(leaf) in changed or isinstance(leaf, nn.Parameter)]

    def _changed(self) -> list[Tensor]:
        pairs = [(ref(), sample) for ref, sample in self._leaves.values()]
        there = [(leaf, sample) for leaf, sample in pairs if leaf is not None and has_memory(leaf)]
        return [leaf for leaf, sample in there if not torch.equal(sample_of(leaf), sample)]


def has_memory(leaf: Tensor) -> bool:
    """False for a parameter that FSDP gathers for each use and frees after it."""
    return leaf.numel() == 0 or leaf.untyped_storage().nbytes() > 0


def sample_of(leaf: Tensor) -> Tensor:
    """A copy of some of its elements."""
    flat = leaf.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLED)].clone()
