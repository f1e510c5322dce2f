"""A person at a terminal: start, see bars move, switch, leave, come back; and what can go wrong meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gradtui.lab.background import launch_in
from gradtui.lab.recipe import Recipe
from gradtui.runfile import RunMetadata
from gradtui.runfolder import mark_starting
from tests.end_to_end.terminal import GRADTUI, Terminal
from tests.synthetic import make_run

ESCAPES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]|\x1b\][^\x07]*\x07")


def state(path: Path) -> str:
    with RunMetadata(path) as run:
        return run.status().state


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


@pytest.fixture
def training(runs_in_tmp: Path) -> Iterator[tuple[Path, int]]:
    """A training that goes on until it is stopped: its run file and its process."""
    launch = launch_in(runs_in_tmp, Recipe(epochs=1_000_000))
    wait_until(launch.path.exists)
    yield launch.path, launch.process.pid
    launch.process.kill()
    launch.process.wait()


def value_of_first_layer(text: str) -> str | None:
    found = re.search(r"1 fc1 .*?([0-9.]+(?:e-[0-9]+)?) +×", text)
    return found[1] if found else None


def restored(raw: bytes) -> bool:
    """Whether the terminal was given back: the normal screen, and a cursor that can be seen."""
    left = raw.rfind(b"\x1b[?1049l")
    return left > raw.rfind(b"\x1b[?1049h") >= 0 and raw.rfind(b"\x1b[?25h") > raw.rfind(b"\x1b[?25l")


def test_a_newcomers_first_minutes(runs_in_tmp: Path) -> None:
    with Terminal(
        "train", "--data", "digits", "--hidden", "30,30,30,30", "--activation", "sigmoid", "--epochs", "100000"
    ) as terminal:
        terminal.wait_for("Learning speed")
        first = value_of_first_layer(terminal.wait_for(lambda text: value_of_first_layer(text)))
        terminal.wait_for(lambda text: value_of_first_layer(text) not in (None, first), 10)
        assert "● live" in terminal.text and "fc5" in terminal.text and "█" in terminal.text
        # in words, or as a finding if the machine has been slow enough for one
        assert re.search(r"fc1 learns [0-9,]+× slower than fc5|[A-Z]{4,}  fc1", terminal.text), terminal.text
        terminal.press("m")
        terminal.wait_for("Weight gradient")
        terminal.press("q")
        assert "leave it running" in terminal.wait_for("is still training")
        terminal.press("l")
        assert terminal.wait_for_exit() == 0
        assert restored(terminal.raw)
        (path,) = runs_in_tmp.glob("*.gradtui")
        assert f"gradtui attach {path.stem}".encode() in terminal.raw
    assert state(path) == "live"
    with Terminal("attach") as terminal:
        terminal.wait_for("● live")
        terminal.press("q")
        terminal.wait_for("is still training")
        terminal.press("s")
        assert terminal.wait_for_exit() == 0
    wait_until(lambda: state(path) == "stopped")
    with Terminal("attach", path.stem) as terminal:
        terminal.wait_for("■ stopped")
        terminal.press("q")
        assert terminal.wait_for_exit() == 0


def test_leaving_while_the_training_is_still_starting_asks_too(runs_in_tmp: Path) -> None:
    with Terminal("train", "--epochs", "100000") as terminal:
        terminal.wait_for("training is starting")
        terminal.press("q")
        terminal.wait_for("is still training")
        terminal.press("s")
        assert terminal.wait_for_exit() == 0
    (log,) = runs_in_tmp.glob("*.log")
    wait_until(lambda: subprocess.run(["pgrep", "-f", log.stem], capture_output=True).returncode == 1)
    assert not any(state(path) == "live" for path in runs_in_tmp.glob("*.gradtui"))


def test_home_starts_an_experiment_and_comes_back_to_it() -> None:
    with Terminal(width=80, height=24) as terminal:
        terminal.wait_for("Vanishing gradient")
        terminal.press(6 * "\x1b[B")
        terminal.wait_for("compare memory")  # the longest
        terminal.press("\r")
        terminal.wait_for("2 training")
        terminal.press("\x1b")
        terminal.wait_for(lambda text: "Runs in" in text and "● live" in text)
        terminal.press("\t\r")
        terminal.wait_for("Learning speed")
        terminal.press("q")
        terminal.wait_for("is still training")
        terminal.press("s")
        assert terminal.wait_for_exit() == 0


def test_a_killed_training_is_shown_as_died_and_the_viewer_goes_on(training: tuple[Path, int]) -> None:
    path, pid = training
    with Terminal("attach", str(path)) as terminal:
        terminal.wait_for("● live")
        os.kill(pid, signal.SIGKILL)
        terminal.wait_for("✗ died", 10)
        terminal.press("m")
        terminal.wait_for("Weight gradient")
        terminal.press("q")
        assert terminal.wait_for_exit() == 0


def test_whatever_ends_the_viewer_leaves_the_training_alone(training: tuple[Path, int]) -> None:
    path, _ = training
    for number in (signal.SIGKILL, signal.SIGHUP, signal.SIGTERM):
        with Terminal("attach", str(path)) as terminal:
            terminal.wait_for("● live")
            began = time.monotonic()
            os.kill(terminal.pid, number)
            code = terminal.wait_for_exit(5)
            if number != signal.SIGKILL:
                assert code == 0 and time.monotonic() - began < 2
                assert restored(terminal.raw)
        with RunMetadata(path) as run:
            before = run.span()
            wait_until(lambda run=run, before=before: run.span() != before)
            assert run.status().live


def test_a_lost_connection_ends_the_viewer_and_not_the_training(training: tuple[Path, int]) -> None:
    path, _ = training
    terminal = Terminal("attach", str(path))
    with terminal:
        terminal.wait_for("● live")
        terminal.hang_up()
        deadline = time.monotonic() + 30
        while os.waitpid(terminal.pid, os.WNOHANG)[0] == 0:
            assert time.monotonic() < deadline, "the viewer lives on without a terminal"
            time.sleep(0.05)
        terminal.exit_code = 0
    assert state(path) == "live"


def test_the_run_file_of_a_live_training_is_deleted(training: tuple[Path, int]) -> None:
    path, pid = training
    with Terminal("attach", str(path)) as terminal:
        terminal.wait_for("● live")
        path.unlink()
        wait_until(lambda: "was removed" in path.with_suffix(".log").read_text())
        terminal.settle(1.5)
        assert "Learning speed" in terminal.text
        os.kill(pid, 0)
        terminal.press("q")
        terminal.settle(0.5)
        terminal.press("l")
        assert terminal.wait_for_exit() == 0
    (line,) = path.with_suffix(".log").read_text().splitlines()
    assert line.startswith("gradtui: ") and "training goes on" in line


def test_the_window_is_resized(runs_in_tmp: Path) -> None:
    path = make_run(runs_in_tmp / "a.gradtui").path
    with Terminal("attach", str(path)) as terminal:
        terminal.wait_for("In words")
        for width, height, shown in ((60, 16, "fc4"), (40, 10, "needs 60×16"), (200, 60, "In words"), (80, 24, "fc4")):
            terminal.resize(width, height)
            terminal.wait_for(shown, 30)
        terminal.press("q")
        assert terminal.wait_for_exit() == 0


@pytest.mark.parametrize("environment", [{"TERM": "linux"}, {"LANG": "C"}, {"LC_ALL": "POSIX"}])
def test_where_only_ascii_can_be_shown_only_ascii_is_sent(environment: dict[str, str], runs_in_tmp: Path) -> None:
    path = make_run(runs_in_tmp / "a.gradtui", names=["[red]", "名前", "fc3", "fc4"]).path
    with Terminal("attach", str(path), **environment) as terminal:
        terminal.wait_for("Learning speed")
        terminal.press("n")
        terminal.wait_for("neuron 1 of 30")
        terminal.press("\x1b")
        terminal.wait_for("In words")
        terminal.press("?")
        terminal.wait_for("Keys")
        terminal.press("\x1b")
        terminal.settle(0.3)
        terminal.press("q")
        assert terminal.wait_for_exit() == 0
        assert ESCAPES.sub(b"", terminal.raw).isascii()


def test_without_colour_it_is_all_there(runs_in_tmp: Path) -> None:
    path = make_run(runs_in_tmp / "a.gradtui").path
    with Terminal("attach", str(path), NO_COLOR="1") as terminal:
        terminal.wait_for("In words")
        terminal.press("q")
        assert terminal.wait_for_exit() == 0


@pytest.mark.parametrize("term", ["xterm", "screen", "linux"])
def test_where_there_are_sixteen_colours_no_others_are_sent(term: str, runs_in_tmp: Path) -> None:
    path = make_run(runs_in_tmp / "a.gradtui").path
    with Terminal("attach", str(path), TERM=term) as terminal:
        terminal.wait_for("In words")
        terminal.press("q")
        assert terminal.wait_for_exit() == 0
        assert not re.search(rb"[\[;][34]8;[25];", terminal.raw) and b"\x1b[0;9" in terminal.raw


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_inside_tmux_keys_act_and_the_shells_line_stays_clean(runs_in_tmp: Path, tmp_path: Path) -> None:
    path = make_run(runs_in_tmp / "a.gradtui").path

    def tmux(*words: str) -> str:
        return subprocess.run(["tmux", "-S", str(tmp_path / "t"), *words], capture_output=True, text=True).stdout

    tmux("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40", "env PS1='ready> ' sh")
    try:
        tmux("send-keys", f"{GRADTUI} attach {path}", "Enter")
        for key, shown in (("", "In words"), ("m", "Update ratio"), ("?", "Keys")):
            tmux("send-keys", key) if key else None
            wait_until(lambda shown=shown: shown in tmux("capture-pane", "-p"))
        tmux("send-keys", "Escape")
        wait_until(lambda: "Keys" not in tmux("capture-pane", "-p"))
        tmux("send-keys", "q")
        wait_until(lambda: tmux("capture-pane", "-p").rstrip().endswith("ready>"))
        time.sleep(0.3)  # an answer of the terminal that came too late would be typed now
        assert tmux("capture-pane", "-p").rstrip().endswith("ready>")
    finally:
        tmux("kill-server")


def test_a_dumb_terminal_is_refused_in_one_line(runs_in_tmp: Path) -> None:
    with Terminal(TERM="dumb") as terminal:
        assert terminal.wait_for_exit() == 5
        assert len(terminal.raw.split(b"\n")) == 2 and b"TERM=dumb" in terminal.raw


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "is empty"), (b"garbage", "is not a gradtui run"), (None, "no such run file")]
)
def test_a_file_that_is_no_run(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.gradtui"
    if content is not None:
        path.write_bytes(content)
    with Terminal("attach", str(path)) as terminal:
        assert terminal.wait_for_exit() == 3
        assert says.encode() in terminal.raw and len(terminal.raw.strip().split(b"\n")) == 1


def test_there_is_no_such_run(runs_in_tmp: Path) -> None:
    for words, says in (((), b"no runs in"), (("nonsense",), b"no run named 'nonsense'")):
        with Terminal("attach", *words) as terminal:
            assert terminal.wait_for_exit() == 2
            assert says in terminal.raw and len(terminal.raw.strip().split(b"\n")) == 1
    make_run(runs_in_tmp / "one-1.gradtui")
    make_run(runs_in_tmp / "one-2.gradtui")
    with Terminal("attach", "one") as terminal:
        assert terminal.wait_for_exit() == 2
        assert b"could be any of 2 runs" in terminal.raw


def test_standard_error_that_is_no_terminal_is_refused(runs_in_tmp: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "gradtui"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 5


def test_attach_prefers_a_command_that_is_about_to_train_to_runs_before_it(runs_in_tmp: Path) -> None:
    make_run(runs_in_tmp / "old.gradtui")
    mark_starting(runs_in_tmp / "new.gradtui")
    with Terminal("attach") as terminal:
        terminal.wait_for("training is starting")
        make_run(runs_in_tmp / "new.gradtui", name="brand new")
        terminal.wait_for("brand new")
        terminal.press("q")
        assert terminal.wait_for_exit() == 0
    with Terminal("attach") as terminal:  # it has trained by now
        terminal.wait_for("Learning speed")
        terminal.press("q")
        assert terminal.wait_for_exit() == 0
