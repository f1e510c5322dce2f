"""Trainings whose steps nobody tells of: without an optimizer, or with one whose step `torch.compile` has compiled.

The gradients are measured when `backward` has ended, the step that was taken is known when the next one begins. That
there is no optimizer, as in `p.data.add_(p.grad, alpha=-lr)`, is seen by parameters that change.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradtui.record.discover import leaves_of

if TYPE_CHECKING:
    from gradtui.record.recorder import Recorder

SAMPLED = 64  # elements of a parameter by which a change is noticed
PATIENCE = 1000  # calls of backward after which nobody expects a change any more


class Suspicion:
    """Watches the leaves of the first losses for changes that no optimizer made.

    Args:
        loss: the first one.
    """

    def __init__(self, loss: Tensor) -> None:
        self._leaves: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
        self._looks = 0
        self._look_at(loss)

    @property
    def over(self) -> bool:
        """True once it is no longer worth looking."""
        return self._looks >= PATIENCE

    def confirmed(self) -> bool:
        """True once a parameter has changed."""
        self._looks += 1
        return bool(self._changed())

    def parameters(self) -> list[Tensor]:
        """What is trained: the leaves that changed, and the others that are parameters of modules."""
        changed = {id(leaf) for leaf in self._changed()}
        leaves = [leaf for leaf in (ref() for ref, _ in self._leaves.values()) if leaf is not None]
        return [leaf for leaf in leaves if id(leaf) in changed or isinstance(leaf, nn.Parameter)]

    def _look_at(self, loss: Tensor) -> None:
        for leaf in leaves_of(loss):
            if _has_memory(leaf):
                self._leaves[id(leaf)] = (weakref.ref(leaf), _sample(leaf))

    def _changed(self) -> list[Tensor]:
        pairs = [(ref(), sample) for ref, sample in self._leaves.values()]
        there = [(leaf, sample) for leaf, sample in pairs if leaf is not None and _has_memory(leaf)]
        return [leaf for leaf, sample in there if not torch.equal(_sample(leaf), sample)]


class ByHand:
    """Stands in for an optimizer with the recorder, which it tells of steps by calls of `backward`.

    Args:
        recorder: what records.
        groups: what is trained, as an optimizer has it.
    """

    def __init__(self, recorder: Recorder, groups: list[dict[str, Any]]) -> None:
        self._recorder = recorder
        self.param_groups = groups
        self._stepping = False

    def backward_begins(self) -> None:
        """The step after the last backward has been taken by now."""
        if self._stepping:
            self._stepping = False
            self._recorder.after_step(self)

    def backward_ended(self) -> None:
        """The gradients are there, and will be gone soon."""
        self._stepping = True
        self._recorder.before_step(self)


def _has_memory(leaf: Tensor) -> bool:
    """False for a parameter that FSDP gathers for each use and frees after it."""
    return leaf.numel() == 0 or leaf.untyped_storage().nbytes() > 0


def _sample(leaf: Tensor) -> Tensor:
    flat = leaf.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLED)].clone()
