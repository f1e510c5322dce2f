"""Trainings with Lightning, recorded: the real Trainer on the CPU."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.callbacks.nets import (
    ask_to_stop,
    ending,
    only_run,
    runs_of,
    same,
    weights_of,
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def kit() -> Any:
    pytest.importorskip("lightning.pytorch", reason="needs Lightning: pip install 'gradtui[lightning]'")
    from tests.callbacks import lightning_kit

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return lightning_kit


def test_a_fit_is_a_run_with_layers_losses_epochs_and_metrics(kit, runs_in_tmp, tmp_path):
    model = kit.Classifier()
    trainer = kit.fit(model, kit.GradtuiCallback(every=1, name="digits"), tmp_path)
    run = only_run(runs_in_tmp)
    assert ending(run) == ("finished", "")
    assert (run.header.name, run.header.total_epochs, run.header.total_steps) == ("digits", 2, 6)
    assert [layer.name for layer in run.layers()] == ["net.0", "net.2"]
    rows = run.last(99)
    assert rows.step.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(rows.loss, model.losses, rtol=1e-6)
    np.testing.assert_allclose(rows.epoch, [0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3], rtol=1e-6)
    series, _ = run.scalars()
    assert sorted(series) == ["train_loss", "val_loss"]
    assert series["val_loss"].step.tolist() == series["train_loss"].step.tolist() == [3, 6]
    assert series["val_loss"].epoch.tolist() == series["train_loss"].epoch.tolist() == [1, 2]
    np.testing.assert_allclose(series["train_loss"].value, np.mean(np.reshape(model.losses, (2, 3)), axis=1), rtol=1e-6)
    assert series["val_loss"].value[-1] == pytest.approx(float(trainer.callback_metrics["val_loss"]))


def test_gradients_are_those_of_autograd(kit, runs_in_tmp, tmp_path):
    class WithNorms(kit.Classifier):
        def on_after_backward(self) -> None:
            norms.append(float(self.net[0].bias.grad.norm()))

    norms: list[float] = []
    kit.fit(WithNorms(), kit.GradtuiCallback(every=1), tmp_path)
    run = only_run(runs_in_tmp)
    column = [measure.name for measure in run.measures].index("bias_grad_norm")
    np.testing.assert_allclose(run.last(99).measures[:, 0, column], norms, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"every": 1, "update_every": 1}])
@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}])
def test_weights_are_the_same_with_and_without(kit, options, settings, tmp_path):
    plain, watched = kit.Classifier(), kit.Classifier()
    kit.fit(plain, None, tmp_path, **settings)
    kit.fit(watched, kit.GradtuiCallback(**options), tmp_path, **settings)
    assert same(weights_of(plain), weights_of(watched))


def test_losses_of_accumulated_batches_are_averaged(kit, runs_in_tmp, tmp_path):
    model = kit.Classifier()
    kit.fit(model, kit.GradtuiCallback(every=1), tmp_path, accumulate_grad_batches=3)
    rows = only_run(runs_in_tmp).last(99)
    np.testing.assert_allclose(rows.loss, np.mean(np.reshape(model.losses, (2, 3)), axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("error", "left_by", "expected"),
    [
        (ValueError, ValueError, ("failed", "ValueError: a bad batch")),
        (KeyboardInterrupt, SystemExit, ("stopped", "interrupted")),
        ("SIGTERMException", "SIGTERMException", ("stopped", "terminated")),
    ],
)
def test_an_exception_ends_the_run_as_what_it_is(kit, error, left_by, expected, runs_in_tmp, tmp_path, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)  # after Ctrl-C Lightning ignores any further one
    if error == "SIGTERMException":
        error = left_by = kit.SIGTERMException
    with pytest.raises(left_by):
        kit.fit(kit.Classifier(fails_at=2, error=error), kit.GradtuiCallback(every=1), tmp_path)
    run = only_run(runs_in_tmp)
    assert ending(run) == expected and run.last(99).step.tolist()[:2] == [1, 2]


def test_two_fits_are_two_runs(kit, runs_in_tmp, tmp_path):
    callback = kit.GradtuiCallback(every=1)
    trainer = kit.trainer_with(callback, tmp_path)
    model = kit.Classifier()
    trainer.fit(model, kit.loader())
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model, kit.loader())
    first, second = runs_of(runs_in_tmp)
    assert ending(first) == ending(second) == ("finished", "")
    assert first.span() == second.span() == (1, 6)
    assert second.last(1).epoch[0] == pytest.approx(3 + 2 / 3)


def test_a_resumed_fit_goes_on_with_its_epochs(kit, runs_in_tmp, tmp_path):
    kit.fit(kit.Classifier(), kit.GradtuiCallback(every=1), tmp_path).save_checkpoint(tmp_path / "half.ckpt")
    whole, resumed = kit.Classifier(), kit.Classifier()
    kit.fit(whole, None, tmp_path, max_epochs=4)
    trainer = kit.trainer_with(kit.GradtuiCallback(every=1), tmp_path, max_epochs=4)
    trainer.fit(resumed, kit.loader(), kit.loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    assert same(weights_of(whole), weights_of(resumed))
    run = runs_of(runs_in_tmp)[1]
    assert (run.header.total_steps, run.header.total_epochs) == (6, 4)
    rows = run.last(99)
    assert rows.epoch.min() == 2 and rows.step.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_viewer_can_stop_the_fit(kit, runs_in_tmp, tmp_path):
    class Asks(kit.pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 4:
                ask_to_stop(callback.recorder)

    callback = kit.GradtuiCallback(every=1)
    trainer = kit.trainer_with(callback, tmp_path, max_epochs=50)
    trainer.callbacks.append(Asks())
    trainer.fit(kit.Classifier(), kit.loader())
    run = only_run(runs_in_tmp)
    assert ending(run)[0] == "stopped" and "viewer" in ending(run)[1]
    assert run.span() == (1, 5) and run.header.takes_commands == ["stop"]


def test_of_several_optimizers_the_first_is_measured_and_the_others_are_named(kit, runs_in_tmp, tmp_path):
    class TwoOptimizers(kit.Classifier):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
            return loss

        def configure_optimizers(self):
            return [torch.optim.SGD(self.net[0].parameters(), lr=0.1), torch.optim.Adam(self.net[2].parameters())]

    model = TwoOptimizers()
    model.automatic_optimization = False
    kit.fit(model, kit.GradtuiCallback(every=1), tmp_path)
    run = only_run(runs_in_tmp)
    assert run.span() == (1, 6) and np.isfinite(run.last(9).loss).all()
    assert any("SGD" in event.text and "Adam" in event.text for event in run.events())


def test_other_stages_record_nothing(kit, runs_in_tmp, tmp_path):
    trainer = kit.trainer_with(kit.GradtuiCallback(), tmp_path)
    trainer.validate(kit.Classifier(), kit.loader(), verbose=False)
    assert not runs_of(runs_in_tmp)


def test_copies_and_pickles_have_the_options_and_no_recorder(kit, runs_in_tmp, tmp_path):
    class Copies(kit.pl.Callback):
        def on_train_batch_end(self, *_):
            copies.append(copy.deepcopy(callback))
            copies.append(pickle.loads(pickle.dumps(callback)))

    copies: list[Any] = []
    callback = kit.GradtuiCallback(every=1, name="first")
    trainer = kit.trainer_with(callback, tmp_path, max_epochs=1)
    trainer.callbacks.append(Copies())
    trainer.fit(kit.Classifier(), kit.loader())
    assert all(one.recorder is None for one in copies)
    kit.fit(kit.Classifier(), copies[-1], tmp_path, max_epochs=1)
    assert [run.header.name for run in runs_of(runs_in_tmp)] == ["first", "first"]


def test_a_run_that_cannot_be_made_changes_nothing(kit, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    plain, watched = kit.Classifier(), kit.Classifier()
    kit.fit(plain, None, tmp_path)
    kit.fit(watched, kit.GradtuiCallback(folder=tmp_path / "file"), tmp_path)
    assert same(weights_of(plain), weights_of(watched))
    assert capsys.readouterr().err.count("gradtui:") == 1


@pytest.mark.parametrize("wrong", [{"every": 0}, {"budget": 2.0}])
def test_options_out_of_range_are_refused_at_once(kit, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kit.GradtuiCallback(**wrong)


def test_the_callback_is_of_the_lightning_in_use(kit, monkeypatch):
    from gradtui.callbacks.base import framework_class

    class Callback:
        pass

    assert issubclass(kit.GradtuiCallback, kit.pl.Callback)
    module = types.ModuleType("pytorch_lightning")
    module.Callback = Callback
    monkeypatch.setitem(sys.modules, "pytorch_lightning", module)
    monkeypatch.delitem(sys.modules, "lightning.pytorch")
    assert framework_class("Callback", "lightning", "lightning.pytorch", "pytorch_lightning") is Callback


@pytest.mark.slow
def test_pytorch_lightning_is_served_too():
    pytest.importorskip("pytorch_lightning", reason="needs the package pytorch_lightning")
    script = """
import sys
import pytorch_lightning
from gradtui.callbacks.lightning import GradtuiCallback
assert issubclass(GradtuiCallback, pytorch_lightning.Callback) and "lightning" not in sys.modules
pytorch_lightning.Trainer(callbacks=GradtuiCallback(), logger=False, enable_checkpointing=False, accelerator="cpu")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
