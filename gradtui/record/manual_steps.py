"""Trainings without an optimizer, as in `p.data.add_(p.grad, alpha=-lr)`: seen by parameters that change."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradtui.record.graph import leaves_of

SAMPLED = 64  # elements of a parameter by which a change is noticed
REPLACED_BEFORE = 5  # times that parameters were replaced: the inner loop of meta-learning does so a few times, too
PATIENCE = 1000  # calls of backward after which no change is expected any more


class UpdateDetector:
    """Watches the leaves of the first losses for changes that no optimizer made.

    Args:
        loss: the first one.
    """

    def __init__(self, loss: Tensor) -> None:
        self._leaves: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
        self._looks = 0
        self.replaced = 0  # times that other tensors have taken the place of all leaves
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

    def are_replaced(self, loss: Tensor) -> list[Tensor]:
        """The leaves of this loss, if at each step others have taken the place of those before; or nothing."""
        if all(ref() is not None for ref, _ in self._leaves.values()):
            return []
        leaves = leaves_of(loss)
        before = [sample for _, sample in self._leaves.values()]
        samples = [sample_of(leaf) for leaf in leaves]
        known = {id(ref()) for ref, _ in self._leaves.values()}
        if any(id(leaf) in known for leaf in leaves) or list(map(_kind, before)) != list(map(_kind, samples)):
            return []
        self.replaced += are_alike(before, samples)
        self._leaves = {id(leaf): (weakref.ref(leaf), sample) for leaf, sample in zip(leaves, samples, strict=True)}
        return leaves if self.replaced >= REPLACED_BEFORE else []

    def parameters(self) -> list[Tensor]:
        """What is trained: the leaves that changed, and the others that are parameters of modules."""
        changed = {id(leaf) for leaf in self._changed()}
        leaves = [leaf for leaf in (ref() for ref, _ in self._leaves.values()) if leaf is not None]
        return [leaf for leaf in leaves if id(leaf) in changed or isinstance(leaf, nn.Parameter)]

    def _changed(self) -> list[Tensor]:
        pairs = [(ref(), sample) for ref, sample in self._leaves.values()]
        there = [(leaf, sample) for leaf, sample in pairs if leaf is not None and has_memory(leaf)]
        return [leaf for leaf, sample in there if not torch.equal(sample_of(leaf), sample)]


def _kind(sample: Tensor) -> tuple[object, ...]:
    return sample.shape, sample.dtype, sample.device


def has_memory(leaf: Tensor) -> bool:
    """False for a parameter that FSDP gathers for each use and frees after it."""
    return leaf.numel() == 0 or leaf.untyped_storage().nbytes() > 0


def are_alike(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    """True if samples have changed by less than they are: a step of a training, not other data."""
    change = sum(float((new - old).square().sum()) for old, new in zip(before, after, strict=True))
    return change < sum(float(old.square().sum()) for old in before)


def sample_of(leaf: Tensor) -> Tensor:
    """A copy of some of its elements."""
    flat = leaf.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLED)].clone()
