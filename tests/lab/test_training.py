"""Training recipes: the same seed, stopping, diverging, processes of their own, and the headless command."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gradtui.errors import DataMissingError
from gradtui.lab.background import launch_in
from gradtui.lab.costs import COSTS
from gradtui.lab.descent import Descent
from gradtui.lab.experiments import EXPERIMENTS
from gradtui.lab.models import build
from gradtui.lab.recipe import Recipe
from gradtui.lab.tensors import load
from gradtui.lab.train import train
from gradtui.runfile import RunMetadata, open_run, request

SHORT = Recipe(train_size=200, epochs=3)
LONG = Recipe(epochs=100_000)


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def state(path: Path) -> str:
    with RunMetadata(path) as run:
        return run.status().state


def test_the_same_seed_gives_the_same_run_and_another_seed_another(runs_in_tmp: Path) -> None:
    blocks = []
    for seed in (1, 1, 2):
        result = train(SHORT.but(seed=seed), folder=runs_in_tmp)
        assert result.path is not None
        with open_run(result.path) as reader:
            blocks.append(reader.newer(0).measures[:, :, :3])
    np.testing.assert_array_equal(blocks[0], blocks[1])
    assert (blocks[0] != blocks[2]).all()


def test_recording_leaves_the_weights_bit_for_bit_the_same(runs_in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradtui.lab import train as module

    built: list[torch.nn.Module] = []

    def remember(recipe: Recipe, generator: torch.Generator) -> torch.nn.Sequential:
        built.append(build(recipe, generator))
        return built[-1]  # type: ignore[return-value]

    monkeypatch.setattr(module, "build", remember)
    train(SHORT, folder=runs_in_tmp)
    generator = torch.Generator().manual_seed(SHORT.seed)
    model, tensors = build(SHORT, generator), load(SHORT)
    optimizer = Descent(SHORT, model, 200, 1).optimizer
    for _ in range(SHORT.epochs):
        order = torch.randperm(200, generator=generator)
        images, targets = tensors.images[order], tensors.targets[order]
        for start in range(0, 200, SHORT.batch_size):
            batch = slice(start, start + SHORT.batch_size)
            optimizer.zero_grad()
            COSTS[SHORT.cost](model(images[batch]), targets[batch]).backward()
            optimizer.step()
    for bare, recorded in zip(model.parameters(), built[0].parameters(), strict=True):
        assert torch.equal(bare, recorded)


def test_divergence_is_a_result(runs_in_tmp: Path) -> None:
    wild = Recipe(activation="relu", init="he", cost="softmax", learning_rate=1e6, epochs=5)
    result = train(wild, folder=runs_in_tmp)
    assert result.outcome == "stopped" and re.match(
        r"diverged at step [0-9]+ in fc[0-9]: the loss is not finite", result.detail
    )
    assert result.path is not None
    with open_run(result.path) as reader:
        assert (reader.status().state, reader.status().detail) == ("stopped", result.detail)
        rows = reader.newer(0)
        assert rows.loss_known.all() and not np.isfinite(rows.loss).all()
        assert any(finding.kind == "nan" for finding in reader.findings() or [])


def test_a_viewer_stops_a_launched_training_which_outlives_who_started_it(runs_in_tmp: Path) -> None:
    starter = (
        "import sys\nfrom pathlib import Path\nfrom gradtui.lab.background import launch_in\n"
        "from gradtui.lab.recipe import Recipe\n"
        "launch = launch_in(Path(sys.argv[1]), Recipe(epochs=100_000))\n"
        "print(launch.path, launch.process.pid, flush=True)\nimport time\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", starter, str(runs_in_tmp)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    name, pid = parent.stdout.readline().split()
    path = Path(name)
    try:
        wait_until(path.exists)
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
        time.sleep(0.5)
        assert state(path) == "live"
        request(path, "stop")
        wait_until(lambda: state(path) == "stopped")
        wait_until(lambda: "asked to stop" in path.with_suffix(".log").read_text())
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(int(pid), signal.SIGKILL)


def test_sigterm_ends_a_training_well_and_sigkill_leaves_one_that_died(runs_in_tmp: Path) -> None:
    for number, ends in ((signal.SIGTERM, "stopped"), (signal.SIGKILL, "died")):
        launch = launch_in(runs_in_tmp, LONG)
        wait_until(launch.path.exists)
        launch.process.send_signal(number)
        launch.process.wait(20)
        assert state(launch.path) == ends


def test_a_training_that_fails_before_its_run_says_why(runs_in_tmp: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{name}-ubyte").write_bytes(b"no images")
    launch = launch_in(runs_in_tmp, EXPERIMENTS["nielsen"].recipe.but(data_dir=str(folder)))
    wait_until(lambda: launch.trouble() is not None)
    assert "exit code 4" in str(launch.trouble())
    (line,) = launch.log_tail()
    assert line.startswith("gradtui: ") and "is not an IDX file" in line


def test_missing_mnist_is_one_line_that_says_what_where_and_what_to_do(
    runs_in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRADTUI_DATA", raising=False)
    with pytest.raises(DataMissingError, match=r"no folder is named.*--data-dir or GRADTUI_DATA") as caught:
        launch_in(runs_in_tmp, EXPERIMENTS["mnist"].recipe)
    assert "\n" not in str(caught.value) and "http" not in str(caught.value)
    with pytest.raises(DataMissingError, match="train-images-idx3-ubyte"):
        train(EXPERIMENTS["mnist"].recipe.but(data_dir=str(runs_in_tmp)), folder=runs_in_tmp)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_recipe_of_every_experiment_trains(name: str, request: pytest.FixtureRequest, runs_in_tmp: Path) -> None:
    for label, recipe in EXPERIMENTS[name].recipes.items():
        if recipe.data == "mnist":
            request.getfixturevalue("mnist_folder")
        fewer = None if recipe.data == "point" else 2 * (recipe.batch_size or 50)
        hidden = recipe.hidden[:20]
        result = train(recipe.but(epochs=1, train_size=fewer, hidden=hidden, warmup=0), folder=runs_in_tmp)
        assert result.steps >= 1 and (result.outcome == "finished" or "diverged" in result.detail), label


def headless(*arguments: str, **kind: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gradtui", "train", "--headless", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kind,  # type: ignore[call-overload]
    )


def test_headless_prints_stable_lines_and_the_layers_at_the_end() -> None:
    process = headless("--train-size", "100", "--epochs", "250", "--hidden", "10x2", "--batch-size", "50")
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out and "\r" not in out
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0] == ["epoch", "step", "cost", "accuracy"]
    epochs = [int(line[0]) for line in lines[1:] if line[0].isdigit()]
    assert len(epochs) <= 102 and epochs[-1] == 250 and epochs == sorted(set(epochs))
    layers = [line for line in lines if line[0].startswith("fc")]
    assert [line[0] for line in layers] == ["fc1", "fc2", "fc3"] and {len(line) for line in layers} == {5}
    assert layers[1][2] == "1×"


def test_on_a_terminal_the_layers_stand_in_columns() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-m", "gradtui", "train", "--headless", "--hidden", "10x2", "--epochs", "2"]
    process = subprocess.Popen(command, stdout=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux ends a pseudo-terminal with EIO
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    assert process.wait(20) == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "\n")
    assert "epoch 2/2" in plain and "steps/s" in plain and "\t" not in plain.split("layer ")[1].split("test acc")[0]
    rows = [line for line in plain.splitlines() if re.match("fc[123] ", line)]
    starts = [[match.start() for match in re.finditer(r"\S+", line)] for line in rows]
    assert len(rows) == 3 and len(starts[0]) == 5 and starts[0] == starts[1] == starts[2]


def test_where_no_run_can_be_kept_the_training_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    process = headless("--epochs", "100000", "--dir", str(tmp_path / "file" / "runs"))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    (line,) = err.splitlines()
    assert "cannot keep a run in" in line and "--dir names another place" in line


def test_a_locale_without_the_signs_still_gets_the_figures() -> None:
    process = headless("--hidden", "5", "--epochs", "1", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "") and "\t1?\t" in out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_a_headless_training_recorded(number: int, code: int, runs_in_tmp: Path) -> None:
    process = headless("--epochs", "100000")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("1\t"):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, "")
    assert "stopped\tasked to stop at step" in out
    (path,) = runs_in_tmp.glob("*.gradtui")
    assert state(path) == "stopped"
