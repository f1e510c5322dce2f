"""What is wrong is told before torch is loaded; while it is loaded, a terminal says so, and Ctrl-C is silent."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gradtui.lab.workers import _interrupts_ignored
from pretrain.loading import loading

# no file or folder can be made in /proc
EARLY = [
    ("gradtui", "train --headless --data mnist --data-dir {tmp}", "MNIST is not there"),
    ("gradtui", "train --headless --dir /proc/runs", "cannot keep a run in /proc/runs"),
    ("gradtui", "train --headless --learning-rate nan", "--learning-rate nan: give a finite number"),
    ("gradtui", "train --headless --with nosuch", "there is no remedy 'nosuch': `gradtui remedies FAMILY` lists those"),
    ("gradtui", "train --detach --fps 0", "--fps: '0': give a number from 0.1 to 60"),
    ("gradtui", "compare mnist --data-dir {tmp}", "MNIST is not there"),
    ("gradtui", "compare remedies --dir /proc/runs", "cannot keep a run in /proc/runs"),
    ("gradtui", "compare remedies --backend spark://x", "--backend 'spark://x': give loky"),
    ("gradtui", "compare remedies --target-cost nan", "--target-cost nan: give a number above 0"),
    ("gradtui", "compare remedies --seeds 99999999999", "--seeds 99999999999: give from 1 to 10,000"),
    ("gradtui", "run --dir /proc/runs true", "cannot keep a run in /proc/runs"),
    ("gradtui", "runs --dir=", "--dir is empty"),
    ("pretrain", "fit {tmp}/s --data mnist --data-dir {tmp}", "MNIST is not there"),
    ("pretrain", "fit /dev/null/s", "cannot write /dev/null/s: /dev/null is no folder"),
    ("pretrain", "fit {tmp}/s --data {tmp}/none.npy", "none.npy does not exist"),
    ("pretrain", "fit {tmp}/s --epochs -1", "--epochs -1: give a whole number from 0"),
    ("pretrain", "fit {tmp}/s --layers 30,0", "--layers 0: give a whole number from 1"),
    ("pretrain", "fit {tmp}/s --memory nan", "--memory nan: give a whole number"),
    ("pretrain", "fit {tmp}/s --device cuda:x", "--device 'cuda:x': give auto, or a device of torch"),
    ("pretrain", "fit {tmp}/damaged", "fit.json"),
    ("pretrain", "fit {tmp}/s --batch 1e400 --hiden x", "invalid int value: '1e400'"),
    ("pretrain", "fit {tmp}/s --hiden x", "unrecognized arguments: --hiden x (did you mean --hidden?)"),
    ("pretrain", "finetune {tmp}/s", "holds no layers"),
    ("pretrain", "sample {tmp}/s --out {tmp}/x.gif", "must end in .npy or .png"),
    ("pretrain", "evaluate {tmp}/s --likelihood --ais-chains 1", "--ais-chains 1: give a whole number from 2"),
    ("pretrain", "features {tmp}/s --out /dev/null/x.npy --scale -1", "--scale -1: give a number above 0"),
]
RUN = """
import io, json, sys
from contextlib import redirect_stderr
from gradtui.cli import main as gradtui
from pretrain.__main__ import main as pretrain

found = []
for program, words in json.load(sys.stdin):
    said = io.StringIO()
    with redirect_stderr(said):
        try:
            code = {"gradtui": gradtui, "pretrain": pretrain}[program](words)
        except SystemExit as end:
            code = end.code
    found.append([code, said.getvalue(), "torch" in sys.modules])
print(json.dumps(found))
"""


def test_what_is_wrong_is_one_line_before_torch_is_loaded(tmp_path: Path, runs_in_tmp: Path) -> None:
    (tmp_path / "damaged").mkdir()
    for name in ("fit.json", "layers.safetensors"):
        (tmp_path / "damaged" / name).write_text("[" * 100_000)
    before = sorted(tmp_path.rglob("*"))
    given = [(program, [word.format(tmp=tmp_path) for word in words.split()]) for program, words, _ in EARLY]
    command = [sys.executable, "-c", RUN]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for (program, words, says), (code, said, has_torch) in zip(EARLY, json.loads(done.stdout), strict=True):
        assert code not in (0, None), words
        assert said.startswith(f"{program}: ") and says in said and said.count("\n") == 1, (words, said)
        assert not has_torch, words
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_loading_is_said_where_it_takes_long_and_the_line_is_removed() -> None:
    stream, long = Terminal(), threading.Event()
    with loading(stream=stream, patience=0.01):
        while "loading" not in stream.getvalue():
            assert not long.wait(0.01)
    assert stream.getvalue() == "loading torch …\r\x1b[K"


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_loading_is_not_said_where_it_is_quick_or_in_a_pipe(stream: io.StringIO) -> None:
    with loading(stream=stream, patience=30.0 if stream.isatty() else 0.0):
        threading.Event().wait(0.05)
    assert stream.getvalue() == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupted_while_loading_it_ends_at_once_without_a_word() -> None:
    code = (
        "from pretrain.loading import loading\nimport time\n"
        "with loading():\n"
        "    print('ready', flush=True)\n"
        "    try:\n        time.sleep(60)\n    except BaseException: time.sleep(60)\n"  # as modules may do
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, b"")


def _ignores_ctrl_c() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_ctrl_c_never_reaches_the_workers_of_a_comparison() -> None:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    with _interrupts_ignored():
        ended = Parallel(n_jobs=2, backend="loky", return_as="generator_unordered")([delayed(_ignores_ctrl_c)()])
    try:
        assert list(ended) == [True]
        assert not _ignores_ctrl_c()
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def test_a_reader_that_has_gone_is_no_error(runs_in_tmp: Path) -> None:
    for words in (["gradtui", "remedies"], ["pretrain", "fit", "--help"]):
        output, gone = os.pipe()
        os.close(output)
        done = subprocess.run([sys.executable, "-m", *words], stdout=gone, stderr=subprocess.PIPE, timeout=60)
        os.close(gone)
        assert done.stderr == b"" and done.returncode == 0


def test_a_full_disk_at_the_end_of_the_output_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gradtui", "remedies"], stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr == b"gradtui: cannot write the output: No space left on device\n"
