"""A model that is copied or saved while it is watched: the copy is not watched, and loads without gradtui."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gradtui.options import RecordOptions
from gradtui.record.budget import Sampling
from tests.record.watched_nets import SteppedClock, recorder_with

LOADS = """
import sys
sys.modules["gradtui"] = None  # as where it is not installed
import torch
model = torch.load(sys.argv[1], weights_only=False)
model(torch.ones(2, 6)).sum().backward()
model[0](torch.ones(2, 6))
print(sum(parameter.grad.numel() for parameter in model.parameters()))
"""


@pytest.mark.parametrize("sampled", [False, True], ids=["first step", "sampled step"])
def test_copies_made_during_a_step_are_not_watched_and_load_without_gradtui(sampled, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clock = SteppedClock()
    recorder = recorder_with(model, optimizer, tmp_path / "r.gradtui", Sampling(RecordOptions(every=1)), clock)
    if sampled:
        model(torch.ones(2, 6)).sum().backward()
        optimizer.step()
        assert recorder._recording._measurement.sampler.armed
    assert model[0]._forward_hooks
    steps, copies = recorder._recording.step, []

    def copy_it(*_):
        copies.extend([copy.deepcopy(model), pickle.loads(pickle.dumps(model))])
        torch.save(model, tmp_path / "model.pt")

    copy_it()
    for twin in copies:
        assert twin(torch.ones(2, 6)).shape == (2, 4)
        twin(torch.ones(2, 6)).sum().backward()
        torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert recorder._recording.step == steps and not recorder._recording._measurement.sampler._found
    loaded = subprocess.run(
        [sys.executable, "-c", LOADS, str(tmp_path / "model.pt")], capture_output=True, text=True, timeout=100
    )
    assert loaded.stdout.split() == [str(sum(math.prod(p.shape) for p in model.parameters()))], loaded.stderr
    recorder.close()
