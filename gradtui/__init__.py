"""See how fast every layer of a neural network learns.

`watch(model, optimizer)` records a training into a run file, as `RecordOptions` say; `open_run(path)` reads one,
`runs()` lists them, and `diagnose(run)` gives the findings. `Measure`, `Remedy` and `finding` are for those of your
own. Everything else is private. Importing this module imports neither torch nor textual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradtui.errors import needs_extra
from gradtui.lazy import lazy_exports

if TYPE_CHECKING:
    from gradtui.diagnosis import Series as Series
    from gradtui.diagnosis import Threshold as Threshold
    from gradtui.diagnosis import Thresholds as Thresholds
    from gradtui.diagnosis import diagnose as diagnose
    from gradtui.diagnosis import finding as finding
    from gradtui.measures import Measure as Measure
    from gradtui.measures import Norm as Norm
    from gradtui.options import RecordKeywords as RecordKeywords
    from gradtui.options import RecordOptions as RecordOptions
    from gradtui.record.recorder import Recorder as Recorder
    from gradtui.record.watching import watch as watch
    from gradtui.remedies import Remedy as Remedy
    from gradtui.runfile import Finding as Finding
    from gradtui.runfile import Layer as Layer
    from gradtui.runfile import Outcome as Outcome
    from gradtui.runfile import RunReader as RunReader
    from gradtui.runfile import Status as Status
    from gradtui.runfile import open_run as open_run
    from gradtui.runfolder import RunSummary as RunSummary
    from gradtui.runfolder import runs as runs

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "gradtui.diagnosis": "Series Threshold Thresholds diagnose finding",
        "gradtui.measures": "Measure Norm",
        "gradtui.options": "RecordKeywords RecordOptions",
        "gradtui.record.recorder": "Recorder",
        "gradtui.record.watching": "watch",
        "gradtui.remedies": "Remedy",
        "gradtui.runfile": "Finding Layer Outcome RunReader Status open_run",
        "gradtui.runfolder": "RunSummary runs",
    },
    also=("__version__",),
    guard=lambda: needs_extra("lab"),
)
