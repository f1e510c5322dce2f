"""`gradtui run`: what is said before and after somebody's command, and where its viewer opens."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from errno import EACCES
from pathlib import Path

from gradtui.errors import GradtuiError, UsageError
from gradtui.options import options_from_flags
from gradtui.recorded_command import Command, end_as, prepare, wait_for

ILL = 10  # exit code if a run has a finding that --fail-on names
NOTHING_RECORDED = 11  # exit code if there was nothing that --fail-on could look at

View = Callable[..., int]


def run_command(options: argparse.Namespace, folder: Path, view: View) -> int:
    """Run the command; does not return where nothing is left to do after it."""
    kinds = _kinds(options.fail_on)
    how = options_from_flags(options, folder)
    _check_folder(folder)
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    command = prepare(words, how, lists_runs=bool(kinds))
    if options.watch and "TMUX" not in os.environ:
        code = _run_behind_viewer(command, view)
    else:
        if options.watch:
            _open_pane(command)
        _say(f"what this trains is recorded as {command.run_id}; `gradtui attach {_attach(command)}` shows it")
        command.request.mark_pending()
        if not kinds:
            command.replace_this_process()
        code = wait_for(command.start())
    if kinds and code == 0:
        return _verdict(command.request.runs(), kinds)
    return end_as(code)


def _check_folder(folder: Path) -> None:
    """Raise `GradtuiError` if no run can be kept there: better now than after an hour of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(EACCES, os.strerror(EACCES))
    except OSError as error:
        raise GradtuiError(f"cannot keep runs in {folder}: {error.strerror}; --dir names another place") from error


def _kinds(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset()
    from gradtui.diagnosis import KINDS

    named = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in named if word not in KINDS and word != "any"]
    if unknown or not named:
        raise UsageError(f"--fail-on {text}: the findings are {', '.join(KINDS)}; or any")
    return frozenset([*KINDS, "any"] if "any" in named else named)


def _verdict(runs: Sequence[Path], kinds: frozenset[str]) -> int:
    """Look at the runs that were recorded; the exit code."""
    from gradtui.diagnosis import diagnose_run

    if not any(_has_layers(path) for path in runs):
        _say("nothing was recorded, so --fail-on had nothing to look at")
        return NOTHING_RECORDED
    code = 0
    for path in runs:
        for finding in diagnose_run(path):
            if finding.kind in kinds and not (finding.note and "any" in kinds):  # what may well be meant
                code = ILL
                _say(f"{path.stem}: {finding}")
    return code


def _has_layers(path: Path) -> bool:
    from gradtui.runfile import RunMetadata

    with RunMetadata(path) as run:
        return bool(run.layer_count())


def _open_pane(command: Command) -> None:
    """The viewer in a pane of its own beside the command or below it, or in a window where neither has room for it."""
    from gradtui.tui.widgets.too_small import LEAST_HEIGHT, LEAST_WIDTH

    viewer = [sys.executable, "-m", "gradtui", "attach", "--wait", str(command.request.path)]
    done = _tmux("display-message", "-p", "#{pane_width} #{pane_height}")
    width, height = (int(number) for number in done.stdout.split()) if done.returncode == 0 else (0, 0)
    if (width - 1) // 2 >= LEAST_WIDTH:
        done = _tmux("split-window", "-h", "-d", *viewer)
    elif (height - 1) // 2 >= LEAST_HEIGHT:
        done = _tmux("split-window", "-v", "-d", *viewer)
    else:
        done = _tmux("new-window", "-n", "gradtui", *viewer)
    if done.returncode:
        raise GradtuiError(f"tmux opened no pane for the viewer: {done.stderr.strip()}; leave --watch out")


def _tmux(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["tmux", *words], capture_output=True, text=True, check=False)


def _run_behind_viewer(command: Command, view: View) -> int:
    """The viewer here and the command behind it; its output goes to a log, and follows when the viewer is left."""
    from gradtui.lab.background import Launch
    from gradtui.tui.terminal import check_terminal

    check_terminal()
    path = command.request.path
    log = path.with_suffix(".log")
    path.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = command.start(stdin=subprocess.DEVNULL, stdout=output.fileno(), stderr=output.fileno())
    view(run=path, launch=Launch(path, log, child))
    if child.poll() is None:
        _say(f"{command.run_id} goes on; this is its output, which is also in {log}")
    _follow(log, child)
    return wait_for(child)


def _follow(log: Path, child: subprocess.Popen[bytes]) -> None:
    """Copy the command's output until it has ended."""
    with log.open("rb") as output:
        while True:
            ended = child.poll() is not None
            piece = output.read()
            if piece:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            elif ended:
                return
            else:
                time.sleep(0.1)


def _attach(command: Command) -> str:
    """What `gradtui attach` needs to find the run: its id where it looks by itself, else the file."""
    from gradtui.runfolder import runs_folder

    path = command.request.path
    return path.stem if path.parent == runs_folder().absolute() else str(path)


def _say(text: str) -> None:
    print(f"gradtui: {text}", file=sys.stderr, flush=True)
