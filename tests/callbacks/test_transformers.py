"""Trainings with the Trainer of transformers, recorded: a net of two layers, no model from the hub."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.callbacks.nets import (
    ask_to_stop,
    ending,
    metrics_of,
    only_run,
    runs_of,
    same,
    weights_of,
)
from tests.callbacks.transformers_kit import Classifier, examples

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'gradtui[transformers]'")
pytest.importorskip("accelerate", reason="the Trainer needs accelerate: pip install 'gradtui[transformers]'")

from gradtui.callbacks.transformers import GradtuiCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def trainer_with(callbacks: list[Any], folder: Path, model: Any = None, **more: Any) -> Any:
    settings: dict[str, Any] = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
        "save_strategy": "no",
        "eval_strategy": "epoch",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "learning_rate": 0.01,
    }
    arguments = transformers.TrainingArguments(output_dir=str(folder / "out"), **{**settings, **more})
    return transformers.Trainer(
        model or Classifier(), arguments, train_dataset=examples(), eval_dataset=examples(), callbacks=callbacks
    )


def test_a_training_is_a_run_with_layers_losses_epochs_and_metrics(runs_in_tmp, tmp_path):
    trainer = trainer_with([GradtuiCallback(every=1, name="digits")], tmp_path)
    trainer.train()
    run = only_run(runs_in_tmp)
    assert ending(run) == ("finished", "")
    assert (run.header.name, run.header.total_epochs, run.header.total_steps) == ("digits", 2, 6)
    assert [layer.name for layer in run.layers()] == ["net.0", "net.2"]
    rows = run.last(99)
    assert rows.step.tolist() == [1, 2, 3, 4, 5, 6]
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    np.testing.assert_allclose(rows.loss, [entry["loss"] for entry in logged])
    np.testing.assert_allclose(rows.epoch, np.arange(1, 7) / 3)
    metrics = metrics_of(run)
    assert "loss" not in metrics and "epoch" not in metrics
    assert metrics["eval_loss"] == [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    np.testing.assert_allclose(metrics["grad_norm"], [entry["grad_norm"] for entry in logged])
    assert len(metrics["train_loss"]) == 1


def test_gradients_are_those_of_autograd(runs_in_tmp, tmp_path):
    class Norms(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, *_, model, **__):
            norms.append(float(model.net[0].bias.grad.norm()))

    norms: list[float] = []
    trainer_with([GradtuiCallback(every=1), Norms()], tmp_path).train()
    run = only_run(runs_in_tmp)
    column = [measure.name for measure in run.measures].index("bias_grad_norm")
    np.testing.assert_allclose(run.last(99).measures[:, 0, column], norms, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"every": 1, "update_every": 1}])
def test_weights_are_the_same_with_and_without(options, tmp_path):
    weights = []
    for callbacks in ([], [GradtuiCallback(**options)]):
        model = Classifier()
        trainer_with(callbacks, tmp_path, model, gradient_accumulation_steps=2).train()
        weights.append(weights_of(model))
    assert same(*weights)


def test_a_with_block_notes_an_exception_at_once(runs_in_tmp, tmp_path):
    for error in (ValueError, KeyboardInterrupt):
        callback = GradtuiCallback(every=1)
        trainer = trainer_with([callback], tmp_path, Classifier(fails_at=3, error=error))
        with pytest.raises(error), callback:
            trainer.train()
    failed, stopped = runs_of(runs_in_tmp)
    assert ending(failed) == ("failed", "ValueError: a bad batch")
    assert ending(stopped) == ("stopped", "interrupted") and stopped.span() == (1, 2)


def test_a_training_left_by_an_exception_ends_when_the_next_begins(runs_in_tmp, tmp_path):
    model = Classifier(fails_at=3)
    trainer = trainer_with([GradtuiCallback(every=1)], tmp_path, model)
    with pytest.raises(ValueError, match="bad batch"):
        trainer.train()
    trainer.train()
    first, second = runs_of(runs_in_tmp)
    assert ending(first) == ("stopped", "left before its end") and first.span() == (1, 2)
    assert ending(second) == ("finished", "") and second.span() == (1, 6)


def test_a_resumed_training_goes_on_with_its_epochs(runs_in_tmp, tmp_path):
    callback = GradtuiCallback(every=1)
    trainer_with([callback], tmp_path, save_strategy="epoch").train()
    trainer = trainer_with([callback], tmp_path, num_train_epochs=4)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))
    first, second = runs_of(runs_in_tmp)
    assert ending(first) == ending(second) == ("finished", "")
    assert (second.header.total_steps, second.header.total_epochs) == (6, 4)
    rows = second.last(99)
    assert rows.step.tolist() == [1, 2, 3, 4, 5, 6] and rows.epoch.min() > 2


def test_a_viewer_can_stop_the_training(runs_in_tmp, tmp_path):
    class Asks(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 4:
                ask_to_stop(callback.recorder)

    callback = GradtuiCallback(every=1)
    trainer_with([callback, Asks()], tmp_path, num_train_epochs=50).train()
    run = only_run(runs_in_tmp)
    assert ending(run)[0] == "stopped" and run.span() == (1, 5)
    assert run.header.takes_commands == ["stop"]


def test_copies_and_pickles_have_the_options_and_no_recorder(runs_in_tmp, tmp_path):
    class Copies(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            copies.append(copy.deepcopy(callback))
            copies.append(pickle.loads(pickle.dumps(callback)))

    copies: list[Any] = []
    callback = GradtuiCallback(every=1, name="first")
    trainer_with([callback, Copies()], tmp_path).train()
    assert copies and all(one.recorder is None for one in copies)
    trainer_with([copies[-1]], tmp_path).train()
    assert [run.header.name for run in runs_of(runs_in_tmp)] == ["first", "first"]


def test_the_class_itself_can_be_given(runs_in_tmp, tmp_path):
    trainer_with([GradtuiCallback], tmp_path).train()
    assert ending(only_run(runs_in_tmp)) == ("finished", "")


def test_an_evaluation_alone_records_nothing(runs_in_tmp, tmp_path):
    trainer_with([GradtuiCallback()], tmp_path).evaluate()
    assert not runs_of(runs_in_tmp)


def test_in_several_processes_the_first_records_and_takes_no_commands(runs_in_tmp, tmp_path):
    from types import SimpleNamespace

    model = Classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    arguments = SimpleNamespace(world_size=2, max_steps=5, num_train_epochs=1)
    for is_first in (False, True):
        callback = GradtuiCallback()
        state = transformers.TrainerState(is_world_process_zero=is_first, max_steps=5)
        callback.on_train_begin(arguments, state, None, model=model, optimizer=optimizer)
        assert (callback.recorder is not None) == is_first
        callback.on_train_end(arguments, state, None)
    assert only_run(runs_in_tmp).header.takes_commands == []
