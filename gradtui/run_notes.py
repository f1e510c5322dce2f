"""What the processes of a command note until one of them records a run, and what their notes say if none does.

The notes are lines of the file by which `gradtui run` tells that a run is to come; it goes with the first run. The
Python of the command loads this file by itself, before anything else: it needs no library, nor a newer Python than 3.7.
"""

import os
from pathlib import Path

STARTING = "-starting"  # ends the name of that file
HEAD = 3  # its first lines: machine, number and start of the process that tells at its end that nothing was recorded
MOST = 100_000  # bytes of it that are read

PYTHON = "python"  # a Python that can be looked into has started
NO_TORCH = "no torch"  # it imported torch, and has none: its path
TORCH = "torch"  # it has imported torch
HIDDEN = "hidden"  # gradients that could not be looked at: how many calls took them
SAID = "said"  # the reason has been told


def add(path: str, kind: str, detail: str = "") -> None:
    """Add a note to the file beside the run `path`, once, while there is one."""
    line = (kind + "\t" + detail).replace("\n", " ")
    try:
        if line not in _lines(path)[HEAD:]:
            file = os.open(path + STARTING, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0))
            try:
                os.write(file, ("\n" + line).encode("utf-8", "replace"))
            finally:
                os.close(file)
    except OSError:
        pass  # there is a run, or no room for notes


def tells(path: str) -> bool:
    """True if this process is the one that tells at its end that nothing was recorded."""
    try:
        return _lines(path)[1:2] == [str(os.getpid())]
    except OSError:
        return False


def end(path: str) -> str:
    """Take the file away at the end of the command; why nothing was recorded, "" if something was or it was told."""
    try:
        notes = _lines(path)[HEAD:]
        Path(path + STARTING).unlink()
    except OSError:
        return ""
    return why_nothing(notes)


def why_nothing(notes: "list[str]") -> str:
    """Why no run was recorded, by the notes; "" if it has been told."""
    found = {}  # type: dict[str, str]
    for note in notes:
        kind, _, detail = note.partition("\t")
        found.setdefault(kind, detail)
    if SAID in found:
        return ""
    if HIDDEN in found:
        return f"{found[HIDDEN]} gradients were taken inside a transform that cannot be looked into"
    if TORCH in found:
        return "no optimizer took a step, and no parameters changed between two gradients"
    if NO_TORCH in found:
        return f"torch is not installed in {found[NO_TORCH]}"
    if PYTHON in found:
        return "torch was not imported"
    return "the command started no Python that can be looked into; -I, -S and -E in a script prevent it"


def _lines(path: str) -> "list[str]":
    with open(path + STARTING, "rb") as file:  # noqa: PTH123  # as light as can be: every Python does this first
        return file.read(MOST).decode("utf-8", "replace").split("\n")
