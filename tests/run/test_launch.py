"""`gradtui run` stays out of the way of the command that it starts, and says what it has to say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from gradtui import cli
from gradtui.errors import UsageError
from gradtui.options import RecordOptions
from gradtui.recorded_command import CommandNotFoundError, name_of, prepare
from gradtui.run_request import newest_starting
from gradtui.runfile import open_run

TRAINS = """
    import torch
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for step in range({steps}):
        optimizer.zero_grad()
        loss = net(torch.randn(16, 4)).square().mean() {spoil}
        loss.backward()
        optimizer.step()
"""


def script(folder: Path, text: str, name: str = "train.py", **words: object) -> str:
    path = folder / name
    path.write_text(textwrap.dedent(text.format(**words) if words else text))
    return str(path)


def run(
    folder: Path, *words: str, options: tuple[str, ...] = (), variables: dict[str, str] | None = None, **more: object
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "GRADTUI_DIR": str(folder / "runs"), "OMP_NUM_THREADS": "1", **(variables or {})}
    command = [sys.executable, "-m", "gradtui", "run", *options, *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, **more)  # type: ignore[call-overload,no-any-return]


def recorded(folder: Path) -> list[Path]:
    return sorted((folder / "runs").glob("*.gradtui"))


@pytest.mark.parametrize("fail_on", [(), ("--fail-on", "nan")])
@pytest.mark.parametrize(
    ("body", "code"), [("import sys; sys.exit(7)", 7), ("raise ValueError('mine')", 1), ("import os; os.abort()", -6)]
)
def test_the_exit_code_is_the_command_s_own(fail_on, body, code, tmp_path):
    done = run(tmp_path, sys.executable, script(tmp_path, body), options=fail_on)
    assert done.returncode == code


def test_streams_are_the_command_s_own(tmp_path):
    text = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data[::-1]); sys.stderr.write('mine')"
    done = run(tmp_path, sys.executable, script(tmp_path, text), input="abc")
    assert done.stdout == "cba" and done.stderr == "minegradtui: nothing was recorded: torch was not imported\n"


@pytest.mark.parametrize("options", [(), ("--fail-on", "nan")])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(options, number, tmp_path):
    text = f"""
        import signal, sys, time
        signal.signal({int(number)}, lambda *_: sys.exit(42))
        print("ready", flush=True)
        time.sleep(60)
    """
    words = [sys.executable, "-m", "gradtui", "run", *options, sys.executable, script(tmp_path, text)]
    env = {**os.environ, "GRADTUI_DIR": str(tmp_path)}
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        child.send_signal(number)
        assert child.wait(20) == 42


def test_a_command_that_a_signal_kills_ends_so_under_fail_on_too(tmp_path):
    text = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    done = run(tmp_path, sys.executable, script(tmp_path, text), options=("--fail-on", "any"))
    assert done.returncode == -signal.SIGTERM


def test_a_script_from_standard_input_is_recorded(tmp_path):
    text = textwrap.dedent(TRAINS.format(steps=20, spoil=""))
    assert run(tmp_path, sys.executable, "-", options=("--every", "1"), input=text).returncode == 0
    (path,) = recorded(tmp_path)
    with open_run(path) as reader:
        assert [layer.name for layer in reader.layers()] == ["0", "2"]
        assert len(reader.last(99)) == 20


def test_a_sitecustomize_of_the_environment_runs_first(tmp_path):
    (tmp_path / "own").mkdir()
    script(tmp_path / "own", "import builtins; builtins.mine = 'set'", name="sitecustomize.py")
    done = run(tmp_path, sys.executable, "-c", "print(mine)", variables={"PYTHONPATH": str(tmp_path / "own")})
    assert done.stdout == "set\n", done.stderr


def test_a_process_without_torch_loads_nothing_of_ours(tmp_path):
    done = run(
        tmp_path, sys.executable, "-c", "import sys; print([m for m in sys.modules if m.split('.')[0] == 'gradtui'])"
    )
    assert done.stdout == "[]\n" and not recorded(tmp_path)


def test_torch_is_what_it_is_without_us(tmp_path):
    text = "import torch; print(torch.__spec__.loader.__class__.__name__, torch.__loader__ is torch.__spec__.loader)"
    alone = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    assert run(tmp_path, sys.executable, "-c", text).stdout == alone


def test_workers_of_a_loader_and_subprocesses_make_no_runs_of_their_own(tmp_path):
    text = """
        import subprocess, sys, torch
        from torch.utils.data import DataLoader, TensorDataset
        if __name__ == "__main__":
            subprocess.run([sys.executable, "-c", "import torch"], check=True)
            net = torch.nn.Linear(4, 1)
            optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
            loader = DataLoader(TensorDataset(torch.randn(32, 4)), 8, num_workers=2, multiprocessing_context="{how}")
            for (x,) in loader:
                net(x).square().mean().backward()
                optimizer.step()
    """
    for how in ("fork", "spawn"):
        done = run(tmp_path / how, sys.executable, script(tmp_path, text, name=f"{how}.py", how=how))
        assert done.returncode == 0, done.stderr
        assert len(recorded(tmp_path / how)) == 1


def test_two_trainings_of_one_command_are_two_runs(tmp_path):
    train = script(tmp_path, TRAINS, steps=5, spoil="")
    both = script(
        tmp_path, f"import subprocess, sys\nfor _ in 'ab': subprocess.run([sys.executable, {train!r}])", "a.py"
    )
    assert run(tmp_path, sys.executable, both).returncode == 0
    assert len(recorded(tmp_path)) == 2


def test_fail_on_tells_a_sick_training_from_a_healthy_one(tmp_path):
    healthy = script(tmp_path, TRAINS, name="healthy.py", steps=40, spoil="")
    sick = script(tmp_path, TRAINS, name="sick.py", steps=40, spoil="/ (1.0 if step < 30 else 0.0)")
    assert run(tmp_path, sys.executable, healthy, options=("--fail-on", "nan,exploding")).returncode == 0
    done = run(tmp_path, sys.executable, sick, options=("--fail-on", "nan,exploding"))
    assert done.returncode == 10
    assert "NAN" in done.stderr and "step 31" in done.stderr


def test_any_does_not_fail_on_what_may_well_be_meant(tmp_path):
    frozen = script(tmp_path, TRAINS, steps=120, spoil="")
    text = Path(frozen).read_text().replace("optimizer =", "net[0].requires_grad_(False); optimizer =", 1)
    Path(frozen).write_text(text)
    assert "requires_grad_" in text
    options = ("--every", "1", "--fail-on")
    assert run(tmp_path, sys.executable, frozen, options=(*options, "any")).returncode == 0
    assert run(tmp_path, sys.executable, frozen, options=(*options, "not-updating")).returncode == 10


def test_a_folder_that_runs_cannot_be_written_to_is_reported_before_the_command_begins(tmp_path):
    (tmp_path / "file").write_text("mine")
    began = tmp_path / "began"
    words = (sys.executable, "-c", f"open({str(began)!r}, 'w')")
    done = run(tmp_path, *words, options=("--dir", str(tmp_path / "file" / "runs")))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "cannot keep a run in" in done.stderr
    assert not began.exists()


def test_fail_on_does_not_pass_what_nobody_recorded(tmp_path):
    done = run(tmp_path, sys.executable, "-c", "pass", options=("--fail-on", "any"))
    assert done.returncode == 11 and "--fail-on: no run was recorded" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "give the command that trains"),
        (("no-such-command", "x"), 127, "command not found: 'no-such-command'"),
        (("--every", "0", "true"), 2, "--every 0"),
        (("--budget", "2", "true"), 2, "--budget 2"),
        (("--fail-on", "ill", "true"), 2, "the findings are nan, exploding"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words, code, says, tmp_path):
    done = run(tmp_path, *words)
    assert done.returncode == code and says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python train.py --lr 1", "train"),
        ("torchrun --nproc-per-node 2 src/main.py", "main"),
        ("python -m pkg.sub.fit --x", "fit"),
        ("uv run accelerate launch run_clm.py", "run_clm"),
        ("my-trainer --config a.yaml", "my-trainer"),
        ("python -", "training"),
    ],
)
def test_a_run_is_called_after_the_script(command, name):
    assert name_of(command.split()) == name


def test_a_script_alone_is_run_by_python(tmp_path):
    path = script(tmp_path, "print('here')")
    options = RecordOptions(folder=tmp_path)
    assert prepare([path], options).words == [sys.executable, path]
    with pytest.raises(CommandNotFoundError):
        prepare([str(tmp_path / "other.py")], options)
    with pytest.raises(UsageError):
        prepare([], options)


def test_the_report_says_what_is_wrong_with_a_run(tmp_path):
    sick = script(tmp_path, TRAINS, name="sick.py", steps=40, spoil="/ (1.0 if step < 30 else 0.0)")
    run(tmp_path, sys.executable, sick, options=("--every", "1"))
    env = {**os.environ, "GRADTUI_DIR": str(tmp_path / "runs")}
    words = [sys.executable, "-m", "gradtui", "report"]
    text = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    assert "NAN" in text and "since step 31" in text and "try lower-rate: " in text
    found = json.loads(subprocess.run([*words, "--json"], env=env, capture_output=True, text=True, check=True).stdout)
    assert [finding["kind"] for finding in found["findings"]] == ["nan"]
    assert [layer["name"] for layer in found["layers"]] == ["0", "2"] and found["loss"] == "nan"


@pytest.mark.parametrize(("size", "where"), [((160, 40), ":.1"), ((80, 24), ":")], ids=["pane", "window"])
def test_watch_shows_the_viewer_where_tmux_has_room_for_it(size, where, tmp_path):
    tmux = ["tmux", "-S", str(tmp_path / "t")]  # a server of its own: another may be ending
    if subprocess.run(["which", "tmux"], capture_output=True).returncode:
        pytest.skip("tmux is not installed")
    train = script(tmp_path, TRAINS.replace("optimizer.step()", "optimizer.step(); __import__('time').sleep(0.02)"),
                   steps=3000, spoil="")  # fmt: skip
    command = f"GRADTUI_DIR={tmp_path / 'runs'} {sys.executable} -m gradtui run --watch {sys.executable} {train}"
    try:
        width, height = (str(number) for number in size)
        subprocess.run([*tmux, "-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, command], check=True)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            shown = subprocess.run([*tmux, "capture-pane", "-p", "-t", where], capture_output=True, text=True).stdout
            if "Learning speed" in shown and "steps/s" in shown:
                break
            time.sleep(0.3)
        assert "Learning speed" in shown and " train " in shown, shown
    finally:
        subprocess.run([*tmux, "kill-server"], capture_output=True)


def test_attach_waits_for_the_run_that_a_command_is_about_to_write(tmp_path):
    slow = script(tmp_path, "import sys\nsys.stdin.readline()\n" + textwrap.dedent(TRAINS), steps=5, spoil="")
    folder = tmp_path / "runs"
    words = [sys.executable, "-m", "gradtui", "run", "--name", "new", sys.executable, slow]
    with subprocess.Popen(
        words, env={**os.environ, "GRADTUI_DIR": str(folder)}, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        assert command.stdin is not None and command.stderr is not None
        until = time.monotonic() + 20
        while (starting := newest_starting(folder)) is None and time.monotonic() < until:
            time.sleep(0.05)
        assert starting is not None and 0 <= time.time() - starting[0] < 30
        promised = starting[1]
        assert promised.name.startswith("new-") and not promised.exists()
        command.stdin.write(b"\n")
        command.stdin.close()
        assert command.stderr.readline().decode().startswith(f"gradtui: recording to {promised.stem}; watch it with")
        assert command.wait(60) == 0
    assert promised.exists() and newest_starting(folder) is None


def test_word_of_a_command_that_never_trained_is_taken_back(tmp_path):
    text = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run(tmp_path, sys.executable, "-c", text).returncode == -signal.SIGKILL
    assert [path.suffix for path in (tmp_path / "runs").iterdir()] == [".gradtui-starting"]
    assert newest_starting(tmp_path / "runs") is None
    assert cli.main(["runs", "--dir", str(tmp_path / "runs")]) == 0
    assert not list((tmp_path / "runs").iterdir())


def test_patterns_that_no_layer_fits_are_told_and_do_not_pass(tmp_path):
    train = script(tmp_path, TRAINS, steps=5, spoil="")
    done = run(tmp_path, sys.executable, train, options=("--fail-on", "any", "--layers", "zzz*"))
    assert done.returncode == 11
    assert "no layer of net is called zzz*, so none of it is recorded; it has net.0, net.2" in done.stderr


def test_the_last_step_is_known_although_it_was_not_measured(tmp_path):
    train = script(tmp_path, TRAINS, steps=500, spoil="")
    assert run(tmp_path, sys.executable, train).returncode == 0
    with open_run(recorded(tmp_path)[0]) as reader:
        rows = reader.newer(0)
    assert rows.step[-1] == 500 and len(rows) < 400
