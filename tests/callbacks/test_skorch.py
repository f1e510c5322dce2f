"""Fits with skorch, recorded."""

from __future__ import annotations

import copy
import gc
import pickle
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gradtui.options import RecordOptions
from tests.callbacks.nets import (
    CLASSES,
    FEATURES,
    ask_to_stop,
    ending,
    images_and_labels,
    metrics_of,
    only_run,
    runs_of,
    same,
    weights_of,
)

skorch = pytest.importorskip("skorch", reason="needs skorch: pip install 'gradtui[skorch]'")

from gradtui.callbacks.skorch import GradtuiCallback  # noqa: E402


class Net(nn.Module):
    def __init__(self, hidden: int = 5, fails_at: int | None = None, error: type[BaseException] = ValueError) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, hidden), nn.Linear(hidden, CLASSES)
        self.fails_at, self.error, self.calls = fails_at, error, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        if self.calls == self.fails_at:
            raise self.error("a bad batch")
        return self.second(torch.sigmoid(self.first(x)))


X, Y = (part.numpy() for part in images_and_labels(30))


def net_with(*callbacks: Any, **more: Any) -> Any:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.SGD,
        "lr": 0.1,
        "max_epochs": 2,
        "batch_size": 8,
        "iterator_train__shuffle": True,
        "verbose": 0,
    }
    return skorch.NeuralNetClassifier(Net, callbacks=list(callbacks), **{**settings, **more})


def test_a_fit_is_a_run_with_layers_losses_epochs_and_scores(runs_in_tmp):
    late = skorch.callbacks.EpochScoring("accuracy", name="late_accuracy", lower_is_better=False)
    net = net_with(GradtuiCallback(every=1, name="digits"), late).fit(X, Y)
    run = only_run(runs_in_tmp)
    assert ending(run) == ("finished", "")
    assert (run.header.name, run.header.total_epochs) == ("digits", 2)
    assert [layer.name for layer in run.layers()] == ["first", "second"]
    rows = run.last(99)
    assert rows.step.tolist() == [1, 2, 3, 4, 5, 6] and rows.epoch.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(rows.loss, np.ravel(net.history[:, "batches", :3, "train_loss"]))
    series, _ = run.scalars()
    assert sorted(series) == ["late_accuracy", "train_loss", "valid_acc", "valid_loss"]
    for name in series:
        np.testing.assert_allclose(series[name].value, net.history[:, name])
        assert series[name].step.tolist() == [3, 6] and series[name].epoch.tolist() == [1, 2]


@pytest.mark.parametrize("options", [{}, {"every": 1, "update_every": 1}])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.LBFGS])
def test_weights_are_the_same_with_and_without(options, optimizer):
    plain = net_with(optimizer=optimizer).fit(X, Y)
    watched = net_with(GradtuiCallback(**options), optimizer=optimizer).fit(X, Y)
    assert same(weights_of(plain.module_), weights_of(watched.module_))


def test_two_fits_are_two_runs_and_a_warm_start_counts_on(runs_in_tmp):
    net = net_with(GradtuiCallback(every=1))
    net.fit(X, Y).fit(X, Y)
    net.partial_fit(X, Y)
    runs = runs_of(runs_in_tmp)
    assert [ending(run) for run in runs] == [("finished", "")] * 3
    assert [run.span() for run in runs] == [(1, 6)] * 3
    assert [run.header.total_epochs for run in runs] == [2, 2, 4]
    assert [run.last(1).epoch[0] for run in runs] == [1, 1, 3]
    assert [len(values) for values in metrics_of(runs[2]).values()] == [2, 2, 2]


def test_ctrl_c_stops_the_run(runs_in_tmp):
    net_with(GradtuiCallback(every=1), module__fails_at=5, module__error=KeyboardInterrupt).fit(X, Y)
    assert ending(only_run(runs_in_tmp)) == ("stopped", "interrupted")


def test_early_stopping_finishes_the_run(runs_in_tmp):
    stop = skorch.callbacks.EarlyStopping(patience=1, threshold=100.0, threshold_mode="abs")
    net = net_with(stop, GradtuiCallback(every=1), max_epochs=20).fit(X, Y)
    run = only_run(runs_in_tmp)
    assert 1 < len(net.history) < 20 and ending(run) == ("finished", "")
    assert len(metrics_of(run)["valid_loss"]) == len(net.history)


def test_an_exception_is_noted_by_the_next_fit_or_when_the_net_is_freed(runs_in_tmp):
    net = net_with(GradtuiCallback(every=1), module__fails_at=5)
    for _ in range(2):
        with pytest.raises(ValueError, match="bad batch"):
            net.fit(X, Y)
    first, second = runs_of(runs_in_tmp)
    assert ending(first) == ("stopped", "left before its end") and ending(second)[0] == "live"
    del net
    gc.collect()
    assert ending(second) == ("stopped", "left before its end")


def test_a_with_block_notes_an_exception_at_once(runs_in_tmp):
    with pytest.raises(ValueError, match="bad batch"), GradtuiCallback(every=1) as callback:
        net_with(callback, module__fails_at=5).fit(X, Y)
    assert ending(only_run(runs_in_tmp)) == ("failed", "ValueError: a bad batch")


def test_a_viewer_can_stop_the_fit(runs_in_tmp):
    class Asks(skorch.callbacks.Callback):
        def on_batch_begin(self, net, batch=None, training=None, **_):
            if training and callback.recorder._recording.step == 4:
                ask_to_stop(callback.recorder)

    callback = GradtuiCallback(every=1)
    net = net_with(callback, Asks(), max_epochs=50).fit(X, Y)
    run = only_run(runs_in_tmp)
    assert len(net.history) == 2 and ending(run)[0] == "stopped" and run.span() == (1, 5)
    assert run.header.takes_commands == ["stop"]


def test_a_grid_search_records_each_fit(runs_in_tmp):
    from sklearn.model_selection import GridSearchCV

    net = net_with(GradtuiCallback(every=1), max_epochs=1, train_split=None)
    GridSearchCV(net, {"lr": [0.1, 0.2]}, cv=2, refit=False).fit(X, Y)
    runs = runs_of(runs_in_tmp)
    assert [ending(run) for run in runs] == [("finished", "")] * 4
    assert sorted(run.last(1).learning_rate[0] for run in runs) == pytest.approx([0.1, 0.1, 0.2, 0.2])


def test_parameters_can_be_searched_and_set(runs_in_tmp):
    from sklearn.base import clone

    callback = GradtuiCallback(every=1, name="a")
    assert RecordOptions(**callback.get_params()) == RecordOptions(every=1, name="a")
    assert {*callback.get_params()} == {one.name for one in fields(RecordOptions)}
    assert GradtuiCallback(RecordOptions(every=1), name="a").get_params() == callback.get_params()
    with pytest.raises(TypeError, match="'evry'"):
        GradtuiCallback(evry=1)
    assert clone(callback).get_params() == callback.get_params()
    net = net_with(("gradtui", callback), callbacks__gradtui__name="b").fit(X, Y)
    assert only_run(runs_in_tmp).header.name == "b"
    with pytest.raises(ValueError, match="every"):
        net.set_params(callbacks__gradtui__every=0).fit(X, Y)


def test_copies_and_pickles_in_mid_fit_record_nothing(runs_in_tmp):
    class Copies(skorch.callbacks.Callback):
        def on_epoch_end(self, net, **_):
            copies.append(copy.deepcopy(net))
            copies.append(pickle.loads(pickle.dumps(callback)))

    copies: list[Any] = []
    callback = GradtuiCallback(every=1)
    net_with(callback, ("copies", Copies())).fit(X, Y)
    assert copies[-1].recorder is None and dict(copies[0].callbacks_)["GradtuiCallback"].recorder is None
    assert ending(only_run(runs_in_tmp)) == ("finished", "")
