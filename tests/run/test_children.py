"""What `multiprocessing` children train under `gradtui run` is recorded, each as a run of its own that ends well."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gradtui.options import RecordOptions
from gradtui.recorded_command import prepare
from gradtui.runfile import open_run
from gradtui.runfile.summary import RunMetadata
from tests import forked_python

TRAINS = """
import sys, torch
import torch.multiprocessing as multiprocessing

def train(rank, net, steps, fails=False):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        net(torch.randn(16, 6)).square().mean().backward()
        optimizer.step()
    if fails:
        raise ValueError("mine")

if __name__ == "__main__":
    how, when, fails = sys.argv[1:]
    torch.set_num_threads(1)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).share_memory()
    if when == "later":
        train(9, net, 15)
    context = multiprocessing.get_context(how)
    children = [context.Process(target=train, args=(rank, net, 12, fails == "fails")) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
"""


@pytest.mark.parametrize(
    ("how", "when", "fails"),
    [("fork", "first", ""), ("fork", "later", ""), ("fork", "first", "fails"), ("forkserver", "first", "")],
)
def test_each_child_that_trains_is_a_run_that_ends_well(how: str, when: str, fails: str, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(TRAINS)
    command = prepare([sys.executable, str(path)], RecordOptions(folder=tmp_path / "runs", every=1))
    env = {**command.environment, "OMP_NUM_THREADS": "1"}
    done = forked_python.run([str(path), how, when, fails], env=env, timeout=100)
    assert done.returncode == 0 and "gradtui: recording to" in done.stderr
    told = []
    for run in sorted((tmp_path / "runs").glob("*.gradtui")):
        with open_run(run) as reader:
            assert [layer.name for layer in reader.layers()] == ["0", "2"]
            rows = reader.last(99)
        with RunMetadata(run) as facts:
            told.append((len(rows.step), facts.status().state, facts.status().detail))
    parent = [(15, "finished", "")] if when == "later" else []
    child = (12, "failed", "ValueError: mine") if fails else (12, "finished", "")
    assert sorted(told) == [child, child, *parent]
