"""Activations of compiled models: sampled as those of eager ones, with the same graphs, breaks and weights."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradtui
from gradtui.record import activations
from gradtui.record.activations import UNSEEN_FUNCTIONS, ActivationSampler
from gradtui.record.compiled_graphs import CompiledGraphs, compiled_graphs
from gradtui.record.layers import LayerTable
from tests.record.columns_of_ours import ACTIVATION_MEAN, ACTIVATION_STD, DEAD, SATURATED

STEPS = 12


@pytest.fixture(autouse=True)
def nothing_is_compiled() -> Iterator[None]:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    vars(compiled_graphs).update(vars(CompiledGraphs()))  # it remembers what other tests have compiled
    yield
    torch._dynamo.reset()
    counters.clear()
    gc.collect()
    assert compiled_graphs.observer is None


class Block(nn.Module):
    """Buffers that a forward pass changes, random numbers, and an activation function as a module and as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.relu = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()
        self.mix = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.dropout(self.relu(self.norm(self.linear(x))), 0.2)
        return x + torch.tanh(self.mix(hidden))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.head = nn.Linear(4, 6), Block(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(torch.sigmoid(self.first(x))))


@dataclass
class Told:
    outputs: dict[tuple[int, str], list[float]]  # (step, layer) -> mean, std, saturated, dead
    weights: list[Tensor]
    graphs: int
    breaks: int
    events: list[str]


def train(compile_it: Callable[[Net], Any], folder: Path | None, *, late: bool = False, sizes: int = 8) -> Told:
    """Train a net; `compile_it` gives what is to be called. `late`: recorded only from the fourth step on."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    forward, recorder = compile_it(net), None
    for step in range(STEPS):
        if folder is not None and step == (3 if late else 0):
            recorder = gradtui.watch(net, optimizer, every=1, budget=1.0, folder=folder)
        optimizer.zero_grad()
        forward(torch.randn(8 if step % 3 else sizes, 4)).square().mean().backward()
        optimizer.step()
    state = [value.detach().clone() for value in net.state_dict().values()]
    told = Told({}, [*state, torch.get_rng_state()], counters["stats"]["unique_graphs"], 0, [])
    told.breaks = sum(counters["graph_break"].values())
    if recorder is not None and recorder.path is not None:
        recorder.close()
        with gradtui.open_run(recorder.path) as run:
            rows, told.events = run.newer(0), [event.text for event in run.events()]
            names = [layer.name for layer in run.layers()]
        columns = [ACTIVATION_MEAN, ACTIVATION_STD, SATURATED, DEAD]
        for step, row in zip(rows.step.tolist(), rows.measures, strict=True):
            for name, values in zip(names, row[:, columns].tolist(), strict=True):
                if np.isfinite(values[0]):
                    told.outputs[step, name] = values
    return told


def submodule(net: Net, **how: Any) -> Net:
    net.block = torch.compile(net.block, **how)  # type: ignore[assignment]
    return net


def in_place(net: Net, **how: Any) -> Net:
    net.compile(**how)
    return net


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return train(lambda net: net, tmp_path_factory.mktemp("eager"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("how", "options"),
    [
        (torch.compile, {"backend": "eager"}),
        (in_place, {"backend": "eager", "fullgraph": True}),
        (submodule, {"backend": "eager", "fullgraph": True}),
        (torch.compile, {"backend": "aot_eager", "fullgraph": True, "dynamic": True}),
    ],
    ids=["model", "method", "submodule", "dynamic"],
)
def test_the_activations_are_those_of_the_eager_model(
    how: Callable[..., Any], options: dict[str, Any], eager: Told, tmp_path: Path
) -> None:
    plain = train(lambda net: how(net, **options), None)
    recorded = train(lambda net: how(net, **options), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, recorded.weights, strict=True))
    assert (recorded.graphs, recorded.breaks) == (plain.graphs, plain.breaks) == (1, 0)
    assert recorded.events == ([UNSEEN_FUNCTIONS] if how is submodule else [])
    common = set(recorded.outputs) & set(eager.outputs)
    layers = {"first", "block.linear", "block.norm", "block.mix", "head"}
    assert {name for _, name in common} == layers
    for key in common:
        ours, theirs = recorded.outputs[key], eager.outputs[key]
        # an eager layer beside a compiled one calls functions that are not seen
        shown = slice(0) if how is submodule and key[1] == "first" else slice(4)
        np.testing.assert_allclose(ours[shown], theirs[shown], rtol=1e-5, err_msg=str(key))


@pytest.mark.filterwarnings("ignore")
def test_with_the_default_compiler_too(eager: Told, tmp_path: Path) -> None:
    plain = train(torch.compile, None)
    recorded = train(torch.compile, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, recorded.weights, strict=True))
    assert (recorded.graphs, recorded.breaks) == (plain.graphs, plain.breaks) == (1, 0)
    assert {name for _, name in recorded.outputs} == {"first", "block.linear", "block.norm", "block.mix", "head"}


@pytest.mark.filterwarnings("ignore")
def test_graphs_that_break_and_are_compiled_again_are_as_without_a_recorder(tmp_path: Path) -> None:
    def breaks(net: Net) -> Any:
        forward = Block.forward

        def printing(block: Block, x: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return forward(block, x)

        net.block.forward = printing.__get__(net.block)  # type: ignore[method-assign]
        return torch.compile(net, backend="eager")

    plain, recorded = train(breaks, None, sizes=5), train(breaks, tmp_path, sizes=5)
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, recorded.weights, strict=True))
    assert (recorded.graphs, recorded.breaks) == (plain.graphs, plain.breaks)
    assert plain.breaks > 0
    assert {name for _, name in recorded.outputs} == {"first", "block.linear", "block.norm", "block.mix", "head"}


@pytest.mark.filterwarnings("ignore")
def test_an_eager_model_beside_something_compiled_is_sampled_as_ever(eager: Told, tmp_path: Path) -> None:
    square = torch.compile(lambda x: x.square().mean(), backend="eager", fullgraph=True)

    class Outer:
        def __init__(self, net: Net) -> None:
            self.net = net

        def __call__(self, x: Tensor) -> Tensor:
            out = self.net(x)
            square(out.detach())
            return out

    recorded = train(Outer, tmp_path)
    assert recorded.graphs == 1
    common = set(recorded.outputs) & set(eager.outputs)
    assert {name for _, name in common} == {"first", "block.linear", "block.norm", "block.mix", "head"}
    for key in common:
        np.testing.assert_allclose(recorded.outputs[key], eager.outputs[key], rtol=1e-5, err_msg=str(key))


@pytest.mark.filterwarnings("ignore")
def test_what_was_compiled_before_the_recording_is_said(tmp_path: Path) -> None:
    def compiled(net: Net) -> Any:
        torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))
        return torch.compile(net, backend="eager")

    plain, recorded = train(compiled, None), train(compiled, tmp_path, late=True)
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, recorded.weights, strict=True))
    assert (recorded.graphs, recorded.outputs) == (plain.graphs, {})
    assert recorded.events == ["activations are not sampled of what was compiled before the recording began"]


@pytest.mark.filterwarnings("ignore")
def test_layers_whose_hooks_are_left_out_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(activations, "MOST_IN_VAIN", 1)

    def sequential(net: Net) -> Any:
        whole = nn.Sequential(net.first, net.block, net.head)
        whole.compile(backend="eager")  # compiles what is in the block, and runs PyTorch's own modules eagerly
        net.first, net.block, net.head = whole[0], whole[1], whole[2]  # type: ignore[assignment]
        net.forward = whole.forward  # type: ignore[method-assign]
        return whole

    plain, recorded = train(sequential, None), train(sequential, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, recorded.weights, strict=True))
    assert {name for _, name in recorded.outputs} == {"block.linear", "block.norm", "block.mix"}
    assert any("no activations were seen of first, head: torch.compile" in event for event in recorded.events)


@pytest.mark.filterwarnings("ignore")
def test_a_graph_that_changes_a_parameter_is_not_run_beside_the_training(tmp_path: Path) -> None:
    class Shrinking(nn.Module):
        def __init__(self, net: Net) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.net.head.weight.mul_(0.99)
            return self.net(x)

    def compiled(net: Net) -> Any:
        return torch.compile(Shrinking(net), backend="eager", fullgraph=True)

    plain, recorded = train(compiled, None), train(compiled, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, recorded.weights, strict=True))
    assert recorded.outputs == {}
    assert recorded.events == ["activations are not sampled of a compiled graph (it changes a parameter)"]


def test_a_graph_is_run_only_in_steps_that_are_sampled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs: list[int] = []
    observe = ActivationSampler.observe
    monkeypatch.setattr(ActivationSampler, "observe", lambda *a: runs.append(1) or observe(*a))

    def compiled(net: Net) -> Any:
        return torch.compile(net, backend="eager")

    recorded = train(compiled, tmp_path)
    assert len(runs) == len({step for step, _ in recorded.outputs}) > 0


def test_what_a_device_spends_beyond_what_the_host_sees_is_owed() -> None:
    class Event:
        def __init__(self) -> None:
            self.is_over = False

        def query(self) -> bool:
            return self.is_over

        def elapsed_time(self, end: Event) -> float:
            return 30.0  # ms

    sampler = ActivationSampler(LayerTable(), time.perf_counter)
    assert sampler.debt() == 0.0
    events = Event(), Event()
    sampler._device_time, sampler.cost = events, 0.01
    assert sampler.debt() == 0.0  # not known yet
    events[1].is_over = True
    assert sampler.debt() == pytest.approx(0.02)
    assert sampler.debt() == 0.0


def test_nothing_is_left_of_it() -> None:
    from torch._dynamo.output_graph import OutputGraph

    before = OutputGraph.call_user_compiler
    compiled_graphs.begin()
    compiled_graphs.begin()
    assert OutputGraph.call_user_compiler is not before
    compiled_graphs.end()
    compiled_graphs.end()
    assert OutputGraph.call_user_compiler is before
