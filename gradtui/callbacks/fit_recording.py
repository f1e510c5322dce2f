"""What every callback does underneath: one recorder a fit, which ends with it, and never troubles it."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gradtui.errors import one_line, say_on_stderr
from gradtui.options import RecordKeywords, RecordOptions, record_options
from gradtui.record.exit_hooks import how_it_ended
from gradtui.record.header import RunFacts
from gradtui.record.patches import at_exit, when_freed
from gradtui.record.recorder import Recorder
from gradtui.record.recording import Recording
from gradtui.record.watching import start_recording
from gradtui.runfile import Outcome

if TYPE_CHECKING:
    from typing_extensions import Unpack

LEFT = "left before its end"  # the framework called the callback at the begin, and not at the end
ASKED = "asked to stop by a viewer"

_open: list[FitRecording] = []
_undo: list[Callable[[], None]] = []


class FitRecording:
    """Records one fit after another, a run each.

    An error in here is printed once, on stderr; the training continues. A copy, deep or pickled, has the
    same options, and records nothing until its own fit begins.

    Args:
        options: how to record, and where; by default `RecordOptions()`.
        **changes: fields of `RecordOptions` that differ from `options`, e.g. `every=1`.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, options: RecordOptions | None = None, **changes: Unpack[RecordKeywords]) -> None:
        self._options = record_options(options, changes)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._options = state["_options"]
        self._forget()

    def _forget(self) -> None:
        self.recorder: Recorder | None = None
        self._recording: Recording | None = None
        self._if_freed: weakref.finalize[..., Any] | None = None
        self._told = False
        self._step = self._batches = 0
        self._loss: Any = 0.0

    @property
    def stop_requested(self) -> bool:
        """True once a viewer has asked this fit to stop."""
        return self.recorder is not None and self.recorder.stop_requested

    def begin(
        self,
        model: nn.Module,
        optimizers: Sequence[Any],
        *,
        takes_commands: Sequence[str] = (),
        total_steps: float | None = None,
        total_epochs: float | None = None,
    ) -> None:
        """Record the fit that begins now; one that is still open ends."""
        self.end("stopped", LEFT)
        self._forget()
        try:
            if not optimizers:
                say_on_stderr("the training has no optimizer: it is not recorded")
                return
            optimizer = plain_optimizer(optimizers[0])
            facts = RunFacts(
                takes_commands=takes_commands, total_steps=_whole(total_steps), total_epochs=_known(total_epochs)
            )
            self._recording = start_recording(plain_model(model), optimizer, self._options, facts=facts)
            self.recorder = recorder = Recorder(self._recording)
            if len(optimizers) > 1:
                others = ", ".join(type(plain_optimizer(one)).__name__ for one in optimizers[1:])
                recorder.event(
                    "note", f"measured at the steps of the first optimizer, {type(optimizer).__name__}, not of {others}"
                )
            # of two finalizers the younger is called first: before the recorder's own, which would say "finished"
            self._if_freed = when_freed(optimizer, recorder.close, "stopped", LEFT)
            _look_after(self)
        except Exception as error:
            self._trouble(error)

    def take_loss(self, loss: Any, epoch: float | None = None) -> None:
        """Record the mean loss of a batch just processed, a number or a tensor, which is not waited for.

        Losses of batches without a step of their own, of which the gradients accumulate, are averaged into the step
        that ends them.
        """
        recorder, recording = self.recorder, self._recording
        if recorder is None or recording is None:
            return
        try:
            if epoch is not None:
                recorder.log(epoch=epoch)
            if loss is None:
                return
            if recording.step == self._step:
                # a copy, for compiled training may use the memory again
                self._loss = self._loss + (loss.detach().clone() if isinstance(loss, torch.Tensor) else loss)
                self._batches += 1
                return
            self._step = recording.step
            if self._batches:
                loss = (self._loss + loss) / (self._batches + 1)
                self._loss, self._batches = 0.0, 0
            recorder.log(loss=loss)
        except Exception as error:
            self._trouble(error)

    def log(self, metrics: Mapping[str, Any], epoch: float | None = None) -> None:
        """Record metrics under their own names; `loss` is that of the last step."""
        if self.recorder is None:
            return
        try:
            values: dict[str, Any] = {_parameter(name): value for name, value in metrics.items()}
            if epoch is not None:
                values["epoch"] = epoch
            if values:
                self.recorder.log(**values)
        except Exception as error:
            self._trouble(error)

    def event(self, text: str) -> None:
        """Note something in the run, in words."""
        if self.recorder is not None:
            self.recorder.event("note", text)

    def end(self, outcome: Outcome | None = None, detail: str = "") -> None:
        """End the run, if one is open; without an outcome it finished, or stopped if a viewer asked for that."""
        recorder, self.recorder, self._recording = self.recorder, None, None
        if recorder is None:
            return
        if self._if_freed is not None:
            self._if_freed.detach()
        if self in _open:
            _open.remove(self)
        while _undo and not _open:
            _undo.pop()()
        if outcome is None:
            outcome, detail = ("stopped", ASKED) if recorder.stop_requested else ("finished", detail)
        recorder.close(outcome, detail)

    def end_by(self, error: BaseException | None) -> None:
        """End the run, if one is open, as what `error` says."""
        if error is None:
            self.end("stopped", LEFT)
        elif type(error).__name__ == "SIGTERMException":  # Lightning's; a SystemExit without a code
            self.end("stopped", "terminated")
        else:
            self.end(*how_it_ended(error))

    def _trouble(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            say_on_stderr(f"not all of this training is recorded: {one_line(error)}")


def plain_optimizer(optimizer: Any) -> Any:
    """The optimizer of PyTorch inside a framework's wrapper, whose `step` calls its hooks."""
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def plain_model(model: nn.Module) -> nn.Module:
    """The model inside what makes it data-parallel, so that its layers keep their names."""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    return model


def _known(number: float | None) -> float | None:
    return number if number is not None and 0 < number < float("inf") else None


def _whole(number: float | None) -> int | None:
    known = _known(number)
    return None if known is None else int(known)


def _parameter(name: Any) -> str:
    # `Recorder.log` takes metrics as keywords, beside itself
    return "self_" if name == "self" else str(name)


def _look_after(recording: FitRecording) -> None:
    _open.append(recording)
    if not _undo:
        # registered after the recorder's own, and so called before it
        _undo.append(at_exit(_at_exit))


def _at_exit() -> None:
    if getattr(sys, "last_exc", None) or getattr(sys, "last_value", None):
        return  # the recorder says how that ended it
    for recording in list(_open):
        recording.end("stopped", LEFT)
