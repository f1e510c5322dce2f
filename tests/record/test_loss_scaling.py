"""Trainings with a gradient scaler: unscaled values, and skipped steps that name the layer which overflowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.amp import GradScaler, autocast

import gradtui
from tests.record.oracle import Bare, compare
from tests.record.watched_nets import perceptron, watch_into

OVERFLOWING = 2  # the step that does

MAKERS = [
    pytest.param(lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9), id="SGD"),
    pytest.param(lambda ps: torch.optim.Adam(ps, fused=True), id="fused Adam"),
]


def scaled_training(make_optimizer, *, clips=False, overflows=False, dtype=torch.bfloat16):
    def training(probe):
        model = perceptron(6, 5, 4)
        optimizer = make_optimizer(model.parameters())
        scaler = GradScaler("cpu", init_scale=1024.0)
        probe.watch(model, optimizer)
        generator = torch.Generator().manual_seed(1)
        for step in range(4):
            x = torch.randn(8, 6, generator=generator)
            optimizer.zero_grad()
            with autocast("cpu", dtype=dtype):
                loss = model(x).square().mean()
            scaler.scale(loss).backward()
            if overflows and step == OVERFLOWING:
                model[0].weight.grad[0, 0] = float("inf")
            if clips:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            scale = 1.0 if clips else scaler.get_scale()
            broken = overflows and step == OVERFLOWING
            has_row = not broken or getattr(optimizer, "_step_supports_amp_scaling", False)
            if has_row:
                probe.before(loss, scale=float("nan") if broken else scale)
            scaler.step(optimizer)
            if has_row:
                probe.after()
            scaler.update()

    return training


@pytest.mark.parametrize("make_optimizer", MAKERS)
@pytest.mark.parametrize("clips", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_are_recorded_unscaled(make_optimizer, clips, dtype, tmp_path: Path) -> None:
    compare(scaled_training(make_optimizer, clips=clips, dtype=dtype), tmp_path / "r.gradtui")


@pytest.mark.parametrize("make_optimizer", MAKERS)
@pytest.mark.parametrize("clips", [False, True], ids=["", "unscaled before"])
def test_a_skipped_step_has_no_gradients_and_names_the_layer_that_overflowed(
    make_optimizer, clips, tmp_path: Path
) -> None:
    reader = compare(scaled_training(make_optimizer, clips=clips, overflows=True), tmp_path / "r.gradtui")
    assert set(reader.last(9).step.tolist()) >= {1, 2, 4}
    (skipped,) = [event for event in reader.events() if event.kind == "skipped"]
    assert skipped.step == OVERFLOWING + 1
    assert skipped.text.endswith("overflowed in 0")


@pytest.mark.parametrize("make_optimizer", MAKERS)
def test_steps_skipped_between_measured_ones_are_told_too(make_optimizer, tmp_path: Path) -> None:
    class Rarely(Bare):
        def watch(self, model, optimizer):
            self.recorder = watch_into(model, optimizer, every=100, path=tmp_path / "r.gradtui")

        def before(self, loss, optimizer=None, scale=1.0):
            pass

        def after(self):
            pass

    probe = Rarely()
    scaled_training(make_optimizer, overflows=True)(probe)
    probe.recorder.close()
    reader = gradtui.open_run(tmp_path / "r.gradtui")
    (skipped,) = [event for event in reader.events() if event.kind == "skipped"]
    assert skipped.step == OVERFLOWING + 1 and skipped.text.endswith("overflowed in 0")


def test_a_scaler_that_is_switched_off_changes_nothing(tmp_path: Path) -> None:
    def training(probe):
        model = perceptron(6, 5, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = GradScaler("cpu", enabled=False)
        probe.watch(model, optimizer)
        for _ in range(2):
            optimizer.zero_grad()
            loss = model(torch.ones(2, 6)).square().mean()
            scaler.scale(loss).backward()
            probe.before(loss)
            scaler.step(optimizer)
            probe.after()
            scaler.update()

    compare(training, tmp_path / "r.gradtui")
