"""torch.compile of the model, of the optimizer's step, of a whole step: nothing is compiled again, or in more pieces.

The back end is "eager": it runs the captured graphs as they are, so that plain autograd is the oracle to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradtui
from gradtui.runfile import Rows
from tests.record.columns_of_ours import GRAD_NORM, PARAM_NORM, UPDATE_RATIO

STEPS = 7


@pytest.fixture(autouse=True)
def nothing_is_compiled() -> Iterator[None]:
    from torch._dynamo.utils import counters

    yield
    torch._dynamo.reset()
    counters.clear()


@dataclass
class Told:
    """What a training was like: by step, and what compiling it took."""

    losses: list[float]
    norms: list[list[float]]
    weights: list[Tensor]
    graphs: int
    breaks: int


def train(what: str, watch: Callable[[nn.Module, torch.optim.Optimizer], gradtui.Recorder] | None = None) -> Told:
    """Train a small net, compiled in part; `what` says which."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recorder = watch(model, optimizer) if watch else None
    batches = [(torch.randn(8, 6), torch.randint(4, (8,))) for _ in range(STEPS)]
    norms: list[list[float]] = []

    def compiled(function, part):  # type: ignore[no-untyped-def]
        return torch.compile(function, backend="eager") if what == part else function

    forward = compiled(model, "model")
    take_step = compiled(lambda: optimizer.step(), "optimizer")

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        take_step()
        return loss

    step = compiled(step, "step")
    losses = []
    for x, y in batches:
        losses.append(step(x, y).item())
        grads = [[p.grad for p in layer.parameters()] for layer in (model[0], model[2])]
        norms.append([float(torch.cat([g.flatten() for g in layer]).norm()) for layer in grads])
    if recorder is not None:
        recorder.close()
    weights = [p.detach().clone() for p in model.parameters()]
    return Told(losses, norms, weights, counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("what", "first"), [("nothing", 1), ("model", 1), ("optimizer", 3), ("step", 3)])
def test_what_is_compiled_is_measured_and_compiled_as_before(what: str, first: int, tmp_path: Path) -> None:
    plain = train(what)
    seen: list[gradtui.Recorder] = []

    def watch(model: nn.Module, optimizer: torch.optim.Optimizer) -> gradtui.Recorder:
        seen.append(gradtui.watch(model, optimizer, every=1, update_every=1, folder=tmp_path))
        return seen[0]

    recorded = train(what, watch)
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, recorded.weights, strict=True))
    assert (recorded.graphs, recorded.breaks) == (plain.graphs, plain.breaks)
    assert recorded.graphs > 0 or what == "nothing"

    assert seen[0].path is not None
    with gradtui.open_run(seen[0].path) as run:
        rows: Rows = run.newer(0)
        assert [layer.name for layer in run.layers()] == ["0", "2"]
    # a step whose hooks are compiled away is noticed after two calls of backward
    assert rows.step.tolist() == list(range(first, STEPS + 1))
    np.testing.assert_allclose(rows.loss, plain.losses[first - 1 :], rtol=1e-6)
    np.testing.assert_allclose(rows.measures[:, :, GRAD_NORM], plain.norms[first - 1 :], rtol=1e-5)
    assert np.isfinite(rows.measures[:, :, [PARAM_NORM, UPDATE_RATIO]]).all()
    assert (rows.measures[:, :, UPDATE_RATIO] > 0).all()
