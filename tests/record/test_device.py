"""The queue between a device and the host, with a device that is slow when a test says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gradtui
from gradtui.measures import Measure
from gradtui.options import RecordOptions
from gradtui.record import step_sample
from gradtui.record.budget import Sampling
from gradtui.record.copy_stream import MOST_COPIES, CopyStream
from gradtui.record.device_norms import split_neurons
from gradtui.record.recorder import Recorder
from gradtui.runfile import is_measured
from tests.record.columns_of_ours import ACTIVATION_MEAN, BIAS_GRAD_NORM, GRAD_NORM, WEIGHT_GRAD_NORM
from tests.record.watched_nets import (
    SteppedClock,
    perceptron,
    recorder_with,
    step_driven_by_a_scaler,
    train,
    watch_into,
)


class SlowDevice:
    """Stands in for CUDA on host memory: an event has passed once the test lets it."""

    def __init__(self):
        self.events = []
        self.waits = 0
        self.done = 0

    def make_event(self):
        device = self

        class Event:
            def record(self):
                device.events.append(self)
                self.number = len(device.events)

            def query(self):
                return self.number <= device.done

            def synchronize(self):
                device.waits += 1
                device.done = max(device.done, self.number)

            def elapsed_time(self, end):
                assert self.query() and end.query(), "asked before it was known: this raises on CUDA"
                return 2.0  # ms

        return Event()

    def catch_up(self):
        self.done = len(self.events)

    def copies(self, device=None):
        return CopyStream(torch.device("cpu"), self.make_event, lambda n: torch.empty(n, dtype=torch.float64))


@pytest.fixture
def slow(monkeypatch):
    """Everything is measured as on a device, which is really host memory."""
    device = SlowDevice()
    monkeypatch.setattr(step_sample, "copy_stream_for", lambda _: device.copies())

    def init(self, slots, clock):
        self._clock = clock
        self.copies = device.copies()
        self._norms = step_sample.DeviceNorms(slots, self.copies)
        self._norms._fits = True
        self._make = step_sample.DeviceSample

    monkeypatch.setattr(step_sample.Probe, "__init__", init)
    return device


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def test_numbers_come_in_order_and_buffers_are_used_again():
    device = SlowDevice()
    copies = device.copies()
    pending = [copies.send([torch.tensor([float(i)]), torch.ones(2, 2) * i]) for i in range(3)]
    assert not pending[0].is_complete()
    device.catch_up()
    assert [copy.is_complete() for copy in pending] == [True] * 3
    assert pending[2].read().tolist() == [2.0] * 5
    assert pending[0].read().tolist() == [0.0] * 5
    assert pending[1].read().tolist() == [1.0] * 5
    assert copies.under_way == 0 and len(copies.free[64]) == 3
    copies.send([torch.zeros(1)])
    assert len(copies.free[64]) == 2 and device.waits == 0


def test_a_device_records_the_same_as_the_host(slow, tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    with watch_into(model, optimizer, every=1, update_every=1, path=tmp_path / "device.gradtui") as recorder:
        train(model, optimizer, recorder, steps=6)
    on_device = gradtui.open_run(recorder.path)
    rows = on_device.last(9)
    assert rows.step.tolist() == [1, 2, 3, 4, 5, 6] and is_measured(rows.measures)[:, :, :5].all()
    assert list(on_device.neurons(1).bias_grad) == [0, 1]

    expected = host_rows(tmp_path)
    np.testing.assert_allclose(rows.measures, expected.measures, rtol=2e-6)
    np.testing.assert_array_equal(rows.loss, expected.loss)


def host_rows(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys, torch; from tests.record.watched_nets import perceptron, train, watch_into;"
        "m = perceptron(6, 5, 4);"
        "o = torch.optim.SGD(m.parameters(), lr=0.1);"
        "r = watch_into(m, o, every=1, update_every=1, path=sys.argv[1]);"
        "train(m, o, r, steps=6); r.close()"
    )
    path = tmp_path / "host.gradtui"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    return gradtui.open_run(path).last(9)


def test_measures_of_a_user_travel_with_the_rest(slow, tmp_path):
    def on_device(number):
        number = torch.as_tensor(number)
        return number.as_subclass(OnDevice)

    class OnDevice(torch.Tensor):
        """A number that has to be copied."""

        is_cpu = False

    measures = [
        Measure("size", "s", "1", "made up", of_parameters=lambda p, g: on_device(p["weight"].norm())),
        Measure("largest", "l", "1", "made up", of_outputs=lambda o, a, layer: on_device(o.abs().max())),
        Measure("rows", "r", "1", "a number on the host", of_parameters=lambda p, g: p["weight"].shape[0]),
        Measure("bad", "b", "1", "no number", of_parameters=lambda p, g: on_device(torch.ones(2))),
    ]
    model = perceptron(6, 5, 4)
    sizes = [layer.weight.norm().item() for layer in model[::2]]
    optimizer = sgd(model)
    options = RecordOptions(every=1, update_every=1, budget=1.0, folder=tmp_path, measures=measures)
    with gradtui.watch(model, optimizer, options) as recorder:
        train(model, optimizer, recorder, steps=6)
    reader = gradtui.open_run(recorder.path)
    block = reader.last(9).measures
    assert [m.name for m in reader.measures[-4:]] == ["size", "largest", "rows", "bad"]
    own, known = block[:, :, -4:], is_measured(block)[:, :, -4:]
    assert known[:, :, [0, 2]].all() and not known[:, :, 3].any() and known[:, :, 1].any()
    np.testing.assert_allclose(own[0, :, 0], sizes, rtol=1e-6)
    assert own[:, :, 2].tolist() == [[5.0, 4.0]] * 6
    sampled = known[:, :, 1].all(axis=1)
    assert (own[sampled, :, 1] > np.abs(block[sampled, :, ACTIVATION_MEAN])).all()


def test_a_step_that_a_scaler_skips_has_no_measures_of_gradients(slow, tmp_path):
    model = torch.nn.Linear(4, 3)
    optimizer = sgd(model)
    measures = [Measure("sum", "s", "1", "made up", of_parameters=lambda p, g: g["weight"].sum())]
    options = RecordOptions(every=1, update_every=1, folder=tmp_path, measures=measures)
    with gradtui.watch(model, optimizer, options) as recorder:
        for found_inf in (0.0, 1.0):
            model.weight.grad, model.bias.grad = torch.full((3, 4), 1024.0), torch.full((3,), 2048.0)
            if found_inf:
                model.bias.grad[0] = torch.inf
            step_driven_by_a_scaler(recorder, optimizer, 512.0, found_inf)
    reader = gradtui.open_run(recorder.path)
    row, skipped = reader.last(2).measures[:, 0]
    assert row[[BIAS_GRAD_NORM, WEIGHT_GRAD_NORM, GRAD_NORM]] == pytest.approx([48**0.5, 48**0.5, 96**0.5])
    assert row[-1] == 24.0 and not is_measured(skipped[[BIAS_GRAD_NORM, GRAD_NORM, -1]]).any()
    assert list(reader.neurons(1).bias_grad[0]) == [4.0] * 3
    assert [event.text for event in reader.events() if event.kind == "skipped"]


def test_the_host_never_waits_for_the_device_before_the_end(slow, tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    recorder = watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui")
    train(model, optimizer, recorder, steps=10)
    assert slow.waits == 0
    slow.catch_up()
    train(model, optimizer, recorder, steps=1)
    assert len(recorder._recording._queue.pending) == 1 and slow.waits == 0
    recorder.close()
    assert len(gradtui.open_run(tmp_path / "r.gradtui").last(99)) == 11


def test_rows_are_left_out_while_the_device_is_far_behind(slow, tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    with watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui") as recorder:
        train(model, optimizer, recorder, steps=MOST_COPIES + 20)
    reader = gradtui.open_run(tmp_path / "r.gradtui")
    assert is_measured(reader.last(999).measures).any(axis=(1, 2)).sum() == MOST_COPIES
    assert [event.kind for event in reader.events()] == ["note"]


@pytest.mark.usefixtures("budget_alone")
def test_the_budget_reckons_with_the_time_of_the_device(slow, tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = sgd(model)
    clock = SteppedClock()
    recorder: Recorder = recorder_with(model, optimizer, tmp_path / "r.gradtui", Sampling(RecordOptions()), clock)
    for _ in range(300):
        clock.now += 0.01
        train(model, optimizer, recorder, steps=1)
        slow.catch_up()
    recorder.close()
    rows = gradtui.open_run(tmp_path / "r.gradtui").last(999)
    times = rows.time[is_measured(rows.measures).any(axis=(1, 2))]
    # two pairs of events of 2 ms each, and 1.2 times as much for the caches: a row each 880 ms at most, of 3 s
    assert 3 <= len(times) <= 4 and np.diff(times).min() >= 0.88


def test_several_biases_of_a_layer_are_joined():
    found = split_neurons([(0, 2), (0, 1), (3, 2)], np.arange(5.0))
    assert {layer: values.tolist() for layer, values in found.items()} == {0: [0, 1, 2], 3: [3, 4]}
