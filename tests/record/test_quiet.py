"""Under a budget most steps pass with a look at the clock: they are counted, and what comes meanwhile is not missed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradtui.options import RecordOptions
from gradtui.record.budget import Sampling
from gradtui.record.layers import ForwardTrace
from gradtui.record.recorder import Recorder
from gradtui.record.row_queue import LOSS_EVERY
from gradtui.runfile import is_measured, open_run
from tests.record.columns_of_ours import GRAD_NORM
from tests.record.watched_nets import SteppedClock, perceptron, recorder_with

pytestmark = pytest.mark.usefixtures("budget_alone")


def hooks_before(optimizer: torch.optim.Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks)


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, scale: float = 1.0) -> float:
    """One step on the same batch; gives back ‖∂C/∂θ‖ of the first layer."""
    optimizer.zero_grad()
    loss = scale * model(torch.ones(4, 3)).square().mean()
    loss.backward()
    norm = float(torch.cat([p.grad.flatten() for p in model[0].parameters()]).norm())
    optimizer.step()
    return norm


class Scene:
    """A training that has become quiet: its first steps have been measured, and nothing is due for ten seconds."""

    def __init__(self, folder: Path) -> None:
        self.clock = SteppedClock()
        self.model = perceptron(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        sampling = self.sampling = Sampling(RecordOptions())
        self.recorder: Recorder = recorder_with(self.model, self.optimizer, folder / "a.gradtui", sampling, self.clock)
        self.recording = self.recorder._recording
        for _ in range(4):
            step_of(self.model, self.optimizer)
        for budget in (sampling.rows, sampling.updates, sampling.activations):
            budget.next_at = self.clock.now + 10
        self.recording._queue.next_loss_at = self.clock.now + 5
        self.recording._machine.quiet_until = self.clock.now
        for _ in range(2):
            step_of(self.model, self.optimizer)

    def measured(self, layer: int = 0) -> dict[int, float]:
        """Step -> ‖∂C/∂θ‖ of the layer, where it was measured."""
        self.recorder.close()
        assert self.recorder.path is not None
        with open_run(self.recorder.path) as run:
            rows = run.newer(0)
        values = rows.measures[:, layer, GRAD_NORM]
        known = is_measured(np.ascontiguousarray(values))
        return dict(zip(rows.step[known].tolist(), values[known].tolist(), strict=True))


def test_the_step_after_the_pause_is_measured_under_its_own_number(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert hooks_before(scene.optimizer) == 0
    for _ in range(20):
        step_of(scene.model, scene.optimizer)
    before = scene.recording.step
    scene.clock.now += 11
    step_of(scene.model, scene.optimizer)  # sees that the pause is over
    assert hooks_before(scene.optimizer) == 1
    norms = {before + 2 + i: step_of(scene.model, scene.optimizer) for i in range(3)}
    assert scene.recording.step == before + 4
    measured = scene.measured()
    later = {step: norm for step, norm in measured.items() if step > before}
    assert later, "something was due"
    for step, norm in later.items():
        assert norm == pytest.approx(norms[step], rel=1e-6)


@pytest.mark.parametrize("comes_first", [False, True])
def test_losses_that_are_logged_in_a_pause_have_rows_now_and_then(comes_first: bool, tmp_path: Path) -> None:
    clock = SteppedClock()
    model = perceptron(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sampling = Sampling(RecordOptions())
    recorder = recorder_with(model, optimizer, tmp_path / "a.gradtui", sampling, clock)
    for step in range(1, 101):
        if comes_first:
            recorder.log(loss=float(step))
        step_of(model, optimizer)
        if not comes_first:
            recorder.log(loss=float(step))
        if step == 4:
            for budget in (sampling.rows, sampling.updates, sampling.activations):
                budget.next_at = clock.now + 1000
        clock.now += 0.01
    recorder.close()
    with open_run(tmp_path / "a.gradtui") as run:
        rows = run.newer(4)
    known = rows.loss_known
    assert rows.loss[known].tolist() == rows.step[known].tolist(), "each the loss of its own step"
    assert 10 <= known.sum() <= 100 * 0.01 / LOSS_EVERY + 1


def test_a_loss_that_is_logged_now_and_then_does_not_end_the_pause(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.recorder.log(loss=0.5)
    for _ in range(20):
        step_of(scene.model, scene.optimizer)
        scene.clock.now += 0.45
    scene.recorder.log(loss=0.25)
    assert hooks_before(scene.optimizer) == 0, "9 of 10 s are over"
    step = scene.recording.step
    scene.measured()
    assert scene.recorder.path is not None
    with open_run(scene.recorder.path) as run:
        rows = run.newer(0)
    assert rows.loss[rows.step == step].tolist() == [0.25]


def test_a_loss_that_breaks_in_the_pause_is_placed(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for _ in range(3):
        step_of(scene.model, scene.optimizer)
    step_of(scene.model, scene.optimizer, scale=float("nan"))
    broken = scene.recording.step
    scene.measured()
    assert scene.recorder.path is not None
    with open_run(scene.recorder.path) as run:
        (origin,) = run.origins()
    assert (origin.step, origin.phase, origin.layer) == (broken, "forward", 0)


def test_a_second_optimizer_that_joins_in_the_pause_ends_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    other = perceptron(3, 2, seed=1)
    optimizer = torch.optim.Adam(other.parameters())
    scene.recording.observe(optimizer, ForwardTrace(other, "other"))
    assert hooks_before(scene.optimizer) == 1
    norm = 0.0
    for budget in (scene.sampling.rows, scene.sampling.activations):
        budget.next_at = scene.clock.now
    for _ in range(3):
        step_of(scene.model, scene.optimizer)
        norm = step_of(other, optimizer)
        scene.clock.now += 11
    step = scene.recording.step
    assert step == 6 + 6
    assert norm > 0
    measured = scene.measured(layer=1)
    assert measured and set(measured) <= set(range(8, step + 1, 2)), "its own steps alone"
