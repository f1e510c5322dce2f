"""Whatever happens to the recorder, the training goes on; whatever happens to the training, the run tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

import gradtui
from gradtui.record import step_sample
from gradtui.record.losses import Losses
from gradtui.record.measurement import Measurement
from gradtui.record.row_queue import RowQueue
from gradtui.record.step_machine import StepMachine
from tests import forked_python
from tests.record.watched_nets import perceptron, train, watch_into

SCRIPT = """
import os, sys, time, torch, gradtui
from tests.record.watched_nets import watch_into
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def step(recorder=None):
    optimizer.zero_grad(); loss = model(torch.ones(1, 3)).square().sum(); loss.backward(); optimizer.step()
    if recorder: recorder.log(loss=loss)
recorder = watch_into(model, optimizer, every=1, path=sys.argv[1])
"""


def start(code: str, path: Path, **options):
    script = SCRIPT + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def run(code: str, path: Path):
    """The same to its end, where torch is loaded already."""
    return forked_python.run(["-c", SCRIPT + textwrap.dedent(code), str(path)])


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def trained_without():
    model = perceptron(6, 5, 4)
    train(model, sgd(model), steps=8)
    return list(model.parameters())


def assert_same_as_without(model):
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), trained_without(), strict=True))


def boom(*_, **__):
    raise RuntimeError("recorder out of order\nsecond line")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (step_sample.HostSample, "__init__"),
        (step_sample.HostSample, "after"),
        (RowQueue, "send"),
        (Losses, "log"),
        (Measurement, "_set_up"),
        (StepMachine, "measure"),
    ],
)
@pytest.mark.parametrize("other_hook", [False, True])
def test_a_failure_inside_the_recorder_is_told_once_and_training_goes_on(
    owner, name, other_hook, monkeypatch, tmp_path, capfd
):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    recorder = watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui")
    if other_hook:
        # one more hook behind ours: taking ours off while PyTorch walks the hooks would break the step
        calls = []
        optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
        optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    monkeypatch.setattr(owner, name, boom)
    train(model, optimizer, recorder, steps=8)
    recorder.close()
    assert_same_as_without(model)
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and "recorder out of order" in told and "training goes on" in told
    own = [
        hook for hooks in (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks) for hook in hooks
    ]
    assert len(own) == (2 if other_hook else 0)
    assert not other_hook or calls == ["before", "after"] * 8
    reader = gradtui.open_run(tmp_path / "r.gradtui")
    assert [event.kind for event in reader.events()] == ["recorder"]


@pytest.mark.parametrize("trouble", ["folder is a file", "exists"])
def test_a_run_file_that_cannot_be_made_is_told_and_training_goes_on(trouble, tmp_path, capfd):
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file" / "r.gradtui" if trouble == "folder is a file" else tmp_path / "file"
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    with watch_into(model, optimizer, every=1, path=path) as recorder:
        train(model, optimizer, recorder, steps=8)
    assert recorder.path is None and recorder.stop_requested is False
    assert_same_as_without(model)
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and "unrecorded" in told
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_file_deleted_while_training_is_told_and_training_goes_on(tmp_path, capfd):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    with watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui") as recorder:
        train(model, optimizer, recorder, steps=4)
        time.sleep(0.5)
        for file in tmp_path.glob("r.gradtui*"):
            file.unlink()
        time.sleep(1.6)
        generator_skips = torch.Generator().manual_seed(1)
        for _ in range(4):
            torch.randn(8, 6, generator=generator_skips)
        for _ in range(4):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 6, generator=generator_skips)).square().mean()
            loss.backward()
            optimizer.step()
            recorder.log(loss=loss)
    assert_same_as_without(model)
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and "training goes on" in told


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_a_full_disk_is_told_and_training_goes_on(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        done = run(
            """
            begin = time.time()
            while time.time() - begin < 4: step(recorder)
            recorder.close(); print("trained on", recorder._recording.step)
            """,
            small / "r.gradtui",
        )
        assert done.returncode == 0 and done.stdout.startswith("trained on")
        lines = done.stderr.strip().splitlines()
        assert 1 <= len(lines) <= 2 and "full" in lines[0] and "training goes on" in lines[0]
        assert gradtui.open_run(small / "r.gradtui").span() is not None
    finally:
        subprocess.run(["umount", "-l", small], check=False)


def test_a_killed_training_leaves_all_but_the_last_second(tmp_path):
    process = start(
        """
        while True:
            step(recorder); print(recorder._recording.step, flush=True); time.sleep(0.01)
        """,
        tmp_path / "r.gradtui",
    )
    deadline = time.monotonic() + 2.5
    seen = []
    for line in process.stdout:
        seen.append((time.monotonic(), int(line)))
        if time.monotonic() > deadline and len(seen) > 100:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = seen[-1][0]
    reader = gradtui.open_run(tmp_path / "r.gradtui")
    assert reader.status().state == "died"
    safe = max(step for when, step in seen if when < killed - 1.0)
    first, last = reader.span()
    assert first == 1 and last >= safe
    assert len(reader.newer(0)) == last


@pytest.mark.parametrize(
    ("code", "state", "detail"),
    [
        ("step(recorder)", "finished", ""),
        ("step(recorder); raise ValueError('no such batch')", "failed", "ValueError: no such batch"),
        ("step(recorder); raise KeyboardInterrupt", "stopped", "interrupted"),
    ],
)
def test_a_run_nobody_closed_is_closed_at_exit(code, state, detail, tmp_path):
    process = start(code, tmp_path / "r.gradtui")
    process.communicate(timeout=60)
    reader = gradtui.open_run(tmp_path / "r.gradtui")
    status = reader.status()
    assert (status.state, status.detail) == (state, detail)
    assert reader.span() == (1, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_does_not_write(tmp_path):
    done = run(
        """
        step(recorder)
        if os.fork() == 0:
            for _ in range(50): step(recorder)
            recorder.close("failed", "in the child")
            sys.exit(0)
        os.wait()
        step(recorder)
        """,
        tmp_path / "r.gradtui",
    )
    assert done.stderr == ""
    reader = gradtui.open_run(tmp_path / "r.gradtui")
    assert reader.status().state == "finished"
    assert reader.span() == (1, 2) and len(reader.newer(0)) == 2


def test_dataloader_workers_do_not_disturb_the_recording(tmp_path):
    done = run(
        """
        data = torch.utils.data.TensorDataset(torch.ones(8, 3))
        loader = torch.utils.data.DataLoader(data, num_workers=2, multiprocessing_context="fork")
        for (x,) in loader:
            step(recorder)
        """,
        tmp_path / "r.gradtui",
    )
    assert "gradtui" not in done.stderr
    assert gradtui.open_run(tmp_path / "r.gradtui").span() == (1, 8)
