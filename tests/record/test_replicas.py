"""Replicas that must stay equal: a hash in each process, compared by rank 0, and nobody who waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from gradtui.record.replicas import hashes_of, replicas_differ
from gradtui.runfile import open_run
from tests import forked_python

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")

SCRIPT = """
import os, sys, time, torch, torch.distributed as dist, gradtui
from torch import nn
from torch.nn.parallel import DistributedDataParallel
kind = sys.argv[1]
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(rank if kind == "parts" else 0)
model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
trained = model if kind == "parts" else DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
recorder = gradtui.watch(model, optimizer, folder="runs") if kind != "alone" or rank == 0 else None
for step in range(1, 41):
    if kind == "leaves" and step == 20 and rank == 1:
        sys.exit(0)
    if kind == "leaves" and step == 20:
        trained = model
    optimizer.zero_grad()
    trained(torch.randn(8, 6)).square().mean().backward()
    optimizer.step()
    if kind == "differs" and step == 10 and rank == 1:
        with torch.no_grad():
            model[2].bias += 1e-6
dist.barrier() if kind != "leaves" else None
recorder and recorder.close()
if kind != "leaves":
    dist.destroy_process_group()
else:
    os._exit(0)
"""


def events(folder: Path, kind: str) -> tuple[list[str], str]:
    """What the run of rank 0 says of the replicas, and rank 0 on stderr."""
    words, env = ["-c", SCRIPT, kind], {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = forked_python.run_ranks(words, cwd=folder, env=env, timeout=60)
    assert [done.returncode for done in ranks] == [0, 0], ranks[0].stderr + ranks[1].stderr
    (path,) = (folder / "runs").glob("*.gradtui")
    with open_run(path) as reader:
        assert reader.span() is not None
        return [one.text for one in reader.events() if one.kind == "replicas"], ranks[0].stderr


def test_a_replica_that_differs_is_told_with_its_layer_and_when(tmp_path: Path) -> None:
    told, stderr = events(tmp_path, "differs")
    text = "the replicas differ: rank 1 has other parameters than rank 0 in layer 2, since a step from 9 to 16"
    assert told == [text] and f"gradtui: {text}" in stderr


@pytest.mark.parametrize("kind", ["equal", "parts", "alone", "leaves"])
def test_nothing_is_said_of_equal_replicas_nor_of_parts_and_nobody_is_waited_for(kind: str, tmp_path: Path) -> None:
    assert events(tmp_path, kind)[0] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_a_hash_tells_any_bit_that_differs(dtype: torch.dtype) -> None:
    values = torch.randn(50, 3).to(dtype)
    before = hashes_of([values, torch.ones(2)])
    assert len(before) == 16 and hashes_of([values.clone(), torch.ones(2)]) == before
    values[7, 1] *= 1.02
    assert hashes_of([values, torch.ones(2)])[:8] != before[:8]


def test_many_ranks_are_named_up_to_eight() -> None:
    assert replicas_differ(4, 8, list(range(1, 12)), "").startswith(
        "the replicas differ: ranks 1, 2, 3, 4, 5, 6, 7, 8 have"
    )
