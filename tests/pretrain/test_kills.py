"""Real processes, really killed; and two that train as one."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from pretrain.__main__ import main
from pretrain.stack import load_net, load_stack
from tests import forked_python

OFTEN = ["--batch-size", "20", "--threads", "1", "--checkpoint-every", "0.0005"]
LONG = [*OFTEN, "--data", "digits", "--layers", "24,16", "--epochs", "20", "--method", "pcd", "--chains", "10",
        "--up-down-epochs", "15"]  # fmt: skip
TUNE = [*OFTEN, "--epochs", "20", "--dropout", "0.2"]


@contextmanager
def started(*arguments: str) -> Iterator[forked_python.ForkedProcess]:
    """`python -m pretrain`, in a process of its own; what it says on stderr goes to a file beside the metrics."""
    said = Path(f"{arguments[1]}.stderr")
    with said.open("w") as stderr:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with forked_python.start(["-m", "pretrain", *arguments], env=environment, stderr=stderr.fileno()) as process:
            yield process


def run(*arguments: str) -> None:
    """To the end, in this process, which has torch already."""
    assert main(arguments) == 0


def wait_for_lines(folder: Path, count: int, process: forked_python.ForkedProcess) -> None:
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
        with started("fit", str(killed), *LONG) as process:
            wait_for_lines(killed, at, process)
            time.sleep(chance.uniform(0, 0.03))
            process.send_signal(signal.SIGTERM if at == 30 else signal.SIGKILL)
            kills += process.wait(timeout=60) != 0
        said = Path(f"{killed}.stderr").read_text()
        if at == 30 and process.returncode:
            assert process.returncode == 128 + signal.SIGTERM and "run the same command again to continue" in said
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
    with started("finetune", str(killed), *TUNE) as process:
        wait_for_lines(killed, 2 + 10, process)
        process.kill()
        assert process.wait(timeout=60) != 0
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
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for done in forked_python.run_ranks(["-m", "pretrain", *arguments], env=environment):
        assert done.returncode == 0, done.stderr
