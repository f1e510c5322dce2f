"""The run file: one SQLite database a run, one writer, any number of readers.

| module     | what it holds                                                        |
| ---------- | -------------------------------------------------------------------- |
| `schema`   | the tables, and the records that cross the file                      |
| `writer`   | `RunWriter`, used by the recorder inside the training process        |
| `reader`   | `RunReader`, used by viewers: newer rows, a thinned overview, a window |
| `liveness` | whether a run is live, done or died                                  |

Only numpy and the standard library are needed, here and to read a run file without gradtui.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradtui.runfile.liveness import Status
from gradtui.runfile.schema import (
    NOT_MEASURED,
    SCHEMA_VERSION,
    Envelope,
    Event,
    Header,
    Layer,
    Measure,
    NeuronGrads,
    Outcome,
    Rows,
    Scalars,
    is_measured,
)

if TYPE_CHECKING:
    from gradtui.runfile.reader import RunReader, open_run, request
    from gradtui.runfile.writer import RunWriter

__all__ = [
    "NOT_MEASURED",
    "SCHEMA_VERSION",
    "Envelope",
    "Event",
    "Header",
    "Layer",
    "Measure",
    "NeuronGrads",
    "Outcome",
    "Rows",
    "RunReader",
    "RunWriter",
    "Scalars",
    "Status",
    "is_measured",
    "open_run",
    "request",
]

_HOME = {"RunReader": "reader", "open_run": "reader", "request": "reader", "RunWriter": "writer"}


def __getattr__(name: str) -> Any:
    """A viewer loads no writer, a training no reader."""
    if name not in _HOME:
        raise AttributeError(f"module 'gradtui.runfile' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"gradtui.runfile.{_HOME[name]}"), name)
