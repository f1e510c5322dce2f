"""See how fast every layer of a neural network learns.

`watch(model, optimizer)` records a training into a run file; `open_run(path)` reads one; `runs()` lists them.
Importing this module imports neither torch nor textual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradtui.record.recorder import Recorder
    from gradtui.record.watching import watch
    from gradtui.runfile import RunReader, open_run
    from gradtui.runfolder import RunSummary, runs

__version__ = "0.1.0"
__all__ = ["Recorder", "RunReader", "RunSummary", "open_run", "runs", "watch"]

_HOME = {
    "Recorder": "gradtui.record.recorder",
    "watch": "gradtui.record.watching",
    "RunReader": "gradtui.runfile",
    "open_run": "gradtui.runfile",
    "RunSummary": "gradtui.runfolder",
    "runs": "gradtui.runfolder",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'gradtui' has no attribute {name!r}")
    from importlib import import_module

    from gradtui.errors import needs_extra

    with needs_extra("lab"):
        return getattr(import_module(_HOME[name]), name)
