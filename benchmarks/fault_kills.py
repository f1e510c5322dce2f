"""Kills trainings, their parents, viewers and whole groups at random times, and looks at what is left.

After each: the next `gradtui` command deletes what was left; every run file opens, or is called damaged in one line;
what the training did, which it notes in a file of its own, is in the run but for the last moment.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import random
import shutil
import statistics
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fault_process as process
import torch
from fault_result import Result
from torch import nn

import gradtui
from gradtui import cli
from gradtui.errors import GradtuiError
from gradtui.record.autoattach import AutoRecorder
from gradtui.recorded_command import Command
from gradtui.run_request import RunRequest
from gradtui.runfile import open_run
from gradtui.runfile import writer as writer_module

KINDS = ("training", "parent", "viewer", "group")
EARLY = 0.08  # s in which a run is made; 4 kills in 10 come within
LATEST = 1.2  # s
WORKERS = 2
USUAL_FLUSH = writer_module.FLUSH_EVERY
MOST_LOST = 1.0  # s, in the median
NOTE = struct.Struct("<qd")  # step, time


@dataclass
class Killed:
    """One kill, and what was found after it."""

    number: int
    kind: str
    lost: float | None = None  # s of training that are not in the run; None if it was not the training that was killed
    runs: int = 0
    damaged: int = 0
    problems: list[str] = field(default_factory=list)


def run(count: int, seed: int) -> list[Result]:
    """Kill `count` times; the figures."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:

        def share(worker: int) -> list[Killed]:
            process.adopt_orphans()
            os.environ["TMPDIR"] = tempfile.tempdir = str(_new(Path(folder) / f"tmp{worker}"))
            import gradtui.tui.app  # noqa: F401  a viewer starts in milliseconds too

            _train_watched(_new(Path(folder) / f"first{worker}"), 0.01)  # and what is imported at a first step is there
            numbers = range(worker, count, WORKERS)
            return [one_kill(number, seed, Path(folder) / f"{number}") for number in numbers]

        kills = list(process.in_workers(share, list(range(min(WORKERS, count)))))
    return _figures(kills)


def one_kill(number: int, seed: int, folder: Path) -> Killed:
    """Start something, kill it, and look."""
    chance = random.Random(f"{seed}/{number}")
    # commits come four times a second; with more of them, more kills are in the middle of one
    writer_module.FLUSH_EVERY = chance.choice((USUAL_FLUSH, USUAL_FLUSH, 0.01))
    kind = KINDS[number % len(KINDS)]
    delay = chance.uniform(0, EARLY) if chance.random() < 0.4 else chance.uniform(EARLY, LATEST)
    killed = Killed(number, kind)
    try:
        _BY_KIND[kind](killed, delay, _new(folder))
        _look(killed, folder)
    except Exception as error:
        killed.problems.append(f"{type(error).__name__}: {error}")
    if not killed.problems:
        shutil.rmtree(folder, ignore_errors=True)
    return killed


# -- what is killed -----------------------------------------------------------------------------------------------


def _kill_training(killed: Killed, delay: float, folder: Path) -> None:
    pid = process.fork(lambda: _train_watched(folder, 60.0), folder / "output")
    time.sleep(delay)
    process.kill(pid)
    process.wait(pid)
    killed.lost = _lost(folder)


def _kill_parent(killed: Killed, delay: float, folder: Path) -> None:
    """`gradtui run` is killed; the training in its command goes on, and ends well."""
    pid = process.fork(lambda: _run_command(folder, delay + 0.3), folder / "output")
    time.sleep(delay)
    process.kill(pid)
    process.wait(pid)
    with contextlib.suppress(OSError, ValueError):
        child = int((folder / "pid").read_text())
        code = process.wait(child)
        if code not in (0, None):
            killed.problems.append(f"the training ended with {code}")
        elif (folder / "ended").exists():
            _check_whole(killed, folder)


def _kill_group(killed: Killed, delay: float, folder: Path) -> None:
    pid = process.fork(lambda: _run_command(folder, 60.0), folder / "output")
    time.sleep(delay)
    process.kill(pid, group=True)
    process.wait(pid)
    with contextlib.suppress(OSError, ValueError):
        process.wait(int((folder / "pid").read_text()), 5.0)
    killed.lost = _lost(folder)


def _kill_viewer(killed: Killed, delay: float, folder: Path) -> None:
    """A viewer that is open on a training is killed; the training ends well."""
    training = process.fork(lambda: _train_watched(folder, delay + 0.3), folder / "output")
    viewer, terminal = pty.fork()
    if viewer == 0:
        os.environ["TERM"] = "xterm-256color"
        process.become(lambda: cli.main(["attach", "--dir", str(_runs(folder))]), None, own_group=False)
    until = time.monotonic() + delay
    os.set_blocking(terminal, False)
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            os.read(terminal, 1 << 16)
        time.sleep(0.01)
    process.kill(viewer)
    process.wait(viewer)
    os.close(terminal)
    code = process.wait(training)
    if code != 0:
        killed.problems.append(f"the training ended with {code}")
    else:
        _check_whole(killed, folder)


_BY_KIND: Mapping[str, Callable[[Killed, float, Path], None]] = {
    "training": _kill_training,
    "parent": _kill_parent,
    "viewer": _kill_viewer,
    "group": _kill_group,
}


# -- in the processes that are killed -----------------------------------------------------------------------------


def _train_watched(folder: Path, seconds: float) -> None:
    net, optimizer = _net()
    with gradtui.watch(net, optimizer, every=1, name="net", folder=_runs(folder)):
        _train(net, optimizer, folder, seconds)


def _run_command(folder: Path, seconds: float) -> int:
    """`gradtui run`, whose command is forked instead of started."""

    class Child:
        def __init__(self, environment: Mapping[str, str]) -> None:
            self.pid = os.fork()
            if self.pid == 0:
                os.environ.update(environment)
                process.become(lambda: _train_by_command(folder, seconds), None, own_group=False)

        def wait(self) -> int:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

        def send_signal(self, number: int) -> None:
            os.kill(self.pid, number)

    def start(command: Command, **_: int) -> Any:
        return Child(command.environment)

    Command.start = start  # type: ignore[method-assign]
    return cli.main(["run", "--dir", str(_runs(folder)), "--every", "1", "--fail-on", "nan", "true"])


def _train_by_command(folder: Path, seconds: float) -> None:
    (folder / "pid").write_text(str(os.getpid()))
    request = RunRequest.given(os.environ)
    assert request is not None
    AutoRecorder(request).begin()
    net, optimizer = _net()
    _train(net, optimizer, folder, seconds)
    (folder / "ended").touch()


def _net() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    return net, torch.optim.SGD(net.parameters(), 0.01)


def _train(net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, seconds: float) -> None:
    """Train, and note each step in a file of its own once it has been taken."""
    data = torch.ones(4, 8)
    until = time.monotonic() + seconds
    with (folder / "notes").open("ab", buffering=0) as notes:
        step = 0
        while time.monotonic() < until:
            optimizer.zero_grad()
            net(data).square().mean().backward()
            optimizer.step()
            step += 1
            notes.write(NOTE.pack(step, time.time()))
            time.sleep(0.001)


# -- what is looked at --------------------------------------------------------------------------------------------


def _look(killed: Killed, folder: Path) -> None:
    """The next command, what it leaves, and every run."""
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = cli.main(["runs", "--dir", str(_new(_runs(folder)))])
    if code or said.getvalue():
        killed.problems.append(f"`gradtui runs` ended with {code}: {said.getvalue()!r}")
    left = [path.name for path in _runs(folder).iterdir() if path.suffix not in (".gradtui", ".log")]
    left += [str(path) for path in Path(tempfile.gettempdir()).glob("gradtui*")]
    if left:
        killed.problems.append(f"left behind: {', '.join(left)}")
    for path in _runs(folder).glob("*.gradtui"):
        killed.runs += 1
        try:
            with open_run(path) as reader:
                reader.layers(), reader.newer(0), reader.findings(), reader.events(), reader.status()
        except GradtuiError as error:
            killed.damaged += 1
            if "\n" in str(error):
                killed.problems.append(f"said in several lines: {error}")
    output = (folder / "output").read_text(errors="replace") if (folder / "output").exists() else ""
    if "Traceback" in output or "gradtui: " in output.replace("gradtui: recording to", ""):
        killed.problems.append(output.strip().splitlines()[-1])


def _lost(folder: Path) -> float | None:
    """Seconds of training between the last step that the run has and the last that was taken.

    None where no step was taken, and where more was written than usually is.
    """
    notes = _notes(folder)
    if not notes or writer_module.FLUSH_EVERY < USUAL_FLUSH:
        return None
    recorded = 0
    for path in _runs(folder).glob("*.gradtui"):
        with contextlib.suppress(GradtuiError), open_run(path) as reader:
            recorded = max(recorded, (reader.span() or (0, 0))[1])
    when = dict(notes)
    return max(0.0, notes[-1][1] - when.get(recorded, notes[-1][1] if recorded > notes[-1][0] else notes[0][1]))


def _check_whole(killed: Killed, folder: Path) -> None:
    """A training that was not killed has ended well, and has all of its steps in its run."""
    taken = len(_notes(folder))
    found = list(_runs(folder).glob("*.gradtui"))
    if len(found) != 1:
        killed.problems.append(f"{len(found)} runs of one training")
    for path in found:
        with open_run(path) as reader:
            state, rows = reader.status().state, len(reader.newer(0, 1 << 20))
        if state != "finished" or rows != taken:
            killed.problems.append(f"the run is {state}, with {rows} of {taken} steps")


def _notes(folder: Path) -> list[tuple[int, float]]:
    with contextlib.suppress(OSError):
        content = (folder / "notes").read_bytes()
        return list(NOTE.iter_unpack(content[: len(content) // NOTE.size * NOTE.size]))
    return []


def _runs(folder: Path) -> Path:
    return folder / "runs"


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _figures(kills: list[Killed]) -> list[Result]:
    by_kind = Counter(one.kind for one in kills)
    lost = sorted(one.lost for one in kills if one.lost is not None)
    problems = [f"kill {one.number} ({one.kind}): {problem}" for one in kills for problem in one.problems]
    median = statistics.median(lost) if lost else 0.0
    runs, damaged = sum(one.runs for one in kills), sum(one.damaged for one in kills)
    return [
        Result("killed", ", ".join(f"{kind} {by_kind[kind]:,}" for kind in KINDS), True),
        Result("run files that open", f"{runs - damaged:,} of {runs:,}, {damaged} called damaged", not damaged),
        Result(
            "training that was lost",
            f"median {median:.2f} s, longest {max(lost, default=0):.2f} s, of {len(lost):,} kills",
            median <= MOST_LOST,
        ),
        Result("anything else", "; ".join(problems[:5]) or "nothing left behind, no traceback", not problems),
    ]
