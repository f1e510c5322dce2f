"""Records what Lightning trains: `Trainer(callbacks=[GradtuiCallback()])`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from gradtui.callbacks.base import RecordsFits, framework_class

Callback: Any = framework_class("Callback", "lightning", "lightning.pytorch", "pytorch_lightning")


class GradtuiCallback(RecordsFits, Callback):
    """Records each fit of a `Trainer` as a run: losses, epochs, and the metrics that the module logs for an epoch.

    The loss is the one that `training_step` returns. A stop request from the viewer sets `trainer.should_stop`; it is
    offered in one process only, for the others would go on. The same class serves `lightning` and `pytorch_lightning`.
    """

    _seen: Mapping[str, Any] = MappingProxyType({})  # the metrics that were logged

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_seen": {}}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a run: the sanity check is over and a checkpoint, if any, is loaded."""
        self._seen = dict(trainer.callback_metrics)
        if not trainer.is_global_zero:
            return
        self._recording.begin(
            pl_module,
            trainer.optimizers,
            takes_commands=["stop"] if trainer.world_size == 1 else [],
            total_steps=_steps_left(trainer),
            total_epochs=trainer.max_epochs,
        )

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the loss of the step, and stop if a viewer asked for it."""
        if self._recording.recorder is None:
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None and pl_module.automatic_optimization and trainer.accumulate_grad_batches > 1:
            loss = loss * trainer.accumulate_grad_batches  # Lightning hands over the share of the accumulated loss
        self._recording.take_loss(loss, trainer.current_epoch + _share(batch_idx, trainer.num_training_batches))
        if self._recording.stop_requested:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Log the metrics of the epoch before: all callbacks and the module have logged theirs now."""
        self._log_changed(trainer, trainer.current_epoch)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember which metrics are the training's."""
        self._seen = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the metrics of a validation."""
        if not trainer.sanity_checking:
            done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
            self._log_changed(trainer, trainer.current_epoch + _share(done, trainer.num_training_batches))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the run."""
        self._log_changed(trainer, trainer.current_epoch)
        self._recording.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the run as what the exception says: failed, or stopped by Ctrl-C."""
        self._recording.end_by(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """End a run that nothing else ended."""
        self._recording.end_by(None)

    def _log_changed(self, trainer: Any, epoch: float) -> None:
        """Log the metrics that are new since they were last looked at: Lightning keeps old ones."""
        metrics, seen = dict(trainer.callback_metrics), self._seen
        self._seen = metrics
        changed = {name: value for name, value in metrics.items() if seen.get(name) is not value}
        self._recording.log({name: value for name, value in changed.items() if not _is_double(name, metrics)}, epoch)


def _is_double(name: str, metrics: dict[str, Any]) -> bool:
    """True for `x_step` and `x_epoch` beside `x`, and for what the recorder has anyway."""
    return name in ("loss", "epoch") or any(
        name.endswith(fork) and name.removesuffix(fork) in metrics for fork in ("_step", "_epoch")
    )


def _steps_left(trainer: Any) -> float | None:
    """The optimizer's steps that this fit will take; a resumed one has taken some before."""
    with suppress(Exception):  # Lightning's estimate needs the data loader, which may not know its length
        return float(trainer.estimated_stepping_batches - trainer.global_step)
    return None


def _share(batches: int, of: float) -> float:
    return batches / of if 0 < of < float("inf") else 0.0
