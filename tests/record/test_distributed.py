"""Two processes under torchrun: rank 0 records the gradients of both, and the norms of whole parameters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gradtui.runfile import is_measured, open_run
from tests import forked_python
from tests.record.columns_of_ours import GRAD_NORM
from tests.record.oracle import agrees

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")

SCRIPT = """
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel


def train(kind, watched, steps):
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1, bias=False))
    if kind == "ddp":
        trained = DistributedDataParallel(model)
    else:
        trained = model
        fully_shard(model[0])
        fully_shard(model)
    optimizer = torch.optim.Adam(model.parameters())
    recorder = None
    if watched == "bare":
        from tests.record.oracle import Bare
        probe = Bare()
        probe.watch(model, optimizer)
    elif watched != "no" and not (watched == "first" and rank):
        from tests.record.watched_nets import watch_into
        if watched == "first":
            from gradtui.record import sharded
            sharded.PATIENCE = timedelta(seconds=0.2)
        every = 2 if watched == "closes" else 1
        recorder = watch_into(model, optimizer, every=every, update_every=every, path=Path(watched + ".gradtui"))
    generator = torch.Generator().manual_seed(rank)
    for step in range(steps):
        optimizer.zero_grad()
        loss = trained(torch.randn(8, 6, generator=generator)).square().mean()
        loss.backward()
        if watched == "bare":
            probe.before(loss)
        optimizer.step()
        if watched == "bare":
            probe.after()
        if watched == "closes" and step == 2 and rank == 0:
            recorder.close()
    weights = [p.full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in model.parameters()]
    if recorder is not None:
        recorder.close()
    if rank == 0:
        torch.save(weights, watched + ".pt")
        if watched == "bare":
            torch.save({"rows": probe.rows, "losses": probe.losses}, "expected.pt")


kind, ways, steps = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])
dist.init_process_group("gloo")
for way in ways:
    train(kind, way, steps)
dist.destroy_process_group()
print("done")
"""


def launch(folder: Path, kind: str, ways: str, *before: str, steps: int = 3) -> str:
    """Train in a folder, in one way after another, each of which leaves its weights there; what was said on stderr.

    With `before`, a command, torchrun is started by it; without, the processes are forked where torch is loaded.
    """
    (folder / "train.py").write_text(SCRIPT)
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    words = ["train.py", kind, ways, str(steps)]
    if before:
        command = [*before, sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        ranks = [subprocess.run([*command, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=100)]
    else:
        ranks = forked_python.run_ranks(words, cwd=folder, env=env)
    said = "".join(rank.stderr for rank in ranks)
    assert not any(rank.returncode for rank in ranks), said[-3000:]
    assert sum(rank.stdout.count("done") for rank in ranks) == 2, said[-3000:]
    return said


def agree(folder: Path, *ways: str) -> bool:
    """True if these ways have led to the same weights, bit for bit."""
    bare, *others = (torch.load(folder / f"{way}.pt", weights_only=True) for way in ways)
    return all(torch.equal(a, b) for other in others for a, b in zip(bare, other, strict=True))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_rank_0_records_the_norms_of_whole_parameters(kind: str, tmp_path: Path, runs_in_tmp: Path) -> None:
    assert "gradtui" not in launch(tmp_path, kind, "bare,watch")
    run = (sys.executable, "-m", "gradtui", "run", "--every", "1", "--budget", "1")
    said = launch(tmp_path, kind, "no", *run)
    assert said.count("gradtui:") == 1, said  # how to attach
    assert agree(tmp_path, "bare", "watch", "no")
    expected = torch.load(tmp_path / "expected.pt", weights_only=True)
    (path,) = runs_in_tmp.glob("*.gradtui")
    for found in (tmp_path / "watch.gradtui", path):
        with open_run(found) as reader:
            assert reader.status().state == "finished"
            assert {layer.kind for layer in reader.layers()} == {"Linear"}
            agrees(reader, expected["rows"], expected["losses"], sampled=found == path)


@pytest.mark.timeout(300)
def test_processes_that_do_not_watch_or_stop_to_are_not_waited_for(tmp_path: Path) -> None:
    said = launch(tmp_path, "fsdp2", "bare,closes,first", steps=7)
    assert agree(tmp_path, "bare", "closes", "first")
    assert said.count("does not watch in all processes") == 1
    with open_run(tmp_path / "closes.gradtui") as reader:
        rows = reader.last(9)
    assert rows.step[is_measured(rows.measures[:, :, GRAD_NORM]).all(axis=1)].tolist() == [1, 3]
