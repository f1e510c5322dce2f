"""How a training ended, as its run says: by the exit code of its process, too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gradtui.options import RecordOptions
from gradtui.recorded_command import prepare
from gradtui.runfile import open_run
from tests.forked_python import run

TRAIN = """
import os, signal, sys, torch, gradtui
net = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
{watch}
def train(steps):
    for _ in range(steps):
        optimizer.zero_grad(); net(torch.ones(3, 2)).sum().backward(); optimizer.step()
train(3)
"""
WATCH = "recorder = gradtui.watch(net, optimizer, folder=os.environ['GRADTUI_DIR'])"


@pytest.mark.parametrize(
    ("end", "state", "detail"),
    [
        ("", "finished", ""),
        ("sys.exit()", "finished", ""),
        ("sys.exit(0)", "finished", ""),
        ("sys.exit(3)", "failed", "exit code 3"),
        ("exit(4)", "failed", "exit code 4"),
        ("quit(code=5)", "failed", "exit code 5"),
        ("sys.exit('no data')", "failed", "exit code 1: no data"),
        ("sys.exit(143)", "stopped", "terminated"),
        ("raise ValueError('mine')", "failed", "ValueError: mine"),
        ("raise KeyboardInterrupt", "stopped", "interrupted"),
        # caught, and trained on: what was meant then does not hold at the end
        ("try: sys.exit(3)\nexcept SystemExit: train(2)", "finished", ""),
        ("os._exit(3)", "died", None),
        ("signal.raise_signal(signal.SIGTERM)", "died", None),
        ("import threading; t = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join()", "finished", ""),
    ],
)
def test_a_run_says_how_its_process_ended(end: str, state: str, detail: str | None, tmp_path: Path) -> None:
    code = f"import _sitebuiltins\nexit = _sitebuiltins.Quitter('exit', 'end'); quit = exit\n{end}"
    done = run(["-c", TRAIN.format(watch=WATCH) + code], env={**os.environ, "GRADTUI_DIR": str(tmp_path)})
    (path,) = tmp_path.glob("*.gradtui")
    with open_run(path) as reader:
        status = reader.status()
    assert status.state == state and detail in (None, status.detail), done.stderr


def test_a_script_under_gradtui_run_that_ends_itself_has_failed(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN.format(watch="") + "sys.exit(3)")
    words = [str(tmp_path / "train.py")]
    command = prepare([sys.executable, *words], RecordOptions(folder=tmp_path / "runs"))
    assert run(words, env={**os.environ, **command.environment}).returncode == 3
    (path,) = (tmp_path / "runs").glob("*.gradtui")
    with open_run(path) as reader:
        assert (reader.status().state, reader.status().detail) == ("failed", "exit code 3")


def test_nothing_is_left_on_the_functions_that_end_a_process(tmp_path: Path) -> None:
    import torch

    import gradtui

    before = sys.exit
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    recorder = gradtui.watch(net, optimizer, folder=tmp_path)
    assert sys.exit is not before
    with pytest.raises(SystemExit) as raised:
        sys.exit(7)
    recorder.close()
    assert raised.value.code == 7 and sys.exit is before
    assert recorder.path is not None
    with open_run(recorder.path) as reader:
        assert reader.status().state == "finished"  # it was closed, by a training that went on
