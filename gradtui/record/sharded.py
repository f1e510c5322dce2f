"""Norms of parameters that are sharded over processes (FSDP2, tensor parallel): each process adds its shard.

All processes have to measure the same steps. Rank 0 records, and chooses the next step to be measured; the others
learn it from one more number in the vector that is reduced. Before the first step they meet, so that a process
which does not take part, or no longer, is never waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradtui.errors import one_line, say_on_stderr
from gradtui.record.dtensor import is_sharded, local_shard
from gradtui.record.patches import StepHooks
from gradtui.record.slots import Places, Slots
from gradtui.record.step_sample import StepSample
from gradtui.runfile.blocks import DoubleArray

if TYPE_CHECKING:
    from gradtui.record.fold import Fold

PATIENCE = timedelta(seconds=30)  # that rank 0 waits for the others at the first step; they wait twice as long

_met: list[str] = []  # one entry for each meeting of this process so far


def trains_shards(optimizer: Any) -> bool:
    """True if the optimizer steps sharded parameters, all of them over all processes."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    meshes: list[Any] = [getattr(p, "device_mesh", None) for p in _parameters(optimizer) if is_sharded(p)]
    return bool(meshes) and all(mesh.size() == distributed.get_world_size() for mesh in meshes)


class Squares(NamedTuple):
    """Sums of squares over all processes, each [parameters of the optimizer]."""

    gradients: DoubleArray
    parameters: DoubleArray
    updates: DoubleArray


class ShardedNorms:
    """Sums of squares of whole parameters, on the measured steps of one optimizer; there is one in each process.

    Args:
        optimizer: steps the parameters.
        plan: asked in the process of rank 0 after each measured step: how many steps on the next one is, 0 for never.

    Attributes:
        measuring: the step under way, or the one just taken, is measured.
        squares: of that step.
        cost: seconds that measuring it took.
        step_time: seconds from step to step.
    """

    def __init__(self, optimizer: Any, plan: Callable[[ShardedNorms], int] | None = None) -> None:
        self.measuring = False
        self.squares = Squares(*np.empty((3, 0)))
        self.cost = self.step_time = 0.0
        self._plan = plan if torch.distributed.get_rank() == 0 else None
        self._steps, self._next = 0, 1
        self._held: list[Tensor] = []
        self._gradients: Tensor | None = None
        self._last = (0, time.perf_counter())
        self._hooks = StepHooks(optimizer, self._before, self._after)

    def _before(self, optimizer: Any, arguments: Any = (), keywords: Any = None) -> None:
        self._steps += 1
        self.measuring = self._steps == self._next
        if not self.measuring:
            return
        if self._steps == 1 and not _all_are_here():
            self.measuring = False
            self._next = 0
            self._hooks.silence()
            return
        begin = time.perf_counter()
        step, then = self._last
        self.step_time, self._last = (begin - then) / (self._steps - step), (self._steps, begin)
        self._gradients = None
        try:
            parameters = _parameters(optimizer)
            self._held = [local_shard(parameter).detach().clone() for parameter in parameters]
            self._gradients = _squares([p.grad for p in parameters], parameters)
        except Exception as error:
            say_on_stderr(f"the shard of this process is not measured ({one_line(error)})")
        self.cost = time.perf_counter() - begin

    def _after(self, optimizer: Any) -> None:
        if not self.measuring:
            return
        begin = time.perf_counter()
        parameters = _parameters(optimizer)
        try:
            # one vector for all: gradients, parameters, updates, and then the steps to the next measured one
            mine = self._mine(parameters)
            vector = torch.cat([*mine, torch.full_like(mine[0][:1], self._ahead())])
            torch.distributed.all_reduce(vector)
            values = vector.cpu().numpy()  # host synchronisation: all have to know the next measured step
            self.squares = Squares(*np.split(values[:-1], 3))
            ahead = int(values[-1])
        except Exception as error:
            say_on_stderr(f"sharded parameters are not measured ({one_line(error)})")
            self.squares, ahead = Squares(*np.full((3, len(parameters)), np.nan)), 0
        self._held, self._gradients = [], None
        self._next = self._steps + ahead if ahead else 0
        self.cost += time.perf_counter() - begin

    def _mine(self, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """This process's share of the sums of squares, after the step; NaN if it could not measure before it."""
        if self._gradients is None:
            unknown = torch.full((len(parameters),), torch.nan, dtype=torch.float64)
            unknown = unknown.to(local_shard(parameters[0]).device)
            return unknown, unknown, unknown
        sizes = _squares(self._held, parameters)
        for held, parameter in zip(self._held, parameters, strict=True):
            held.sub_(local_shard(parameter).detach())
        return self._gradients, sizes, _squares(self._held, parameters)

    def _ahead(self) -> int:
        try:
            return self._plan(self) if self._plan is not None else 0
        except Exception:
            return 0


class ShardedProbe:
    """Takes samples of parameters whose sums of squares `ShardedNorms` collects."""

    busy, copies = False, None

    def __init__(self, slots: Slots, norms: ShardedNorms, optimizer: Any) -> None:
        self._slots, self._norms = slots, norms
        numbers = {id(parameter): i for i, parameter in enumerate(_parameters(optimizer))}
        self._columns = [numbers[id(slot.parameter)] for slot in slots.slots]

    def before(self, optimizer: Any, begin: float, *, timed: bool, update: bool, neurons: bool) -> ShardedSample:
        """Note which gradients there are."""
        scale = optimizer.__dict__.get("grad_scale")
        with_gradient, trained = self._slots.with_gradient(), self._slots.trainable()
        return ShardedSample(
            self._norms,
            1.0 if scale is None else float(scale),
            (self._slots.places(with_gradient), [self._columns[i] for i in with_gradient]),
            (self._slots.places(trained), [self._columns[i] for i in trained]),
        )

    def release(self) -> None:
        """Let go of the parameters."""
        self._slots.release()


class ShardedSample(StepSample):
    """One step of sharded parameters. `with_gradient` and `trained` are places and the columns of their squares."""

    def __init__(
        self,
        norms: ShardedNorms,
        scale: float,
        with_gradient: tuple[Places, list[int]],
        trained: tuple[Places, list[int]],
    ) -> None:
        self._norms, self._scale = norms, scale
        self._with_gradient, self._trained = with_gradient, trained
        self._squares: Squares | None = None
        self.cost = self.update_cost = 0.0
        self.placed = ()
        self.neurons = {}
        self.skipped = False

    def after(self) -> None:
        """The shards of all processes have been added up."""
        self._squares, self.cost = self._norms.squares, self._norms.cost

    def add_to(self, fold: Fold, row: int) -> None:
        """Hand over the sums of squares of whole parameters."""
        if self._squares is not None:
            places, columns = self._with_gradient
            fold.add_gradients(row, places, self._squares.gradients[columns] / self._scale**2)
            places, columns = self._trained
            fold.add_update(row, places, self._squares.parameters[columns], self._squares.updates[columns])
        super().add_to(fold, row)


def _parameters(optimizer: Any) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _squares(tensors: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """Sums of squares of what this process has, float64; what several processes have counts once."""
    found = []
    for tensor, parameter in zip(tensors, parameters, strict=True):
        device = local_shard(parameter).device
        if tensor is None:
            found.append(torch.zeros((), dtype=torch.float64, device=device))
            continue
        shard = local_shard(tensor).detach()
        shard = torch.view_as_real(shard) if shard.is_complex() else shard
        norm = torch.linalg.vector_norm(shard, dtype=torch.float64)
        found.append(norm**2 / _replicas(parameter))
    return torch.stack([square.to(found[0].device) for square in found])


def _replicas(parameter: Any) -> int:
    """How many processes hold the same shard."""
    if not is_sharded(parameter):
        return torch.distributed.get_world_size()
    mesh, count = parameter.device_mesh, 1
    for dimension, placement in enumerate(parameter.placements):
        count *= 1 if placement.is_shard() else mesh.size(dimension)
    return count


def _all_are_here() -> bool:
    """Meet the other processes, once; False in all of them if one does not come in time."""
    _met.append("")
    try:
        store: Any = torch.distributed.distributed_c10d._get_default_store()
        rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        keys = [f"gradtui/{len(_met)}/{i}" for i in range(size)]
        return _gather(store, keys) if rank == 0 else _attend(store, keys[0], keys[rank])
    except Exception as error:
        say_on_stderr(f"sharded parameters are not measured ({one_line(error)})")
        return False


def _gather(store: Any, keys: Sequence[str]) -> bool:
    """Rank 0: wait for the others and say whether it begins."""
    begins = True
    try:
        store.wait(list(keys[1:]), PATIENCE)
        for key in keys[1:]:
            # one that has lost patience says so in the same place
            begins &= store.compare_set(key, "here", "counted") == b"counted"
    except RuntimeError:
        begins = False
        say_on_stderr("sharded parameters are not measured: gradtui does not watch in all processes")
    store.set(keys[0], "begin" if begins else "leave")
    return begins


def _attend(store: Any, decision: str, mine: str) -> bool:
    """The others: wait for what rank 0 says."""
    store.set(mine, "here")
    try:
        store.wait([decision], 2 * PATIENCE)
    except RuntimeError:
        if store.compare_set(mine, "here", "left") == b"left":
            return False
    return bool(store.get(decision) == b"begin")
