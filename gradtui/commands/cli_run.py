"""`gradtui run`: record the training in somebody's command; what is printed around it, where its viewer opens."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradtui.commands.open_viewer import add_folder_flag, folder_of, view
from gradtui.errors import GradtuiError, UsageError, say_on_stderr
from gradtui.options import add_record_flags, options_from_flags
from gradtui.recorded_command import Command, end_as, prepare, wait_for
from gradtui.runfile.private_files import create
from gradtui.runfolder import check_folder

FOUND = 10  # exit code if a run has a finding that --fail-on names
NOTHING_RECORDED = 11  # exit code if there was no run for --fail-on to check
DESCRIPTION = """\
Record the trainings in any command that you have, unmodified:

  gradtui run python train.py --epochs 90
  gradtui run torchrun --nproc-per-node 8 train.py
  gradtui run --watch python -m my_project.train       # with the viewer beside it
  gradtui run --fail-on nan,exploding python train.py  # exit code 10 if a problem is found

Every Python process of the command is inspected once it imports torch: its optimizers, or parameters that change
without one, show what it trains. Exit code, signals and streams stay the command's own. --fail-on checks the runs when
the command has succeeded: exit code 10 stands for a finding, 11 for no run.
"""


def add_parser(commands: Any, is_given: bool) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "run",
        help="record the training in any command, unmodified: gradtui run python train.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="gradtui run [options] COMMAND …",
    )
    add_record_flags(parser)
    parser.add_argument("--watch", action="store_true", help="open the viewer: in a tmux pane beside it, else here")
    parser.add_argument(
        "--fail-on",
        metavar="FINDINGS",
        help="end with exit code 10 if the run has one of these findings, e.g. nan,exploding; or any",
    )
    add_folder_flag(parser)
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command, as you would type it"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; does not return where nothing is left to do after it."""
    kinds = _kinds(options.fail_on)
    folder = folder_of(options)
    record = options_from_flags(options, folder)
    check_folder(folder)
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    command = prepare(words, record, lists_runs=bool(kinds))
    if options.watch and "TMUX" not in os.environ:
        code = _run_behind_viewer(command, options)
    else:
        if options.watch:
            _open_pane(command)
        if command.tells and not kinds:
            command.replace_this_process()
        code = wait_for(command.start())
    why = command.request.why_nothing()
    if why:
        say_on_stderr(f"nothing was recorded: {why}")
    runs = command.request.runs()
    command.request.close()
    return _verdict(runs, kinds) if kinds and code == 0 else end_as(code)


def _kinds(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset()
    from gradtui.diagnosis import FINDINGS, kinds_in_order
    from gradtui.runfile.schema import OLD_KINDS

    named = [OLD_KINDS.get(word.strip(), word.strip()) for word in text.split(",") if word.strip()]
    unknown = [word for word in named if word not in FINDINGS and word != "any"]
    if unknown or not named:
        raise UsageError(
            f"--fail-on {text}: the findings are {', '.join(kind.name for kind in kinds_in_order())}; or any"
        )
    return frozenset(named)


def _verdict(runs: Sequence[Path], kinds: frozenset[str]) -> int:
    """Check the runs that were recorded; the exit code."""
    from gradtui.diagnosis import diagnose

    if not any(_has_layers(path) for path in runs):
        say_on_stderr("--fail-on: no run was recorded")
        return NOTHING_RECORDED
    code = 0
    for path in runs:
        for finding in diagnose(path):
            is_named = finding.kind in kinds or ("any" in kinds and not finding.note)  # a note: it may be meant
            if is_named and not finding.cleared:
                code = FOUND
                say_on_stderr(f"{path.stem}: {finding}")
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


def _run_behind_viewer(command: Command, options: argparse.Namespace) -> int:
    """The viewer here and the command behind it; its output goes to a log, and is printed when the viewer is left."""
    from gradtui.lab.background import Launch
    from gradtui.tui.terminal import check_terminal

    check_terminal()
    path = command.request.path
    log = path.with_suffix(".log")
    with os.fdopen(create(log), "wb") as output:
        child = command.start(stdin=subprocess.DEVNULL, stdout=output.fileno(), stderr=output.fileno())
    view(options, run=path, launch=Launch(path, log, child))
    if child.poll() is None:
        say_on_stderr(f"{command.run_id} is still running; its output follows, and is in {log} too")
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
