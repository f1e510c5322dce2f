"""Replicas of data-parallel training must stay equal: each process leaves a hash of its parameters for rank 0.

Nobody waits for anybody: a process writes to the store that the training has made, and goes on; rank 0 looks later at
what has come. Hashes are taken after steps 1, 2, 4, … 1024, and from there on after each 1024th, on all processes.
Processes that never had equal parameters, as of a model in parts, are not compared.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from gradtui.format import called
from gradtui.record.dtensor import is_sharded
from gradtui.record.patches import after_each_step

OFTEN = 1024  # steps up to which each doubling is looked at, and between two looks from there on
MOST_WAITING = 8  # looks of rank 0 that wait for the others
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes of an element -> an integer as long

_made: list[str] = []  # one entry for each of this process so far: the same number is the same optimizer everywhere


def trains_replicas(optimizer: Any) -> bool:
    """True if other processes may train the same parameters."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() < 2:
        return False
    return not any(is_sharded(parameter) for parameter in _parameters(optimizer))


class Replicas:
    """Hashes the parameters of one optimizer; there is one in each process.

    Args:
        optimizer: steps the parameters.
        differ: called in the process of rank 0, once, if they are no longer equal: with the last step after which they
            were, the first after which they were not, the ranks that differ from rank 0, and the first parameter.
        store: of the training; by default that of `torch.distributed`.
    """

    def __init__(
        self, optimizer: Any, differ: Callable[[int, int, list[int], Tensor], None], store: Any = None
    ) -> None:
        _made.append("")
        self._rank, self._size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._store: Any = store or torch.distributed.distributed_c10d._get_default_store()
        self._differ, self._prefix = differ, f"gradtui/replicas/{len(_made)}"
        self._steps, self._next = 0, 1
        self._own: dict[int, bytes] = {}  # rank 0: by step, hashes that the others' are not known of yet
        self._equal_at = 0
        self._optimizer = weakref.ref(optimizer)
        self._remove = after_each_step(optimizer, self._after)

    def remove(self) -> None:
        """Look a last time at what has come, and take the hook off."""
        self._safely(self._compare)
        self._stop()

    def _after(self, optimizer: Any) -> None:
        self._steps += 1
        if self._steps >= self._next:
            self._next = 2 * self._steps if self._steps < OFTEN else self._steps + OFTEN
            self._safely(self._look)

    def _look(self) -> None:
        hashes = hashes_of(_parameters(self._optimizer()))
        if self._rank:
            self._store.set(self._key(self._steps, self._rank), hashes)
            return
        self._own[self._steps] = hashes
        self._compare()

    def _compare(self) -> None:
        """Rank 0: compare what has come of all processes."""
        for step in sorted(self._own):
            keys = [self._key(step, rank) for rank in range(1, self._size)]
            if not self._store.check(keys):
                break
            own = self._own.pop(step)
            others = [self._store.get(key) for key in keys]
            for key in keys:
                with suppress(Exception):  # some stores cannot forget
                    self._store.delete_key(key)
            ranks = [rank for rank, other in enumerate(others, 1) if other != own]
            if not ranks:
                self._equal_at = step
                continue
            if self._equal_at:
                self._differ(self._equal_at, step, ranks, self._first_difference(own, others[ranks[0] - 1]))
            self._stop()
            return
        if len(self._own) > MOST_WAITING:
            self._stop()  # the others do not take part, or no longer

    def _first_difference(self, own: bytes, other: bytes) -> Tensor:
        pairs = enumerate(zip(_numbers(own), _numbers(other), strict=False))
        return _parameters(self._optimizer())[next((i for i, (mine, theirs) in pairs if mine != theirs), 0)]

    def _key(self, step: int, rank: int) -> str:
        return f"{self._prefix}/{step}/{rank}"

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            self._stop()  # the store is gone, or a parameter has no memory: this is no trouble of the training

    def _stop(self) -> None:
        self._own.clear()
        self._remove()


def replicas_differ(equal_at: int, step: int, ranks: Sequence[int], layer: str) -> str:
    """That in words; `layer` is the first one whose parameters differ."""
    who = f"rank {ranks[0]} has" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks[:8]))} have"
    where = f" in {called(layer)}" if layer else ""
    since = f"since a step from {equal_at + 1:,} to {step:,}"
    return f"the replicas differ: {who} other parameters than rank 0{where}, {since}"


def hashes_of(parameters: Sequence[Tensor]) -> bytes:
    """A number of 64 bits for each parameter: the sum of its bits, read as integers, and of its shape."""
    sums = []
    for parameter in parameters:
        values = parameter.detach()
        values = torch.view_as_real(values) if values.is_complex() else values
        bits = values.contiguous().view(BITS[values.element_size()])
        sums.append(bits.sum(dtype=torch.int64) + values.numel())
    # host synchronisation: at a few steps only
    numbers = torch.stack([one.to(sums[0].device) for one in sums]).tolist() if sums else []
    return struct.pack(f"<{len(numbers)}q", *numbers)


def _numbers(hashes: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(hashes) // 8}q", hashes)


def _parameters(optimizer: Any) -> list[Tensor]:
    return [] if optimizer is None else [p for group in optimizer.param_groups for p in group["params"]]
