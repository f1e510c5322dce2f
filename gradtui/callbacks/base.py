"""What the callbacks' classes share: options, recorder, how they end, and how their framework is imported."""

from __future__ import annotations

import sys
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from gradtui.callbacks.fit_recording import FitRecording
from gradtui.errors import ExtraMissingError
from gradtui.options import RecordKeywords, RecordOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

Self = TypeVar("Self", bound="EndsWithBlock")


def framework_class(name: str, extra: str, *homes: str) -> Any:
    """The class of that name, of the first of the modules `homes` that can be imported; loaded ones are tried first.

    Raises:
        ExtraMissingError: none can be; `extra` of gradtui installs it.
    """
    causes = []
    for home in sorted(homes, key=lambda home: home not in sys.modules):
        try:
            return getattr(import_module(home), name)
        except ImportError as error:
            causes.append(error)
    raise ExtraMissingError(homes[0].partition(".")[0], extra, causes[0]) from causes[0]


class RecordsFits:
    """A callback that records each fit as a run.

    Args:
        options: how to record, and where, as for `gradtui.watch`; by default `RecordOptions()`.
        **changes: fields of `RecordOptions` that differ from `options`, e.g. `every=1`.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, options: RecordOptions | None = None, **changes: Unpack[RecordKeywords]) -> None:
        super().__init__()
        self._recording = FitRecording(options, **changes)

    @property
    def recorder(self) -> Any:
        """The recorder of the fit that runs; None outside of one, and in all processes but the first."""
        return self._recording.recorder


class EndsWithBlock(RecordsFits):
    """For frameworks that tell no callback of an exception: `with` around the fit notes at once how it ended.

    Without it, the run ends when the process does, the next fit begins, or the optimizer is freed.
    """

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recording.end_by(error)
