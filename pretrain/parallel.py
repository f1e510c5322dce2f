"""Data-parallel training: every process has the whole model and some rows of each batch; gradients are summed.

The result is that of one process but for rounding: all processes draw the random numbers of the whole batch
(`pretrain.sampling`), and means over a batch are means over all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class BatchShard:
    """The rows of a batch that this process has, and their weight in a mean over the whole batch."""

    own: slice
    total: int
    weight: float

    def times(self, count: int) -> BatchShard:
        """The same where each row stands for `count` rows."""
        return BatchShard(slice(self.own.start * count, self.own.stop * count), self.total * count, self.weight)


@dataclass(frozen=True)
class Parallel:
    """This process among those that train together: number `rank` of `count`, from 0."""

    rank: int = 0
    count: int = 1

    def shard(self, total: int) -> BatchShard:
        """The rows of this process out of `total`; if there are fewer rows than processes, each takes all."""
        if total < self.count:
            return BatchShard(slice(0, total), total, 1 / self.count)
        start, stop = (total * rank // self.count for rank in (self.rank, self.rank + 1))
        return BatchShard(slice(start, stop), total, (stop - start) / total)

    def add(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is true in any process."""
        if self.count == 1:
            return flags
        votes = self.add(torch.tensor([float(flag) for flag in flags], device=_device_of_messages()))
        return tuple(vote > 0 for vote in votes.tolist())

    def gather(self, rows: Tensor, shard: BatchShard) -> Tensor:
        """All rows of all processes, of which this one has `part`."""
        if len(rows) == shard.total:
            return rows
        whole = rows.new_zeros(shard.total, *rows.shape[1:])
        whole[shard.own] = rows
        return self.add(whole)


_parallel: ContextVar[Parallel] = ContextVar("parallel", default=Parallel())  # noqa: B039  it is frozen
_shard: ContextVar[BatchShard | None] = ContextVar("part", default=None)


def current() -> Parallel:
    """This process among those that train together now."""
    return _parallel.get()


def current_shard() -> BatchShard | None:
    """The rows that tensors hold now; None if they hold all."""
    return _shard.get()


@contextmanager
def batch(shard: BatchShard) -> Iterator[None]:
    """Within, tensors hold the rows of `part`."""
    token = _shard.set(shard if current().count > 1 else None)
    try:
        yield
    finally:
        _shard.reset(token)


def batch_mean(x: Tensor) -> Tensor:
    """The mean over the whole batch [columns] of x [rows, columns]; its gradient is that of this process's rows, which
    `reduce` adds up to the whole."""
    mean = x.mean(0)
    shard = current_shard()
    if shard is None:
        return mean
    whole = current().add(mean.detach() * shard.weight)
    return mean + (whole - mean.detach())


def reduce(parameters: Iterable[nn.Parameter], cost: Tensor) -> Tensor:
    """Turn gradients, means over this process's rows, into means over the whole batch; likewise `cost` [], returned."""
    shard = current_shard()
    if shard is None:
        return cost
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # one message: many small ones would be slower
    flat = torch.cat([*(grad.reshape(-1) for grad in grads), cost.detach().reshape(1).to(grads[0].dtype)])
    current().add(flat.mul_(shard.weight))
    start = 0
    for grad in grads:
        grad.copy_(flat[start : start + grad.numel()].view_as(grad))
        start += grad.numel()
    return flat[-1]


@contextmanager
def processes(device: torch.device) -> Iterator[Parallel]:
    """Connects the processes that `torchrun` started; within, trainings are data-parallel. Without it, does nothing.

    Each process must be given the same data, layers and generator state.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield current()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    token = _parallel.set(Parallel(distributed.get_rank(), distributed.get_world_size()))
    try:
        yield current()
        distributed.barrier()  # the first to leave would close the connection
    finally:
        _parallel.reset(token)
        distributed.destroy_process_group()


def _device_of_messages() -> torch.device:
    on_gpu = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
