"""Small nets, a training and a clock that the tests of the recorder share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradtui.diagnosis import LiveDiagnosis, Thresholds
from gradtui.measures import MEASURES
from gradtui.options import RecordOptions
from gradtui.record.budget import Sampling
from gradtui.record.header import RunFacts
from gradtui.record.layers import ForwardTrace
from gradtui.record.recorder import Recorder
from gradtui.record.recording import Recording
from gradtui.record.row_maker import RowMaker
from gradtui.record.watching import start_recording
from gradtui.runfile import Header, RunWriter


def perceptron(*sizes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.Sigmoid()]
    return nn.Sequential(*layers[:-1])


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, recorder: Any = None, steps: int = 3, log: str = "after"
) -> None:
    generator = torch.Generator().manual_seed(1)
    first = next(model.parameters())
    for _ in range(steps):
        x = torch.randn(8, first.shape[-1], generator=generator, dtype=first.dtype)
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        if recorder is not None and log == "before":
            recorder.log(loss=loss)
        optimizer.step()
        if recorder is not None and log == "after":
            recorder.log(loss=loss)


def step_driven_by_a_scaler(recorder: Any, optimizer: Any, scale: float, found_inf: float) -> None:
    """A step as of a fused optimizer: a loss scaler gives it these two, and it divides and skips by itself."""
    steps = recorder._recording.sink
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(found_inf)
    assert steps.begin(optimizer)
    steps.measure(optimizer)
    del optimizer.grad_scale, optimizer.found_inf
    steps.finish(optimizer)


class SteppedClock:
    """A clock that a test moves, and that moves by itself whenever it is asked."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def watch_into(
    model: Any, optimizer: Any, path: str | Path, takes_commands: Sequence[str] = (), **options: Any
) -> Recorder:
    """As `gradtui.watch`, into this very file."""
    facts = RunFacts(takes_commands=takes_commands)
    return Recorder(start_recording(model, optimizer, RecordOptions(**options), path=Path(path), facts=facts))


def recorder_with(
    model: nn.Module, optimizer: Any, path: Path, sampling: Sampling, clock: Callable[[], float], **more: Any
) -> Recorder:
    rows = RowMaker(LiveDiagnosis(list(MEASURES), Thresholds(), 0.001))
    writer = RunWriter(path, Header(name="test"), list(MEASURES.values()), prepare=rows.prepare, diagnose=rows.diagnose)
    recording = Recording(writer, sampling, rows, clock=clock, **{"cpu": clock, **more})
    recording.observe(optimizer, ForwardTrace(model))
    return Recorder(recording)
