"""Records a training loop written with Accelerate: `Accelerator(log_with=GradtuiTracker())`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import nn

from gradtui.callbacks.base import EndsWithBlock, framework_class
from gradtui.options import RecordKeywords, RecordOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

GeneralTracker: Any = framework_class("GeneralTracker", "accelerate", "accelerate.tracking")


class GradtuiTracker(EndsWithBlock, GeneralTracker):
    """A tracker of Accelerate that records the steps of an optimizer, and what `accelerator.log` is given.

    A tracker is not told what is trained: `watch` tells it, after `accelerator.prepare`. `accelerator.end_training()`
    ends the run; `with tracker.watch(…):` around the loop also notes an exception at once. What is logged as `loss` and
    `epoch` is the run's own loss and epoch, anything else a metric.

    Args:
        options, **changes: as all callbacks have them (`RecordsFits`).
        takes_commands: `["stop"]` if the loop looks at `stop_requested`.
    """

    name = "gradtui"
    requires_logging_directory = False
    main_process_only = True

    def __init__(
        self,
        options: RecordOptions | None = None,
        *,
        takes_commands: Sequence[str] = (),
        **changes: Unpack[RecordKeywords],
    ) -> None:
        super().__init__(options, **changes)
        self._takes_commands = list(takes_commands)
        self._config: dict[str, Any] = {}

    @property
    def tracker(self) -> Any:
        """What Accelerate hands out: the recorder."""
        return self.recorder

    @property
    def stop_requested(self) -> bool:
        """True once a viewer has asked the training to stop, in the main process."""
        return self._recording.stop_requested

    def watch(
        self,
        model: nn.Module,
        *optimizers: Any,
        total_steps: int | None = None,
        total_epochs: float | None = None,
    ) -> GradtuiTracker:
        """Record the training of `model` by an optimizer from here on, both as `accelerator.prepare` gave them.

        A run that is still open ends. Can be used as a context manager, which notes how the training ended.
        """
        if import_module("accelerate").PartialState().is_main_process:
            self._recording.begin(
                model,
                optimizers,
                takes_commands=self._takes_commands,
                total_steps=total_steps,
                total_epochs=total_epochs,
            )
            self._note_config()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self._recording.end()
        else:
            super().__exit__(kind, error, trace)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Note the configuration that `init_trackers` was given in the run."""
        self._config = dict(values)
        self._note_config()

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record what `accelerator.log` is given at the last step counted here; `step` is not used."""
        self._recording.log(values)

    def finish(self) -> None:
        """End the run, when `accelerator.end_training` is called."""
        self._recording.end()

    def _note_config(self) -> None:
        if self._config and self._recording.recorder is not None:
            settings = ", ".join(f"{name} = {value}" for name, value in self._config.items())
            self._recording.event(f"configuration: {settings}")
