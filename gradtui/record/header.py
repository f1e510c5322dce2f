"""What a run says about the process that records it."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gradtui.masking import masked
from gradtui.options import RecordOptions
from gradtui.runfile import Header
from gradtui.runfile.liveness import machine_identity, process_start


def script_name(arguments: Sequence[str]) -> str:
    """A name for a run, from the script that makes it: "train" for ["/home/me/train.py", …]."""
    script = Path(arguments[0]) if arguments and arguments[0] else Path("training")
    if script.stem == "__main__":
        return script.parent.name or "training"
    if script.stem.startswith("ipykernel"):
        return "notebook"
    return script.stem.strip("-") if len(script.stem) > 2 or not script.stem.startswith("-") else "training"


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run says of its training, beside how it is recorded.

    Attributes:
        total_steps: how many steps the training will take, if known.
        total_epochs: how many epochs it will take, if known.
        takes_commands: what a viewer may ask of it.
        recipe: everything that defines a built-in training.
        command: the command line that is shown; the process's own by default.
        log_file: where the training's own output goes, if it is a file.
    """

    total_steps: int | None = None
    total_epochs: float | None = None
    takes_commands: Sequence[str] = ()
    recipe: dict[str, Any] | None = None
    command: Sequence[str] | None = None
    log_file: str | None = None


def make_header(name: str, options: RecordOptions, facts: RunFacts) -> Header:
    """The header of a run that starts now, in this process."""
    from gradtui import __version__

    return Header(
        name=name,
        command=masked(sys.orig_argv if facts.command is None else facts.command),
        recipe=facts.recipe,
        started=time.time(),
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=machine_identity(),
        process_start=process_start(os.getpid()) or "",
        versions={"python": platform.python_version(), "torch": str(torch.__version__), "gradtui": __version__},
        sampling=str(options),
        total_steps=facts.total_steps,
        total_epochs=facts.total_epochs,
        takes_commands=list(facts.takes_commands),
        log=facts.log_file,
        options=options.to_json(),
        thresholds=options.limits().to_json(),
    )
