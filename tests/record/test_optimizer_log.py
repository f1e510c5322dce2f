"""What a run says of its optimizers: kinds, groups, settings, and how the rates went."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gradtui import watch
from gradtui.record.layers import LayerTable
from gradtui.record.optimizer_log import MOST_POINTS, OptimizerLog, _Noted
from gradtui.report import report
from gradtui.report_optimizers import in_one_line
from gradtui.runfile import open_run
from gradtui.runfile.optimizer_facts import OptimizerFacts, as_row, course_of, from_row


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, steps: int = 30,
    after: Callable[[int], None] = lambda step: None,
) -> Path:  # fmt: skip
    with watch(model, optimizer, folder=folder, every=1) as recorder:
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            model(torch.randn(16, 4)).square().mean().backward()
            optimizer.step()
            after(step)
    assert recorder.path is not None
    return recorder.path


def facts(path: Path) -> list[OptimizerFacts]:
    with open_run(path) as reader:
        return reader.optimizers()


def test_each_group_says_its_layers_rate_and_settings(tmp_path: Path) -> None:
    model = net()
    late = [*model[2].parameters(), *model[4].parameters()]
    groups = [{"params": model[0].parameters(), "lr": 0.5, "name": "stem"}, {"params": late, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
    path = train(model, optimizer, tmp_path)
    (one,) = facts(path)
    assert (one.number, one.kind) == (1, "SGD")
    assert [(g.name, g.tensors, g.parameters, g.layers) for g in one.groups] == [
        ("stem", 2, 40, (0,)), ("", 4, 90, (1, 2)),
    ]  # fmt: skip
    assert [g.settings["weight_decay"] for g in one.groups] == [0.01, 0.0]
    assert all(g.settings["momentum"] == 0.9 and g.settings["nesterov"] is True for g in one.groups)
    assert [course_of(one, i).now for i in (0, 1)] == [0.5, 0.1]  # type: ignore[union-attr]
    lines = report(path, as_json=False, terminal=False).splitlines()
    table = [line.split("\t") for line in lines[lines.index("\t".join(lines_head())) :]][:3]
    assert table[1][:5] == ["SGD, group stem", "40", "layer 0", "0.5", "constant"]
    assert table[2][:5] == ["SGD, group 1", "90", "layer 2, layer 4", "0.1", "constant"]
    assert "nesterov" in table[1][5] and "decay 0.01" in table[1][5] and "dampening" not in table[1][5]
    (found,) = json.loads(report(path, as_json=True, terminal=False))["optimizers"]
    assert found["groups"][1]["layers"] == ["2", "4"] and found["groups"][1]["rate"]["now"] == 0.1


def lines_head() -> tuple[str, ...]:
    return "optimizer", "parameters", "layers", "rate", "course", "settings"


def test_a_warm_up_and_a_decay_are_seen_as_such_and_betas_that_move(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=60, pct_start=0.25)
    path = train(model, optimizer, tmp_path, 60, lambda step: schedule.step())
    (one,) = facts(path)
    course = course_of(one, 0)
    assert course is not None and course.first == pytest.approx(0.0004) and course.most == pytest.approx(0.01)
    assert course.words.startswith("warm-up until step 15, then decays") and course.now < 1e-4
    (group,) = one.groups
    assert group.first["betas"] == [0.95, 0.999] and group.settings["betas"] != [0.95, 0.999]
    line = in_one_line([one])
    assert line.startswith("AdamW, rate ") and "0.0004 → 0.01 → " in line and "warm-up" in line


def test_a_rate_that_is_a_tensor_and_a_group_that_comes_later(tmp_path: Path) -> None:
    model = net()
    rate = torch.tensor(0.25)
    optimizer = torch.optim.Adam(model[:3].parameters(), lr=rate)

    def after(step: int) -> None:
        if step == 10:
            rate.mul_(0.5)
        if step == 20:
            optimizer.add_param_group({"params": model[4].parameters(), "lr": torch.tensor(1.0)})

    (one,) = facts(train(model, optimizer, tmp_path, 30, after))
    assert [group.parameters for group in one.groups] == [40 + 72, 18]
    first = course_of(one, 0)
    assert first is not None and (first.first, first.now, first.words) == (0.25, 0.125, "lower since step 11")
    later = course_of(one, 1)
    assert later is not None and later.words == "constant" and math.isnan(one.rates[0, 1])


def test_two_optimizers_are_numbered_in_the_order_in_which_they_were_met(tmp_path: Path) -> None:
    a, b = net(), net()
    optimizers = [torch.optim.Adam(a.parameters(), lr=0.01), torch.optim.SGD(b.parameters(), lr=0.02)]
    with watch({"a": a, "b": b}, optimizers, folder=tmp_path, every=1) as recorder:
        for _ in range(4):
            for model, optimizer in zip((a, b), optimizers, strict=True):
                optimizer.zero_grad()
                model(torch.randn(16, 4)).square().mean().backward()
                optimizer.step()
    assert recorder.path is not None
    assert [(one.number, one.kind, one.groups[0].layers) for one in facts(recorder.path)] == [
        (1, "Adam", (0, 1, 2)), (2, "SGD", (3, 4, 5)),
    ]  # fmt: skip


class Desk:
    """Stands in for the writer, and for the queue: what is on a device arrives when `arrive` is called."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.waiting: list[Callable[[Any], None]] = []

    def optimizer(self, row: tuple[Any, ...]) -> None:
        self.rows.append(row)

    def fetch(self, tensors: list[torch.Tensor], deliver: Callable[[Any], None]) -> None:
        self.waiting.append(deliver)


def test_a_rate_on_a_device_is_fetched_and_not_waited_for() -> None:
    desk: Any = Desk()
    log = OptimizerLog(desk, desk, LayerTable(), lambda: 0.0)
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], "lr": torch.tensor(0.5, device="meta")}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    assert log.add(optimizer) == 1
    log.look(optimizer, 3)
    assert len(desk.waiting) == 1
    desk.waiting.pop()(np.array([0.25]))
    log.finish()
    one = from_row(desk.rows[-1])
    assert one.steps == (3,) and one.rates.tolist() == [[0.1, 0.25]]


def test_what_stands_in_for_an_optimizer_whose_step_is_compiled_has_its_rates_noted() -> None:
    desk: Any = Desk()
    log = OptimizerLog(desk, desk, LayerTable(), lambda: 0.0)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    assert (log.add(optimizer), log.add(object())) == (1, None)
    log.look(object(), 7)
    log.finish()
    assert from_row(desk.rows[-1]).rates.tolist() == [[0.1]] and from_row(desk.rows[-1]).steps == (7,)


def test_a_long_course_stays_small_and_keeps_its_ends_and_extremes() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    noted = _Noted(0, optimizer)
    for step in range(1, 5001):
        noted.note_rates(step, (7.0 if step == 1234 else 1.0 - step / 5001,))
    assert len(noted.course) <= MOST_POINTS
    assert noted.course[0][0] == 1 and (1234, (7.0,)) in noted.course and noted.row()
    noted.groups = [{"name": "", "tensors": 1, "parameters": 1, "layers": [], "settings": {}, "first": {}}]
    assert from_row(noted.row()).steps[-1] == 5000


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ([0.1] * 5, "constant"),
        ([0.1, 0.1, 0.01, 0.01, 0.001], "lower since steps 3, 5"),
        ([0.1, 0.09, 0.08, 0.07, 0.06, 0.06], "decays, constant since step 5"),
        ([0.1, 0.2, 0.3], "rises"),
        ([0.1, 0.2, 0.1, 0.2, 0.1], "goes up and down, 2 × up"),
        ([math.nan] * 3, None),
    ],
)
def test_a_course_in_words(rates: list[float], words: str | None) -> None:
    group = {"name": "", "tensors": 1, "parameters": 1, "layers": [[0, 0]], "settings": {}, "first": {}}
    one = from_row(as_row(0, "SGD", [group], [(step, (rate,)) for step, rate in enumerate(rates, 1)]))
    course = course_of(one, 0)
    assert (None if course is None else course.words) == words


def test_a_run_of_schema_3_has_no_optimizers_and_its_report_says_nothing_of_them(tmp_path: Path) -> None:
    model = net()
    path = train(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path)
    with sqlite3.connect(path) as connection:
        connection.executescript("DROP TABLE optimizers; PRAGMA user_version = 3")
    connection.close()
    assert facts(path) == []
    assert "optimizer" not in report(path, as_json=False, terminal=False)


def test_the_optimizer_is_not_touched(tmp_path: Path) -> None:
    def result(folder: Path | None) -> tuple[np.ndarray, dict[str, object]]:
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        if folder is None:
            for _ in range(30):
                optimizer.zero_grad()
                model(torch.randn(16, 4)).square().mean().backward()
                optimizer.step()
        else:
            train(model, optimizer, folder)
        return model[0].weight.detach().numpy(), {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}

    (bare, settings), (recorded, kept) = result(None), result(tmp_path)
    assert np.array_equal(bare, recorded) and settings == kept
