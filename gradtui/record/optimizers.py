"""The optimizers of a recording, the layers of what they step, and the probes that measure those."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from gradtui.record.columns import Columns
from gradtui.record.discover import Discovered, find_specs
from gradtui.record.dtensor import is_sharded
from gradtui.record.layers import LayerSource, LayerTable
from gradtui.record.own_steps import OwnSteps, goes_first
from gradtui.record.patches import when_freed
from gradtui.record.sharded import ShardedNorms, ShardedProbe
from gradtui.record.step_sample import Clock, Probe
from gradtui.record.step_source import StepSource
from gradtui.runfile.blocks import LAST_BIT
from gradtui.runfile.schema import Schedule

MOST_CHANGES = 30  # of the parameters of an optimizer that are followed: finding new layers takes some milliseconds
EACH_LOOKED_AT = 16  # measured steps after which each parameter of an optimizer is looked at, not only their lists


class Watched:
    """One optimizer, what tells of its steps, how many there were, and the probe of its parameters once known."""

    def __init__(self, optimizer: Any, source: StepSource, whole: ShardedNorms | None, own: OwnSteps) -> None:
        self.optimizer, self.own = weakref.ref(optimizer), own
        self.source, self.whole = source, whole
        self.probe: Probe | ShardedProbe | None = None
        self._lists = self._lists_now()
        self._known = self._ids()
        self._asked = 0

    def has_changed(self) -> bool:
        """Whether it steps other parameters than when that was asked last.

        Each one is looked at now and then; at any time, whether there are more, fewer, or other lists of them.
        """
        lists = self._lists_now()
        self._asked += 1
        if lists == self._lists and self._asked % EACH_LOOKED_AT:
            return False
        known, self._known, self._lists = self._known, self._ids(), lists
        return self._known != known

    def _lists_now(self) -> list[tuple[int, int]]:
        return [(id(group["params"]), len(group["params"])) for group in self.groups()]

    def _ids(self) -> list[int]:
        return [id(parameter) for group in self.groups() for parameter in group["params"]]

    def groups(self) -> list[dict[str, Any]]:
        """What it steps, as parameter groups; nothing if it is no more."""
        optimizer = self.optimizer()
        return [] if optimizer is None else optimizer.param_groups

    def parameters(self) -> set[int]:
        """The ids of what it steps."""
        return {id(parameter) for group in self.groups() for parameter in group["params"]}


class Optimizers:
    """Those whose steps are measured.

    Args:
        clock: seconds.
        columns: what is measured; by default what is registered.

    Attributes:
        table: the layers of all that they step.
        has_shards: some of it is sharded over all processes.
    """

    def __init__(self, clock: Clock, columns: Columns | None = None) -> None:
        self.table = LayerTable(columns)
        self.has_shards = False
        self._clock = clock
        self._layer_sources: list[LayerSource] = []
        self._watched: dict[int, Watched] = {}  # by id of the optimizer
        self._finalizers: list[weakref.finalize[..., Any]] = []
        self._keeps_layers = False
        self._patterns = False  # only some of the layers are wanted
        self._changes = 0
        self._gone = 0  # steps of those that are no longer measured
        self._past: dict[int, Schedule] = {}  # of those, by number

    def __getitem__(self, optimizer: Any) -> Watched:
        return self._watched[id(optimizer)]

    def __contains__(self, optimizer: Any) -> bool:
        watched = self._watched.get(id(optimizer))
        return watched is not None and watched.optimizer() is optimizer

    def all(self) -> list[Watched]:
        """Those that are measured now."""
        return list(self._watched.values())

    @property
    def sources(self) -> Iterator[StepSource]:
        """What tells of their steps."""
        return (watched.source for watched in list(self._watched.values()))

    def add(
        self,
        optimizer: Any,
        number: int | None,
        layers: Sequence[LayerSource],
        source: StepSource,
        whole: ShardedNorms | None,
    ) -> None:
        """Measure one more, of whose steps `source` tells; `layers` tell the layers that are new with it.

        `number` is None for what stands in for an optimizer.
        """
        self._layer_sources += layers
        self._patterns |= any(tuple(getattr(source, "patterns", ())) not in ((), ("*",)) for source in layers)
        for watched in self._watched.values():
            watched.probe = None  # what it covers may change
        self._leave(id(optimizer))
        self._watched[id(optimizer)] = Watched(optimizer, source, whole, OwnSteps(number or 0, self.steps))
        self.has_shards |= whole is not None
        self._finalizers.append(when_freed(optimizer, self._on_freed, id(optimizer)))

    @property
    def steps(self) -> int:
        """Steps that all of them have taken."""
        return self._gone + sum(own.steps for own in self.owns)

    @property
    def owns(self) -> list[OwnSteps]:
        """The steps of each that is still there."""
        return [watched.own for watched in self._watched.values()]

    def schedules(self) -> list[Schedule]:
        """How often each was measured; may be asked from any thread."""
        found = self._past.copy()
        for watched in list(self._watched.values()):
            _add(found, watched.own.counts())
        return list(found.values())

    def goes_first(self, own: OwnSteps, at: str, now: int) -> bool:
        """True if it is its turn to be measured: `own_steps.goes_first` among those that are still there."""
        return len(self._watched) < 2 or goes_first(own, self.owns, at, now)

    def see_all(self, now: int) -> None:
        """Note who has stepped since this was asked last; the training's newest step is number `now`."""
        for own in self.owns:
            if own.steps != own.seen_steps:
                own.see(now)

    def groups(self) -> list[dict[str, Any]]:
        """All that is stepped, as parameter groups."""
        return [group for watched in self._watched.values() for group in watched.groups()]

    def follow_changes(self, watched: Watched) -> None:
        """An optimizer was given other parameters: let go of those that are in no model any more, meet the new ones."""
        optimizer = watched.optimizer()
        if not isinstance(optimizer, torch.optim.Optimizer) or self._changes >= MOST_CHANGES:
            return
        self._changes += 1
        kept = self._stepped() | self.table.owned()
        self.table.drop(lambda parameter: id(parameter) not in kept)
        for one in self._watched.values():
            one.probe = None
        found = [p for group in optimizer.param_groups for p in group["params"] if p not in self.table]
        if found and not self._patterns:
            specs = find_specs(found, {})
            if not self.table.has_roots:  # as `watch` names the layers of one model
                specs = [replace(spec, root="") for spec in specs]
            self._layer_sources.append(Discovered(specs))

    def _stepped(self) -> set[int]:
        """The ids of what all of them step."""
        return set[int]().union(*(watched.parameters() for watched in self._watched.values()))

    def steppers(self) -> list[Any]:
        """The optimizers themselves."""
        return [one for one in (watched.optimizer() for watched in self._watched.values()) if one is not None]

    @property
    def has_new_layers(self) -> bool:
        """True if layers have come that are not in the table."""
        return bool(self._layer_sources)

    def learn_layers(self) -> None:
        """Put the layers that have come in the table."""
        for source in self._layer_sources:
            self.table.add(source.specs())
            source.remove()
        self._layer_sources.clear()

    def note_layers(self, watched: Watched) -> bool:
        """Note which layers one has parameters of; True if that is new."""
        number = watched.own.number
        return bool(number) and self.table.note_optimizer(number, watched.parameters())

    def make_probe(self, watched: Watched, *, inside_backward: bool) -> tuple[Probe | ShardedProbe, bool]:
        """What measures one, and whether that is all that it steps.

        Inside a backward its neighbours step on their own, each when its gradient is made.
        """
        mine = watched.parameters()
        if watched.whole is not None:
            return ShardedProbe(self.table.subset(lambda p: id(p) in mine), watched.whole, watched.optimizer()), True
        others = set[int]().union(*(other.parameters() for other in self._watched.values() if other is not watched))
        shards = any(is_sharded(slot.parameter) for slot in self.table.slots if id(slot.parameter) in mine)

        def is_measured(parameter: torch.Tensor) -> bool:
            is_ours = id(parameter) in mine or not (inside_backward or id(parameter) in others)
            return is_ours and not (shards and is_sharded(parameter))

        return Probe(self.table.subset(is_measured), self._clock), not shards

    def model_of(self, optimizer: Any) -> str | None:
        """What the model of one is called, if there are several and it is not the first one's."""
        if len(self._watched) < 2:
            return None
        mine = self._watched[id(optimizer)]
        if mine is next(iter(self._watched.values())):
            return None
        return self.table.root_of(mine.parameters()) or "2"

    def clear(self, *, keep_hooks: bool = False) -> None:
        """Measure none of them any more, but keep their layers: another one is to come for the same parameters."""
        self._keeps_layers = True
        for source in self.sources:
            source.remove(inside_a_step=keep_hooks)
        for key in list(self._watched):
            self._leave(key)

    def release(self, *, inside_a_step: bool) -> None:
        """Let go of everything; hooks must not be removed from within a step."""
        for source in self.sources:
            source.remove(inside_a_step=inside_a_step)
        for finalizer in self._finalizers:
            finalizer.detach()
        for watched in self._watched.values():
            if watched.probe is not None:
                watched.probe.release()
        for layers in self._layer_sources:
            layers.remove()
        self._layer_sources.clear()
        if not inside_a_step:
            for key in list(self._watched):
                self._leave(key)
        self.table.release()

    def _leave(self, key: int) -> None:
        """One is not measured any more; its steps still count."""
        watched = self._watched.pop(key, None)
        if watched is not None:
            self._gone += watched.own.steps
            _add(self._past, watched.own.counts())

    def _on_freed(self, key: int) -> None:
        """An optimizer was freed: let go of the parameters that nobody else trains."""
        self._leave(key)
        if self._keeps_layers:
            return
        kept = self._stepped()
        self.table.drop(lambda parameter: id(parameter) not in kept)
        for watched in self._watched.values():
            watched.probe = None


def _add(schedules: dict[int, Schedule], one: Schedule) -> None:
    """Add what one optimizer has counted; those of high numbers are one together, as in the rows of a run."""
    number = min(one.optimizer, LAST_BIT)
    before = schedules.get(number, Schedule(number, 0, 0))
    schedules[number] = Schedule(
        number,
        before.steps + one.steps,
        before.measured + one.measured,
        one.last_measured or before.last_measured,
        one.last_outputs or before.last_outputs,
    )
