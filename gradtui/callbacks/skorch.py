"""Records what skorch fits: `NeuralNetClassifier(…, callbacks=[GradtuiCallback()])`."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gradtui.callbacks.base import EndsWithBlock, framework_class
from gradtui.callbacks.fit_recording import FitRecording
from gradtui.options import RecordKeywords, RecordOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

Callback: Any = framework_class("Callback", "skorch", "skorch.callbacks")


class GradtuiCallback(EndsWithBlock, Callback):
    """Records each fit of a net as a run: losses, epochs, and the scores of the net's history, under their names.

    A stop request from the viewer raises `KeyboardInterrupt` at the end of a batch, on which skorch ends the fit.
    skorch tells no callback of other exceptions: `with GradtuiCallback() as callback:` around `fit` notes them at once;
    without that, the run ends when the process does, the next fit begins, or the net is freed. Clones, as of a grid
    search, record runs of their own.
    Each field of `RecordOptions` is a parameter, for `set_params`.
    """

    def __init__(self, options: RecordOptions | None = None, **changes: Unpack[RecordKeywords]) -> None:
        known = {one.name: getattr(options or RecordOptions(), one.name) for one in fields(RecordOptions)}
        unknown = next((name for name in changes if name not in known), None)
        if unknown is not None:
            raise TypeError(f"GradtuiCallback has no option {unknown!r}: the options are {', '.join(known)}")
        # nothing but parameters ends without an underscore, and none is changed here: so a clone is equal
        self.__dict__.update({**known, **changes})

    def initialize(self) -> GradtuiCallback:
        """Take the parameters as they are now; raises `ValueError` if one is out of range."""
        if hasattr(self, "recording_"):
            self.recording_.end_by(None)
        self.recording_: FitRecording = FitRecording(**self.get_params())
        self._logged_ = 0
        return self

    @property
    def _recording(self) -> FitRecording:  # type: ignore[override]
        if not hasattr(self, "recording_"):
            self.initialize()
        return self.recording_

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:  # noqa: N803
        """Begin a run."""
        before = len(net.history)  # epochs of earlier calls of `partial_fit`
        self._logged_, self._validates_ = before, False
        self._recording.begin(
            net.module_,
            [getattr(net, f"{name}_") for name in net._optimizers],
            takes_commands=["stop"],
            total_epochs=before + net.max_epochs,
        )

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any) -> None:
        """Log the epoch before, whose scores are complete now; the net's history has a new one already."""
        self._validates_ = dataset_valid is not None
        self._log_epochs(net, len(net.history) - 1)
        self._recording.log({}, len(net.history) - 1)

    def on_batch_end(self, net: Any, batch: Any = None, training: Any = None, **kwargs: Any) -> None:
        """Take the loss of a step, and stop if a viewer asked for it."""
        if not training:
            return
        self._recording.take_loss(kwargs.get("loss"))
        if self._recording.stop_requested:
            raise KeyboardInterrupt

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:  # noqa: N803
        """End the run. skorch swallows a Ctrl-C before: the last epoch is incomplete then."""
        complete = not len(net.history) or self._is_complete(net.history[-1])
        self._log_epochs(net, len(net.history) if complete else len(net.history) - 1)
        if complete or self._recording.stop_requested:
            self._recording.end()
        else:
            self._recording.end("stopped", "interrupted")

    def _is_complete(self, epoch: Any) -> bool:
        return "train_batch_count" in epoch and (not self._validates_ or "valid_batch_count" in epoch)

    def _log_epochs(self, net: Any, until: int) -> None:
        for index in range(self._logged_, until):
            scores = {name: value for name, value in net.history[index].items() if _is_score(name, value)}
            self._recording.log(scores, index + 1)
        self._logged_ = max(self._logged_, until)


def _is_score(name: str, value: Any) -> bool:
    """True for the numbers of an epoch's history, and not for counts, whether a score is the best, and events."""
    return isinstance(value, float) and name != "dur" and not name.startswith("event_")
