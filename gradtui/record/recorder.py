"""What `gradtui.watch` gives back: all that a training needs of its recording."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from gradtui.record.exit_hooks import how_it_ended
from gradtui.record.recording import Recording
from gradtui.runfile import Outcome


class Recorder:
    """Records one training. Made by `watch`; also a context manager, which notes how the training ended."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @property
    def path(self) -> Path | None:
        """The run file; None if the training is not recorded."""
        return self._recording.path

    @property
    def stop_requested(self) -> bool:
        """True once a viewer has asked the training to stop."""
        return self._recording.stop_requested

    def log(self, **metrics: Any) -> None:
        """Record `loss`, `epoch` (which holds until the next one) and any other scalar metric.

        Values are numbers or tensors of one element; one that is on a device is fetched without waiting. Whether the
        loss belongs to the step before or to the one to come is told by the first call that has one: before the
        first step it is the latter, from then on. Without any, the loss is what `backward` is called on.
        """
        self._recording.log(metrics)

    def event(self, kind: str, text: str) -> None:
        """Note in the run that something happened, in words."""
        self._recording.event(kind, text)

    def close(self, outcome: Outcome = "finished", detail: str = "") -> None:
        """Write what is left and how the training ended, and take all hooks off. Closing twice does nothing.

        Waits for the device if rows are still on their way, and at most five seconds for the disk.
        """
        self._recording.close(outcome, detail)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(*how_it_ended(error))
