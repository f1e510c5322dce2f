"""Each optimizer is measured by its own steps, and a run that ends short has its rows whatever the budget says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gradtui.options import RecordOptions
from gradtui.record.budget import Sampling
from gradtui.record.layers import ForwardTrace
from gradtui.record.own_steps import PATIENCE, OwnSteps
from gradtui.record.recorder import Recorder
from gradtui.report import report
from gradtui.runfile import is_measured, open_run
from tests.record.watched_nets import SteppedClock, perceptron, recorder_with, watch_into

NEVER = RecordOptions(budget=1e-9)  # what is measured is measured in spite of the budget
OUTPUTS = slice(5, 9)  # columns of a row


class Players:
    """Several nets, each with an optimizer of its own, that step when they are told to."""

    def __init__(self, count: int = 2) -> None:
        self.nets = [perceptron(3, 3, 2, seed=i) for i in range(count)]
        self.optimizers = [torch.optim.SGD(net.parameters(), lr=0.01) for net in self.nets]

    def step(self, *order: int) -> None:
        for who in order:
            self.optimizers[who].zero_grad()
            self.nets[who](torch.ones(4, 3)).square().mean().backward()
            self.optimizers[who].step()

    def watch(self, path: Path, **options: Any) -> Recorder:
        return watch_into({f"net{i}": net for i, net in enumerate(self.nets)}, self.optimizers, path, **options)

    def record(self, path: Path, options: RecordOptions, clock: SteppedClock, cpu: SteppedClock) -> Recorder:
        recorder = recorder_with(self.nets[0], self.optimizers[0], path, Sampling(options), clock, cpu=cpu)
        for net, optimizer in zip(self.nets[1:], self.optimizers[1:], strict=True):
            recorder._recording.observe(optimizer, ForwardTrace(net, "other"))
        return recorder


def measured(path: Path, layers: Sequence[int], columns: slice = slice(0, 3)) -> list[int]:
    """The steps in which all of these layers were measured."""
    with open_run(path) as run:
        rows = run.newer(0)
    there = is_measured(rows.measures[:, layers, columns]).any(axis=2).all(axis=1)
    return [int(step) for step in rows.step[there]]


def test_every_second_step_of_each_of_two_that_take_turns(tmp_path: Path) -> None:
    players = Players()
    with players.watch(tmp_path / "a.gradtui", every=2, update_every=4):
        for _ in range(40):
            players.step(0, 1)
    assert measured(tmp_path / "a.gradtui", [0, 1]) == list(range(1, 81, 4))
    assert measured(tmp_path / "a.gradtui", [2, 3]) == list(range(2, 81, 4))
    with open_run(tmp_path / "a.gradtui") as run:
        update = [one.name for one in run.measures].index("update_ratio")
        rows = run.newer(0)
        counts = [(one.optimizer, one.steps, one.measured) for one in run.schedules()]
        held = [layer.optimizers for layer in run.layers()]
    taken = is_measured(rows.measures[:, :, update])
    assert taken[:, 0].sum() == taken[:, 2].sum() == 10, "each second of its own steps that are measured"
    assert counts == [(1, 40, 20), (2, 40, 20)]
    assert held == [(1,), (1,), (2,), (2,)]
    assert rows.optimizers.tolist() == [0b10, 0b100] * 20 + [0], "the last one only says how many there were"


@pytest.mark.parametrize("order", [(0, 1), (0, 0, 0, 0, 0, 1)])
def test_no_optimizer_is_left_out_by_default(order: tuple[int, ...], tmp_path: Path) -> None:
    """Whatever the machine does: what is asked for is there even if the budget allows nothing."""
    players = Players()
    with players.watch(tmp_path / "a.gradtui", budget=1e-9):
        for _ in range(400 // len(order)):
            players.step(*order)
    for layer, who in ((0, 0), (2, 1)):
        own = [i + 1 for i, one in enumerate(list(order) * (400 // len(order))) if one == who]
        rows = measured(tmp_path / "a.gradtui", [layer])
        assert rows[:32] == own[:32], "the first steps of each"
        assert set(rows) <= set(own) and len(rows) >= min(60, len(own) // 2)
        assert set(rows) & set(measured(tmp_path / "a.gradtui", [layer], OUTPUTS)), "with outputs, too"


@pytest.mark.parametrize("steps", [200, 900])
def test_a_run_that_ends_short_has_a_hundred_rows(steps: int, tmp_path: Path) -> None:
    players = Players(1)
    clock, cpu = SteppedClock(), SteppedClock(tick=1.0)  # a machine so busy that nothing is due any more
    recorder = players.record(tmp_path / "a.gradtui", RecordOptions(), clock, cpu)
    for _ in range(steps):
        clock.now += 1e-3
        players.step(0)
    recorder.close()
    rows = measured(tmp_path / "a.gradtui", [0])
    assert rows[:32] == list(range(1, 33)) and len(rows) >= 100
    assert np.diff(rows).max() <= steps / 24, "as far apart as they are old"
    outputs = measured(tmp_path / "a.gradtui", [0], OUTPUTS)
    assert outputs[-1] >= 0.7 * steps and len(outputs) <= 32
    with open_run(tmp_path / "a.gradtui") as run:
        (counts,) = run.schedules()
    assert (counts.steps, counts.measured, counts.last_outputs) == (steps, len(rows), outputs[-1])


def test_the_floor_costs_less_and_less(tmp_path: Path) -> None:
    own, measured = OwnSteps(1), []
    for step in range(1, 100_001):
        if own.steps >= own.floor:
            own.has_row()
            measured.append(step)
        own.steps += 1
    counts = [sum(first <= step < 2 * first for step in measured) for first in (64, 512, 4096, 32_768)]
    assert all(16 <= count <= 33 for count in counts) and len(measured) < 320


@pytest.mark.parametrize("number, least, most", [(1, 63, 63), (9, 6, 7), (100, 0, 0)])
def test_the_floor_of_many_optimizers_is_bounded(number: int, least: int, most: int) -> None:
    own, rows = OwnSteps(number), 0
    for _ in range(63):
        if own.steps >= own.floor:
            own.has_row()
            rows += 1
        own.steps += 1
    assert least <= rows <= most


def test_what_others_take_of_a_busy_machine_is_not_ours(tmp_path: Path) -> None:
    """Each look at the wall clock finds that 30 ms have passed; of them our own thread worked for 10 µs."""
    counts = {}
    for name, cpu in (("own", SteppedClock(tick=1e-5)), ("wall", SteppedClock(tick=0.03))):
        players = Players(1)
        recorder = players.record(tmp_path / name, RecordOptions(budget=0.01), SteppedClock(tick=0.03), cpu)
        for _ in range(1000):
            players.step(0)
        recorder.close()
        counts[name] = len(measured(tmp_path / name, [0]))
    assert counts["own"] > 500 and counts["wall"] < 250


@pytest.mark.usefixtures("budget_alone")
@pytest.mark.parametrize("order", [(0, 1), (0, 0, 0, 0, 0, 1), (1, 0)])
def test_turns_under_a_budget_are_fair(order: tuple[int, ...], tmp_path: Path) -> None:
    """A row is due each 12 steps, by a clock that beats in time with the turns: always the same one's step."""
    players = Players()
    clock, cpu = SteppedClock(), SteppedClock()
    recorder = players.record(tmp_path / "a.gradtui", RecordOptions(), clock, cpu)
    rows = recorder._recording._measurement._sampling.rows
    rows.spent = lambda cost, now: setattr(rows, "next_at", now + 1.2)  # type: ignore[method-assign]
    for _ in range(1200 // len(order)):
        for who in order:
            players.step(who)
            clock.now = round(clock.now + 0.1, 6)
    recorder.close()
    first, second = (len(measured(tmp_path / "a.gradtui", [layer])) for layer in (0, 2))
    share = order.count(1) / len(order)
    assert second >= 0.7 * share * (first + second) and first >= 0.7 * (1 - share) * (first + second)
    assert first + second >= 50


@pytest.mark.usefixtures("budget_alone")
def test_one_that_has_ended_its_part_is_not_waited_for(tmp_path: Path) -> None:
    players = Players()
    clock, cpu = SteppedClock(), SteppedClock()
    recorder = players.record(tmp_path / "a.gradtui", RecordOptions(), clock, cpu)
    rows = recorder._recording._measurement._sampling.rows
    rows.spent = lambda cost, now: setattr(rows, "next_at", now + 1.0)  # type: ignore[method-assign]
    players.step(*[0] * 3)
    clock.now += 0.5
    players.step(*[0] * 60)  # the last of them was measured long ago
    for _ in range(2 * PATIENCE):
        clock.now += 0.1
        players.step(1)
    recorder.close()
    assert len(measured(tmp_path / "a.gradtui", [2])) > 20


def test_steps_are_counted_while_it_is_quiet(tmp_path: Path) -> None:
    players = Players()
    clock, cpu = SteppedClock(), SteppedClock(tick=1.0)
    recorder = players.record(tmp_path / "a.gradtui", RecordOptions(), clock, cpu)
    for _ in range(500):
        players.step(0, 1, 1)
    assert recorder._recording.step == 1500
    assert not players.optimizers[0]._optimizer_step_pre_hooks, "one of the two does no more than count"
    recorder.close()
    assert recorder._recording.step == 1500
    with open_run(tmp_path / "a.gradtui") as run:
        assert [(one.optimizer, one.steps) for one in run.schedules()] == [(1, 500), (2, 1000)]
        assert run.span() == (1, 1500)


def test_an_optimizer_that_is_freed_leaves_its_steps(tmp_path: Path) -> None:
    players = Players()
    with players.watch(tmp_path / "a.gradtui") as recorder:
        players.step(0, 1, 0, 1)
        del players.optimizers[0]
        for _ in range(10):
            players.optimizers[0].zero_grad()
            players.nets[1](torch.ones(4, 3)).square().mean().backward()
            players.optimizers[0].step()
        assert recorder._recording.step == 14
    with open_run(tmp_path / "a.gradtui") as run:
        assert [(one.optimizer, one.steps) for one in run.schedules()] == [(1, 2), (2, 12)]
        assert nn.Linear.__name__ == run.layers()[0].kind


def test_the_report_says_how_often_each_was_measured_and_when_outputs_were(tmp_path: Path) -> None:
    players = Players()
    with players.watch(tmp_path / "a.gradtui", every=2):
        for _ in range(30):
            players.step(0, 0, 1)
    path = tmp_path / "a.gradtui"
    last = max(measured(path, [layer], OUTPUTS)[-1] for layer in (0, 2))
    said = report(path, as_json=False, terminal=False)
    assert f"45 of 90 steps measured (SGD 30 of 60, SGD 15 of 30); outputs last in step {last}\n" in said
    facts = json.loads(report(path, as_json=True, terminal=False))
    assert [(one["optimizer"], one["steps"], one["measured"]) for one in facts["schedules"]] == [
        (1, 60, 30),
        (2, 30, 15),
    ]
    assert facts["activations_step"] == last


def test_a_run_of_one_optimizer_is_reported_in_few_words(tmp_path: Path) -> None:
    players = Players(1)
    with players.watch(tmp_path / "a.gradtui", every=5):
        players.step(*[0] * 12)
    assert "3 of 12 steps measured; outputs last in step 11\n" in report(
        tmp_path / "a.gradtui", as_json=False, terminal=False
    )
