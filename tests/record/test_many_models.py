"""A process that makes one model after another: what meeting them costs, and where they are recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradtui.record import autoattach
from gradtui.record.columns import Columns
from gradtui.record.discover import ModelSearch, find_specs
from gradtui.record.layers import LayerSpec, LayerTable
from gradtui.runfile import open_run
from tests.record.test_grad_steps import batches, recorded


def made(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 2))


class Holder:
    def __init__(self, net: nn.Module) -> None:
        self.nets = [net]


def test_later_models_are_found_without_a_walk_over_all_objects() -> None:
    search = ModelSearch(0.0, clock=lambda: 0.0)
    first = made(3)
    assert [spec.name for spec in find_specs([*first.parameters()], {}, search)] == ["0", "2"]
    for width in range(4, 8):
        net = made(width)
        specs = find_specs([*net.parameters()], {}, search)
        assert [(spec.root, spec.name) for spec in specs] == [("net", "0"), ("net", "2")]
    holder = Holder(made(9))
    specs = find_specs([*holder.nets[0].parameters()], {}, search)
    assert [(spec.root, spec.name) for spec in specs] == [("nets[0]", "0"), ("nets[0]", "2")]
    assert search.walks == 1


def test_a_walk_over_all_objects_is_taken_only_within_the_budget() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.1  # each walk takes that long
        return now[0]

    search = ModelSearch(0.01, clock=clock)
    first, hidden = made(3), {("deep",): ({"net": made(4)},)}

    def parameters() -> list[torch.Tensor]:
        return [*hidden["deep",][0]["net"].parameters()]

    find_specs([*first.parameters()], {}, search)
    find_specs(parameters(), {}, search)
    assert search.walks == 1
    now[0] += 60.0
    assert [spec.name for spec in find_specs(parameters(), {}, search)] == ["0", "2"]
    assert search.walks == 2


def test_a_model_that_another_thread_changes_is_left_out() -> None:
    class Changing(nn.Module):
        def named_parameters(self, *arguments: Any, **named: Any) -> Any:
            raise RuntimeError("dictionary changed size during iteration")

    changing, net = Changing(), made(3)
    assert [spec.name for spec in find_specs([*net.parameters()], {})] == ["0", "2"] and changing is not None


def test_a_table_of_many_layers_is_made_in_a_time_that_grows_with_their_number() -> None:
    def calls(count: int) -> int:
        """How many lines are run, which a busy machine does not change."""
        specs = [LayerSpec("", f"{i}", "Tensor", {"w": torch.zeros(1)}) for i in range(count)]
        lines, table = [0], LayerTable(Columns())

        def trace(frame: Any, event: str, argument: Any) -> Any:
            lines[0] += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            table.add(specs)
        finally:
            sys.settrace(before)
        return lines[0]

    assert calls(400) < 2.5 * calls(200)


def test_after_many_former_layers_the_next_model_begins_a_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(autoattach, "MOST_FORMER_LAYERS", 6)

    def search() -> None:
        for width in range(3, 9):
            net = made(width)
            optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
            for x in batches():
                optimizer.zero_grad()
                net(x).square().mean().backward()
                optimizer.step()
            del net, optimizer

    recorded(search, tmp_path)
    counts = []
    for path in sorted(tmp_path.glob("*.gradtui")):
        with open_run(path) as reader:
            counts.append(len(reader.layers()))
            told = [event.text for event in reader.events()]
            assert (autoattach.NEXT_RUN in told) == (counts[-1] == 8)
    assert sorted(counts) == [4, 8]
