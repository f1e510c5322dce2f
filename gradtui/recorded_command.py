"""Starts any command so that the trainings in it are recorded, and changes nothing else about it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from gradtui.errors import UsageError
from gradtui.masking import MASK, masked
from gradtui.options import RecordOptions
from gradtui.python_command import python_command
from gradtui.run_request import RunRequest
from gradtui.runfile.private_files import create, draft_of

STARTUP = Path(__file__).parent / "record" / "startup"
COMMAND_NOT_FOUND = 127  # as shells have it
LAUNCHERS = (
    "torchrun",
    "accelerate",
    "python",
    "python3",
    "uv",
    "poetry",
    "pipenv",
    "env",
    "nice",
    "time",
    "launch",
    "run",
)
PASSED_ON = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGWINCH")  # a terminal sends the others itself


class CommandNotFoundError(UsageError):
    """There is no such command."""

    exit_code = COMMAND_NOT_FOUND


@dataclass
class Command:
    """A command, and the environment in which the trainings in it are recorded.

    `tells` is true if it says by itself at its end that nothing was recorded.
    """

    words: list[str]
    request: RunRequest
    environment: dict[str, str] = field(default_factory=dict)
    tells: bool = False

    @property
    def run_id(self) -> str:
        """The run that its first training will write."""
        return self.request.path.stem

    def replace_this_process(self) -> None:
        """Become the command: its exit code, signals and streams are its own. Does not return."""
        sys.stdout.flush()
        sys.stderr.flush()
        os.execvpe(self.words[0], self.words, self.environment)

    def start(self, **streams: int) -> subprocess.Popen[bytes]:
        """Start it as a child."""
        return subprocess.Popen(self.words, env=self.environment, **streams)  # type: ignore[call-overload,no-any-return]


class Launched(Protocol):
    """A training in another process, which may not have its run file yet."""

    @property
    def path(self) -> Path:
        """The run file that it writes."""

    def trouble(self) -> str | None:
        """None while it is starting or running; otherwise one line on how it ended without a run."""

    def log_tail(self) -> tuple[str, ...]:
        """The last lines that it printed."""

    def stop(self) -> None:
        """Stop it, if it was started from here."""


@dataclass(frozen=True)
class Awaited:
    """A run that a training will write which was not started from here."""

    path: Path

    def trouble(self) -> str | None:
        """None: its process is not known here."""
        return None

    def log_tail(self) -> tuple[str, ...]:
        """Nothing: its output is not known here."""
        return ()

    def stop(self) -> None:
        """Nothing: it was not started from here."""


def prepare(words: Sequence[str], options: RecordOptions, *, lists_runs: bool = False) -> Command:
    """The command, with what its Python processes have to know; with `lists_runs`, `RunRequest.runs` has their runs.

    Raises:
        UsageError: there is no command, or it cannot be found.
    """
    from gradtui.runfolder import new_run_path, reserve, runs_folder

    if not words:
        raise UsageError("give the command that trains: gradtui run python train.py")
    words = list(words)
    if shutil.which(words[0]) is None:
        if not (words[0].endswith(".py") and Path(words[0]).is_file()):
            raise CommandNotFoundError(f"command not found: {words[0]!r}; give it as you would without gradtui run")
        words.insert(0, sys.executable)
    folder = runs_folder(options.folder).absolute()
    name = options.name or name_of(words)
    try:
        path = reserve(name, folder)
    except OSError:  # the training tells why
        path = new_run_path(name, folder)
    python = python_command(words)
    leads = python is not None and python.is_blind and python.can_be_led
    if python is not None and leads:
        words = python.led()
    request = RunRequest(
        path,
        replace(options, folder=folder),
        _new_run_list(path) if lists_runs else None,
        attach=path.stem if folder == runs_folder().absolute() else str(path),
    )
    # a script's own `gradtui.watch` writes to the same folder, also where the environment has no platformdirs
    environment = {**os.environ, "GRADTUI_DIR": str(folder), **request.environment()}
    before = os.environ.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(STARTUP), *([before] if before else [])])
    return Command(words, request, environment, tells=python is not None and (leads or not python.is_blind))


def _new_run_list(run: Path) -> Path:
    """An empty list of runs, beside them; what is left of it if this process is killed, the next command deletes."""
    path = draft_of(run.with_suffix(".runs"))
    os.close(create(path))
    return path


def name_of(words: Sequence[str]) -> str:
    """What a run is called: the script or the module of the command, e.g. `train` of `torchrun --nnodes 1 train.py`."""
    script = next((word for word in words if word.endswith(".py") and not word.startswith("-")), None)
    if script is not None:
        return Path(script).stem
    if "-m" in words and words.index("-m") + 1 < len(words):
        return words[words.index("-m") + 1].rpartition(".")[2]
    plain = [
        Path(word).stem for word in masked(words) if MASK not in word and not word.startswith("-") and "=" not in word
    ]
    return next((word for word in plain if word not in LAUNCHERS), "training")


def wait_for(child: subprocess.Popen[bytes]) -> int:
    """Wait for the command, passing on signals; its exit code as a shell gives it."""
    for number in (getattr(signal, name) for name in PASSED_ON if hasattr(signal, name)):
        signal.signal(number, lambda signum, _: child.send_signal(signum))
    # these come from the terminal to both: the command decides what they mean
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    code = child.wait()
    return code if code >= 0 else 128 - code


def end_as(code: int) -> int:
    """End as the command did: killed by the same signal, if it was."""
    if code > 128 and code - 128 in {int(number) for number in signal.valid_signals()}:
        number = code - 128
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return code
