"""What all callbacks share: one run a fit, and an ending for each that nobody ended."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradtui import open_run
from gradtui.callbacks.fit_recording import FitRecording, plain_model, plain_optimizer
from tests.callbacks.nets import ending, images_and_labels, only_run, runs_of, small_net


def test_a_recording_whose_optimizer_is_freed_is_stopped_and_not_finished():
    recording = FitRecording()

    def fit() -> Path:
        model = small_net()
        recording.begin(model, [torch.optim.SGD(model.parameters(), lr=0.1)])
        return recording.recorder.path

    path = fit()
    gc.collect()
    assert ending(open_run(path)) == ("stopped", "left before its end")
    recording.end()


@pytest.mark.parametrize(
    ("last", "expected"),
    [("", ("stopped", "left before its end")), ("raise ValueError('bad')", ("failed", "ValueError: bad"))],
)
def test_a_process_that_ends_in_mid_fit_says_so(last, expected, runs_in_tmp):
    script = f"""
import torch
from gradtui.callbacks.fit_recording import FitRecording
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
FitRecording().begin(model, [optimizer])
{last}
"""
    subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=Path(__file__).parents[2])
    assert ending(only_run(runs_in_tmp)) == expected


def test_losses_of_batches_without_a_step_are_averaged_into_the_next(runs_in_tmp):
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images, labels = images_and_labels()
    recording = FitRecording(every=1)
    recording.begin(model, [optimizer])
    losses = []
    for batch in range(6):
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        losses.append(loss.item())
        if batch % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
        recording.take_loss(loss, epoch=batch / 6)
    recording.end()
    rows = only_run(runs_in_tmp).last(9)
    np.testing.assert_allclose(rows.loss, np.mean(np.reshape(losses, (2, 3)), axis=1), rtol=1e-6)


def test_trouble_is_told_once_and_nothing_is_raised(runs_in_tmp, capsys, monkeypatch):
    model = small_net()
    recording = FitRecording()
    recording.log({"a": 1.0})
    recording.take_loss(1.0)
    recording.begin(model, [])
    assert "no optimizer" in capsys.readouterr().err and not runs_of(runs_in_tmp)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording.begin(model, [optimizer])
    monkeypatch.setattr(recording.recorder, "log", None)
    for _ in range(3):
        recording.log({"a": 1.0})
    assert capsys.readouterr().err.count("not all of this training is recorded") == 1
    recording.end()


def test_wrappers_are_looked_through():
    class Wrapper(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert plain_optimizer(Wrapper(Wrapper(optimizer))) is optimizer
    assert plain_model(nn.DataParallel(model)) is model
