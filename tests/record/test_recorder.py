"""What a recorder does to a training: nothing; and what it writes when."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch

import gradtui
from gradtui.options import RecordOptions
from gradtui.record.budget import Sampling
from gradtui.runfile import is_measured
from tests.record.watched_nets import SteppedClock, perceptron, recorder_with, train, watch_into


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("every", [1, 3, None])
@pytest.mark.parametrize("make", [sgd, lambda model: torch.optim.Adam(model.parameters())])
def test_weights_are_the_same_bit_for_bit_with_and_without_the_recorder(make, every, tmp_path):
    weights = []
    for watched in (False, True):
        model = perceptron(6, 5, 4)
        optimizer = make(model)
        recorder = watch_into(model, optimizer, every=every, path=tmp_path / "r.gradtui") if watched else None
        train(model, optimizer, recorder, steps=20)
        if recorder is not None:
            recorder.close()
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_the_loss_is_of_the_step_it_was_logged_with(tmp_path):
    model = perceptron(6, 5, 4)
    losses = {}
    for log in ("before", "after"):
        watched = copy.deepcopy(model)
        optimizer = sgd(watched)
        with watch_into(watched, optimizer, every=1, path=tmp_path / f"{log}.gradtui") as recorder:
            train(watched, optimizer, recorder, steps=5, log=log)
        rows = gradtui.open_run(recorder.path).last(10)
        assert rows.step.tolist() == [1, 2, 3, 4, 5]
        losses[log] = rows.loss
    np.testing.assert_array_equal(losses["before"], losses["after"])
    assert np.isfinite(losses["after"]).all() and (rows.learning_rate == 0.1).all()


def test_a_loss_that_nobody_logs_is_what_backward_was_called_on(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    logged = copy.deepcopy(model)
    with watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui"):
        train(model, optimizer, steps=4)
    rows = gradtui.open_run(tmp_path / "r.gradtui").last(10)
    optimizer = sgd(logged)
    with watch_into(logged, optimizer, every=1, path=tmp_path / "l.gradtui") as recorder:
        train(logged, optimizer, recorder, steps=4)
    assert rows.step.tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(rows.loss, gradtui.open_run(tmp_path / "l.gradtui").last(10).loss)


def test_epoch_holds_and_metrics_are_kept(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    with watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui") as recorder:
        for epoch in range(2):
            recorder.log(epoch=epoch)
            train(model, optimizer, recorder, steps=2)
            recorder.log(val_accuracy=torch.tensor(0.5 + epoch / 4), odd="not a number", many=torch.ones(3))
        recorder.event("note", "half way")
    reader = gradtui.open_run(tmp_path / "r.gradtui")
    assert reader.last(9).epoch.tolist() == [0, 0, 1, 1]
    series, _ = reader.scalars()
    assert list(series) == ["val_accuracy"]
    assert series["val_accuracy"].step.tolist() == [2, 4]
    assert series["val_accuracy"].value.tolist() == [0.5, 0.75]
    assert [event.text for event in reader.events() if "not a number" in event.text or event.text == "half way"][-1:]
    assert sum("not a number" in event.text for event in reader.events()) == 2


def test_every_k_measures_each_kth_step(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    with watch_into(model, optimizer, every=3, update_every=6, path=tmp_path / "r.gradtui"):
        train(model, optimizer, steps=10)
    rows = gradtui.open_run(tmp_path / "r.gradtui").last(99)
    assert rows.step.tolist() == [1, 4, 7, 10]
    assert is_measured(rows.measures)[:, 0, 4].tolist() == [True, False, True, False]


@pytest.mark.usefixtures("budget_alone")
def test_the_budget_keeps_the_measured_share_down(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    clock = SteppedClock(tick=1e-3)  # each look at the clock costs a millisecond, and so does each measurement
    recorder = recorder_with(model, optimizer, tmp_path / "r.gradtui", Sampling(RecordOptions()), clock)
    measured_at = []
    for _ in range(300):
        clock.now += 0.05
        train(model, optimizer, recorder, steps=1)
    recorder.close()
    rows = gradtui.open_run(tmp_path / "r.gradtui").last(9999)
    whole = is_measured(rows.measures).any(axis=(1, 2))
    measured_at = rows.time[whole]
    assert rows.step[whole][0] == 1 and len(measured_at) > 5
    # a measurement takes some milliseconds of this clock, each of which must be waited for a hundredfold
    assert np.diff(measured_at).min() >= 0.4
    assert np.isfinite(rows.loss[~whole]).all() and not whole.all()


def test_losses_alone_are_kept_at_most_twenty_times_a_second(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    clock = SteppedClock()
    recorder = recorder_with(model, optimizer, tmp_path / "r.gradtui", Sampling(RecordOptions(every=10_000)), clock)
    for _ in range(1000):
        clock.now += 0.001
        train(model, optimizer, recorder, steps=1)
    recorder.close()
    rows = gradtui.open_run(tmp_path / "r.gradtui").last(9999)
    assert 18 <= len(rows) <= 22
    assert is_measured(rows.measures).any(axis=(1, 2)).sum() == 1


def test_several_logs_of_one_step_do_not_overwrite_its_row(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    clock = SteppedClock()
    recorder = recorder_with(model, optimizer, tmp_path / "r.gradtui", Sampling(RecordOptions(every=1)), clock)
    train(model, optimizer, recorder, steps=1)
    clock.now += 10
    recorder.log(loss=123.0)
    recorder.close()
    rows = gradtui.open_run(tmp_path / "r.gradtui").last(9)
    assert len(rows) == 1 and rows.loss[0] != 123.0 and is_measured(rows.measures).any()


def test_copies_of_what_is_watched_are_not_watched(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    with watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui") as recorder:
        # before the first step, while the forward hooks are on
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        torch.save(model, tmp_path / "model.pt")
        torch.save(model.state_dict(), tmp_path / "state.pt")
        train(model, optimizer, recorder)
        copied = copy.deepcopy(optimizer)
        pickle.dumps(optimizer)
        copied.step()
        for twin in copies:
            train(twin, sgd(twin))
        assert recorder._recording.step == 3
    assert gradtui.open_run(recorder.path).span() == (1, 3)


def test_hooks_are_gone_after_close(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    recorder = watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui")
    train(model, optimizer, recorder)
    recorder.close()
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    recorder.log(loss=1.0)
    recorder.close("failed", "too late")
    assert gradtui.open_run(recorder.path).status().state == "finished"


def test_a_closed_recorder_does_not_keep_the_model_alive(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    recorder = watch_into(model, optimizer, every=1, update_every=1, path=tmp_path / "r.gradtui")
    train(model, optimizer, recorder)
    recorder.close()
    gone = [weakref.ref(model), weakref.ref(next(model.parameters()))]
    del model, optimizer
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_recording_whose_optimizer_is_freed_is_finished(tmp_path):
    def training():
        model = perceptron(6, 5, 4)
        optimizer = sgd(model)
        train(model, optimizer, watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui"))

    training()
    gc.collect()
    reader = gradtui.open_run(tmp_path / "r.gradtui")
    assert reader.status().state == "finished" and reader.span() == (1, 3)


@pytest.mark.parametrize(
    ("error", "state", "detail"),
    [
        (ValueError("bad [red] batch\nmore"), "failed", "ValueError: bad [red] batch"),
        (KeyboardInterrupt(), "stopped", "interrupted"),
        (SystemExit(0), "finished", ""),
        (SystemExit(), "finished", ""),
        (SystemExit(3), "failed", "exit code 3"),
        (SystemExit("no data\nmore"), "failed", "exit code 1: no data"),
        (SystemExit(130), "stopped", "interrupted"),
    ],
)
def test_the_context_manager_notes_how_the_training_ended(error, state, detail, tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    with pytest.raises(type(error)), watch_into(model, optimizer, path=tmp_path / "r.gradtui"):
        raise error
    status = gradtui.open_run(tmp_path / "r.gradtui").status()
    assert (status.state, status.detail) == (state, detail)


def test_a_viewer_can_ask_the_training_to_stop(tmp_path):
    from gradtui.runfile import request

    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    with watch_into(model, optimizer, path=tmp_path / "r.gradtui", takes_commands=["stop"]) as recorder:
        assert not recorder.stop_requested
        request(recorder.path, "stop")
        for _ in range(100):
            if recorder.stop_requested:
                break
            recorder._recording._writer._closing.wait(0.05)
        assert recorder.stop_requested


@pytest.mark.parametrize("wrong", [{"every": 0}, {"budget": 0.0}, {"budget": 2.0}, {"update_every": 0}])
def test_arguments_out_of_range_are_refused(wrong, tmp_path):
    model = perceptron(6, 5, 4)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        watch_into(model, sgd(model), path=tmp_path / "r.gradtui", **wrong)
    assert not (tmp_path / "r.gradtui").exists()
