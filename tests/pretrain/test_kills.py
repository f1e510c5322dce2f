"""Real processes, really killed; and two that train as one."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pretrain.__main__ import main
from pretrain.stack import load_net, load_stack

OFTEN = ["--batch-size", "20", "--threads", "1", "--checkpoint-every", "0.0005"]
LONG = [*OFTEN, "--data", "digits", "--layers", "24,16", "--epochs", "20", "--method", "pcd", "--chains", "10",
        "--up-down-epochs", "15"]  # fmt: skip
TUNE = [*OFTEN, "--epochs", "20", "--dropout", "0.2"]


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pretrain", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def run(*arguments: str) -> None:
    """To the end, in this process, which has torch already."""
    assert main(arguments) == 0


def wait_for_lines(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    path, deadline = folder / "metrics.jsonl", time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and path.read_text().count("\n") >= count:
            return
        time.sleep(0.005)


def weights(folder: Path) -> torch.Tensor:
    stack = load_stack(folder / "layers.safetensors")
    modules = [*stack.layers, *stack.recognition]
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


def test_killed_at_any_time_and_started_again_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run("fit", str(whole), *LONG)
    chance, kills = random.Random(3), 0
    for at in (10, 30, 45):
        process = start("fit", str(killed), *LONG)
        wait_for_lines(killed, at, process)
        time.sleep(chance.uniform(0, 0.03))
        number = signal.SIGTERM if at == 30 else signal.SIGKILL
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        kills += process.returncode != 0
        if at == 30 and process.returncode:
            assert process.returncode == 128 + signal.SIGTERM and "the same command goes on" in said
    assert kills == 3
    run("fit", str(killed), *LONG)
    assert torch.equal(weights(killed), weights(whole))
    told = [
        [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in text.splitlines()]
        for text in ((folder / "metrics.jsonl").read_text() for folder in (whole, killed))
    ]
    assert told[0] == told[1], "each epoch once, with the same error"


def test_fine_tuning_that_is_killed_ends_with_the_same_net(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run("fit", str(whole), *OFTEN, "--data", "digits", "--layers", "24,16", "--epochs", "1")
    shutil.copytree(whole, killed)
    run("finetune", str(whole), *TUNE)
    process = start("finetune", str(killed), *TUNE)
    wait_for_lines(killed, 2 + 10, process)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode != 0
    run("finetune", str(killed), *TUNE)
    nets = [load_net(folder / "net.safetensors")[0] for folder in (whole, killed)]
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(one, other)


MACHINES = ["--method", "pcd", "--chains", "7", "--sparsity-cost", "0.1", "--centred", "--propagate", "samples"]


@pytest.mark.parametrize("flags", [MACHINES, pytest.param(["--unit", "sparse"], marks=pytest.mark.slow)])
def test_two_processes_train_as_one(flags: list[str], tmp_path: Path) -> None:
    # 1,200 digits in batches of 64: the last has 48; and 7 chains, which two cannot share evenly
    common = ["--data", "digits", "--layers", "30,20", "--epochs", "2", "--batch-size", "64", "--threads", "1", *flags]
    alone, together = tmp_path / "alone", tmp_path / "together"
    run("fit", str(alone), *common)
    torchrun(["fit", str(together), *common])
    torch.testing.assert_close(weights(together), weights(alone), rtol=1e-4, atol=1e-5)


def test_two_processes_tune_as_one(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    run("fit", str(alone), "--data", "digits", "--layers", "30,20", "--epochs", "1", "--threads", "1")
    shutil.copytree(alone, together)
    tune = ["--epochs", "2", "--optimizer", "sgd", "--threads", "1"]
    run("finetune", str(alone), *tune)
    torchrun(["finetune", str(together), *tune])
    one, other = (load_net(folder / "net.safetensors")[0] for folder in (alone, together))
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def torchrun(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pretrain"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
