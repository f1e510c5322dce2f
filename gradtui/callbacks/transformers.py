"""Records what the Trainer of transformers trains: `Trainer(…, callbacks=[GradtuiCallback()])`."""

from __future__ import annotations

from typing import Any

from gradtui.callbacks.base import EndsWithBlock, framework_class

TrainerCallback: Any = framework_class("TrainerCallback", "transformers", "transformers")
HAS_ANYWAY = ("epoch", "learning_rate", "loss")  # what a row holds, or is logged apart


class GradtuiCallback(EndsWithBlock, TrainerCallback):
    """Records each `train()` of a `Trainer` as a run: epochs, and what the Trainer logs, under its names.

    The loss comes as often as the Trainer logs it (`logging_steps`), for it hands no other to a callback. A stop
    request from the viewer sets `control.should_training_stop`; it is offered in one process only, for the others would
    go on. The Trainer tells no callback of an exception: `with GradtuiCallback() as callback:` around `train()` notes
    it at once; without that, the run ends when the process does, or the next training begins.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin a run."""
        if not state.is_world_process_zero:
            return
        optimizer = kwargs.get("optimizer")
        self._recording.begin(
            kwargs["model"],
            [] if optimizer is None else [optimizer],
            takes_commands=["stop"] if args.world_size == 1 else [],
            # of a resumed training, the steps that are left
            total_steps=state.max_steps - state.global_step,
            total_epochs=args.num_train_epochs if args.max_steps <= 0 else None,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Note the epoch, and stop if a viewer asked for it."""
        self._recording.take_loss(None, state.epoch)
        if self._recording.stop_requested:
            control.should_training_stop = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Log what the Trainer logs: the mean loss since it last did, the norm before clipping, evaluations."""
        logs = logs or {}
        metrics = {name: value for name, value in logs.items() if name not in HAS_ANYWAY}
        if "loss" in logs:
            metrics["loss"] = logs["loss"]
        self._recording.log(metrics, state.epoch)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run."""
        self._recording.end()
