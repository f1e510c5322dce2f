"""What a run says about the process that records it."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

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


def make_header(
    name: str,
    sampling: str,
    *,
    command: Sequence[str] | None = None,
    recipe: dict[str, Any] | None = None,
    total_steps: int | None = None,
    total_epochs: float | None = None,
    takes_commands: Sequence[str] = (),
    log_file: str | None = None,
) -> Header:
    """The header of a run that starts now, in this process."""
    from gradtui import __version__

    return Header(
        name=name,
        command=list(sys.orig_argv if command is None else command),
        recipe=recipe,
        started=time.time(),
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=machine_identity(),
        process_start=process_start(os.getpid()) or "",
        versions={"python": platform.python_version(), "torch": str(torch.__version__), "gradtui": __version__},
        sampling=sampling,
        total_steps=total_steps,
        total_epochs=total_epochs,
        takes_commands=list(takes_commands),
        log=log_file,
    )
