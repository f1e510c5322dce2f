"""The run file: one SQLite database a run, one writer, any number of readers.

| module      | what it holds                                                          |
| ----------- | ---------------------------------------------------------------------- |
| `schema`    | the tables, and the records that need no numpy                         |
| `blocks`    | the measures as numpy arrays                                           |
| `writer`    | `RunWriter`, used by the recorder inside the training process          |
| `retention` | what is kept of a run, so that its file stays small however long it is |
| `buckets`   | the overview: steps folded, by twos and twos, while they are written   |
| `summary`   | `RunMetadata`: what a list of runs shows; `request`: asking a training   |
| `reader`    | `RunReader`, used by viewers: newer rows, a thinned overview, a window |
| `liveness`  | whether a run is live, done or died                                    |

Only numpy and the standard library are needed, here and to read a run file without gradtui. Each name is loaded when
it is first used, so that a list of runs loads no numpy, a viewer no writer, and a training no reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradtui.runfile.blocks import NOT_MEASURED, Aggregates, NeuronGrads, Rows, Scalars, ThroughTime, is_measured
    from gradtui.runfile.liveness import Status
    from gradtui.runfile.reader import RunReader, open_run
    from gradtui.runfile.retention import Limits
    from gradtui.runfile.schema import SCHEMA_VERSION, Event, Finding, Header, Layer, Measure, Outcome
    from gradtui.runfile.summary import RunMetadata, request
    from gradtui.runfile.writer import RunWriter

_HOME = {
    "blocks": ("NOT_MEASURED", "Aggregates", "NeuronGrads", "Rows", "Scalars", "ThroughTime", "is_measured"),
    "summary": ("RunMetadata", "request"),
    "liveness": ("Status",),
    "reader": ("RunReader", "open_run"),
    "schema": ("SCHEMA_VERSION", "Event", "Finding", "Header", "Layer", "Measure", "Outcome", "Pictures"),
    "retention": ("Limits",),
    "writer": ("RunWriter",),
}
__all__ = [
    "NOT_MEASURED",
    "SCHEMA_VERSION",
    "Aggregates",
    "Event",
    "Finding",
    "Header",
    "Layer",
    "Limits",
    "Measure",
    "NeuronGrads",
    "Outcome",
    "Pictures",
    "Rows",
    "RunMetadata",
    "RunReader",
    "RunWriter",
    "Scalars",
    "Status",
    "ThroughTime",
    "is_measured",
    "open_run",
    "request",
]


def __getattr__(name: str) -> Any:
    """Load a name from its module."""
    from importlib import import_module

    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"gradtui.runfile.{module}"), name)
    raise AttributeError(f"module 'gradtui.runfile' has no attribute {name!r}")
