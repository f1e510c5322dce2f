"""Training loops with Accelerate, recorded by a tracker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.callbacks.nets import (
    ask_to_stop,
    ending,
    images_and_labels,
    metrics_of,
    only_run,
    runs_of,
    same,
    small_net,
    weights_of,
)

accelerate = pytest.importorskip("accelerate", reason="needs Accelerate: pip install 'gradtui[accelerate]'")

from gradtui.callbacks.accelerate import GradtuiTracker  # noqa: E402


@pytest.fixture(autouse=True)
def no_accelerator_of_another_test() -> Iterator[None]:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def train(tracker: Any = None, epochs: int = 2, *, end: bool = True, **settings: Any) -> tuple[nn.Module, list[float]]:
    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker, **settings)
    model = small_net()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader: Any = DataLoader(TensorDataset(*images_and_labels()), batch_size=8)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if tracker is not None:
        accelerator.init_trackers("digits", config={"lr": 0.1})
        tracker.watch(model, optimizer, total_epochs=epochs)
    losses = []
    for epoch in range(epochs):
        for images, labels in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(images), labels)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
            accelerator.log({"loss": loss, "epoch": epoch})
            if tracker is not None and tracker.stop_requested:
                return model, losses
        accelerator.log({"valid/accuracy": 0.5 + epoch / 4, "epoch": epoch + 1}, step=epoch)
    if end:
        accelerator.end_training()
    return model, losses


def test_a_training_is_a_run_with_layers_losses_epochs_and_metrics(runs_in_tmp):
    _, losses = train(GradtuiTracker(name="digits", every=1))
    run = only_run(runs_in_tmp)
    assert ending(run) == ("finished", "")
    assert (run.header.name, run.header.total_epochs, run.header.takes_commands) == ("digits", 2, [])
    assert [layer.name for layer in run.layers()] == ["0", "2"]
    rows = run.last(99)
    assert rows.step.tolist() == [1, 2, 3, 4, 5, 6] and rows.epoch.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(rows.loss, losses)
    assert metrics_of(run) == {"valid/accuracy": [0.5, 0.75]}
    assert any("lr = 0.1" in event.text for event in run.events())


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 3}])
def test_weights_are_the_same_with_and_without(settings):
    plain, _ = train(**settings)
    watched, _ = train(GradtuiTracker(every=1, update_every=1), **settings)
    assert same(weights_of(plain), weights_of(watched))


def test_two_trainings_are_two_runs(runs_in_tmp):
    tracker = GradtuiTracker(every=1)
    train(tracker)
    train(tracker, end=False)
    train(tracker)
    first, second, third = runs_of(runs_in_tmp)
    assert [ending(run) for run in (first, second, third)] == [
        ("finished", ""),
        ("stopped", "left before its end"),
        ("finished", ""),
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a bad batch"), ("failed", "ValueError: a bad batch")),
        (KeyboardInterrupt(), ("stopped", "interrupted")),
    ],
)
def test_a_with_block_notes_an_exception_at_once(error, expected, runs_in_tmp):
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    with pytest.raises(type(error)), GradtuiTracker().watch(model, optimizer):
        raise error
    assert ending(only_run(runs_in_tmp)) == expected


def test_a_loop_that_looks_can_be_stopped(runs_in_tmp):
    class Asked(GradtuiTracker):
        def log(self, values, step=None, **kwargs):
            super().log(values, step, **kwargs)
            if self.recorder._recording.step == 4:
                ask_to_stop(self.recorder)

    tracker = Asked(every=1, takes_commands=["stop"])
    train(tracker)
    tracker.finish()
    run = only_run(runs_in_tmp)
    assert ending(run)[0] == "stopped" and run.span() == (1, 4) and run.header.takes_commands == ["stop"]


def test_what_is_no_number_is_told_and_nothing_breaks(runs_in_tmp):
    tracker = GradtuiTracker(every=1)
    model = small_net()
    tracker.log({"loss": 1.0})  # nothing is watched yet
    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker)
    optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=0.1))
    accelerator.init_trackers("digits")
    tracker.watch(model, optimizer)
    accelerator.log({"name": "words", "self": 2.0})
    accelerator.end_training()
    run = only_run(runs_in_tmp)
    assert metrics_of(run) == {"self_": [2.0]} and any("not a number" in event.text for event in run.events())
