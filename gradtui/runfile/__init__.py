"""The run file: one SQLite database a run, one writer, any number of readers.

| module      | what it holds                                                          |
| ----------- | ---------------------------------------------------------------------- |
| `schema`    | the tables, and the records that need no numpy                         |
| `blocks`    | the measures as numpy arrays                                           |
| `writer`    | `RunWriter`, used by the recorder inside the training process          |
| `retention` | what is kept of a run, so that its file stays small however long it is |
| `buckets`   | the overview: steps folded, by twos and twos, while they are written   |
| `summary`   | `RunMetadata`: what a list of runs shows; `request`: asking a training   |
| `hardening` | what keeps a reader from running, hanging over or filling up with a file |
| `checked`   | what a value of a run file may be                                      |
| `records`   | rows as records, each value checked                                    |
| `reader`    | `RunReader`, used by viewers: newer rows, a thinned overview, a window |
| `liveness`  | whether a run is live, done or died                                    |

Only numpy and the standard library are needed, here and to read a run file without gradtui. Each name is loaded when
it is first used, so that a list of runs loads no numpy, a viewer no writer, and a training no reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradtui.lazy import lazy_exports

if TYPE_CHECKING:
    from gradtui.runfile.blocks import NOT_MEASURED as NOT_MEASURED
    from gradtui.runfile.blocks import Aggregates as Aggregates
    from gradtui.runfile.blocks import NeuronGrads as NeuronGrads
    from gradtui.runfile.blocks import Rows as Rows
    from gradtui.runfile.blocks import Scalars as Scalars
    from gradtui.runfile.blocks import ThroughTime as ThroughTime
    from gradtui.runfile.blocks import is_measured as is_measured
    from gradtui.runfile.liveness import Status as Status
    from gradtui.runfile.reader import RunReader as RunReader
    from gradtui.runfile.reader import open_run as open_run
    from gradtui.runfile.retention import Limits as Limits
    from gradtui.runfile.schema import SCHEMA_VERSION as SCHEMA_VERSION
    from gradtui.runfile.schema import Event as Event
    from gradtui.runfile.schema import Finding as Finding
    from gradtui.runfile.schema import Header as Header
    from gradtui.runfile.schema import Layer as Layer
    from gradtui.runfile.schema import Measure as Measure
    from gradtui.runfile.schema import Outcome as Outcome
    from gradtui.runfile.schema import Pictures as Pictures
    from gradtui.runfile.schema import Schedule as Schedule
    from gradtui.runfile.summary import RunMetadata as RunMetadata
    from gradtui.runfile.summary import request as request
    from gradtui.runfile.writer import RunWriter as RunWriter

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "gradtui.runfile.blocks": "NOT_MEASURED Aggregates NeuronGrads Rows Scalars ThroughTime is_measured",
        "gradtui.runfile.liveness": "Status",
        "gradtui.runfile.reader": "RunReader open_run",
        "gradtui.runfile.retention": "Limits",
        "gradtui.runfile.schema": "SCHEMA_VERSION Event Finding Header Layer Measure Outcome Pictures Schedule",
        "gradtui.runfile.summary": "RunMetadata request",
        "gradtui.runfile.writer": "RunWriter",
    },
)
