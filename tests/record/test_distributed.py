"""Two processes under torchrun: rank 0 records the gradients of both, and the norms of whole parameters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gradtui.record.measures import GRAD_NORM
from gradtui.runfile import is_measured, open_run
from tests.record.oracle import agrees

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")

SCRIPT = """
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

kind, watched, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo")
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
if watched == "bare":
    from tests.record.oracle import Bare
    probe = Bare()
    probe.watch(model, optimizer)
elif watched == "watch" or watched == "first" and rank == 0:
    import gradtui
    if watched == "first":
        from datetime import timedelta
        from gradtui.record import sharded
        sharded.PATIENCE = timedelta(seconds=0.2)
    recorder = gradtui.watch(model, optimizer, every=1, update_every=1, path=Path("watched.gradtui"))
elif watched == "closes":
    import gradtui
    recorder = gradtui.watch(model, optimizer, every=2, path=Path("watched.gradtui"))
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
if rank == 0:
    torch.save({"weights": weights}, "weights.pt")
    if watched == "bare":
        torch.save({"rows": probe.rows, "losses": probe.losses}, "expected.pt")
dist.destroy_process_group()
print("done", rank)
"""


def launch(folder: Path, kind: str, watched: str, *before: str, steps: int = 3) -> tuple[list[torch.Tensor], str]:
    """Train in a folder of its own; the weights, and what was said on stderr."""
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    command = [*before, sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "train.py", kind, watched, str(steps)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0 and done.stdout.count("done") == 2, done.stderr[-3000:]
    saved: dict[str, Any] = torch.load(folder / "weights.pt", weights_only=True)
    return saved["weights"], done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_rank_0_records_the_norms_of_whole_parameters(kind: str, tmp_path: Path, runs_in_tmp: Path) -> None:
    weights, _ = launch(tmp_path / "bare", kind, "bare")
    expected = torch.load(tmp_path / "bare" / "expected.pt", weights_only=True)
    in_process, said = launch(tmp_path / "watch", kind, "watch")
    assert "gradtui" not in said
    run = (sys.executable, "-m", "gradtui", "run", "--every", "1", "--budget", "1")
    under_run, said = launch(tmp_path / "run", kind, "no", *run)
    assert said.count("gradtui:") == 1, said  # how to attach
    (path,) = runs_in_tmp.glob("*.gradtui")
    for recorded, found in ((in_process, tmp_path / "watch" / "watched.gradtui"), (under_run, path)):
        assert all(torch.equal(a, b) for a, b in zip(weights, recorded, strict=True))
        with open_run(found) as reader:
            assert reader.status().state == "finished"
            assert {layer.kind for layer in reader.layers()} == {"Linear"}
            agrees(reader, expected["rows"], expected["losses"], sampled=found == path)


@pytest.mark.timeout(300)
def test_a_process_that_is_not_watched_is_not_waited_for(tmp_path: Path) -> None:
    weights, _ = launch(tmp_path / "bare", "fsdp2", "bare")
    recorded, said = launch(tmp_path / "first", "fsdp2", "first")
    assert all(torch.equal(a, b) for a, b in zip(weights, recorded, strict=True))
    assert said.count("does not watch in all processes") == 1


@pytest.mark.timeout(300)
def test_a_recording_of_shards_that_is_closed_lets_the_others_go(tmp_path: Path) -> None:
    weights, _ = launch(tmp_path / "bare", "fsdp2", "bare", steps=7)
    recorded, _ = launch(tmp_path / "closes", "fsdp2", "closes", steps=7)
    assert all(torch.equal(a, b) for a, b in zip(weights, recorded, strict=True))
    with open_run(tmp_path / "closes" / "watched.gradtui") as reader:
        rows = reader.last(9)
    assert rows.step[is_measured(rows.measures[:, :, GRAD_NORM]).all(axis=1)].tolist() == [1, 3]
