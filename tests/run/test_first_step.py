"""A NaN in the very first step, in a script that `gradtui run` records: layers are known only after it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gradtui.options import RecordOptions
from gradtui.recorded_command import prepare
from gradtui.runfile import open_run
from tests import forked_python

TRAINING = """
import torch
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)){to}
x = torch.randn(8, 6){to}
opt = torch.optim.Adam(net.parameters())
for step in range(3):
    opt.zero_grad()
    loss = {loss}
    loss.backward()
    {then}
    opt.step()
"""
CASES = {
    "forward": ("net(x / 0).square().mean()", "forward", None, "the input of the model"),
    "overflow": ("(net[2](net[0](x) * 1e38 * 1e3)).sum()", "forward", 0, "overflowed float32"),
    "backward": ("(net(x) * 0).sqrt().mean()", "backward", 1, "sqrt of 0 has an infinite slope"),
    "optimizer": ("(net(x) * 0).mean()", "optimizer", 0, "1e-08, is 0 in float16"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_breaks_in_the_first_step_is_told(name: str, tmp_path: Path) -> None:
    loss, phase, layer, words = CASES[name]
    then = "nn.utils.clip_grad_norm_(net.parameters(), 1.0)" if name == "backward" else "pass"
    to = ".half()" if name == "optimizer" else ""
    script = tmp_path / "script.py"
    script.write_text(TRAINING.format(loss=loss, then=then, to=to))
    options = RecordOptions(folder=tmp_path / "runs")
    env = os.environ | prepare([sys.executable, str(script)], options).environment
    done = forked_python.run([str(script)], cwd=tmp_path, env=env, timeout=100)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").glob("*.gradtui")
    with open_run(path) as run:
        (origin,) = run.origins()
    assert (origin.step, origin.phase, origin.layer) == (1, phase, layer), origin
    assert words in origin.what
