"""What measuring a step is said to have cost, and how big a copy of the parameters may be."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from gradtui.record import device_norms
from gradtui.record.copy_stream import CopyStream, Stopwatch
from gradtui.record.device_norms import DeviceNorms
from gradtui.record.layers import LayerTable, specs_of
from gradtui.record.slots import Slots
from gradtui.record.step_sample import HostSample, JointSample, Probe
from tests.record.watched_nets import SteppedClock, perceptron


def slots_of(model: torch.nn.Module) -> Slots:
    table = LayerTable()
    table.add(specs_of(model, "", {}))
    return table.subset(lambda _: True)


def sample(clock: SteppedClock, *, timed: bool = True, update: bool = True) -> tuple[float, float]:
    """(cost, cost of the update) of one step."""
    model = perceptron(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    taken = Probe(slots_of(model), clock).before(optimizer, clock(), timed=timed, update=update, neurons=True)
    optimizer.step()
    taken.after()
    return taken.cost, taken.update_cost


def test_the_cost_is_all_the_time_that_measuring_took() -> None:
    # each look at the clock takes 1 s: begin, before and after the copy, at the end; before and after the update
    assert sample(SteppedClock(1.0)) == (3.0 + 1.0, 1.0 + 1.0)
    assert sample(SteppedClock(1.0), update=False) == (1.0, 0.0)
    # where the time of the gradients is nobody's concern, that of the update alone
    assert sample(SteppedClock(1.0), timed=False) == (1.0, 2.0)


def test_samples_inside_a_backward_cost_what_they_cost_together() -> None:
    class One(HostSample):
        def __init__(self, cost: float, update_cost: float) -> None:
            self.cost, self.update_cost, self.neurons, self.skipped = cost, update_cost, {}, False

        def after(self) -> None:
            """Nothing to take."""

    joint = JointSample(True, True)
    for one in (One(3.0, 1.0), One(5.0, 2.0)):
        joint.samples.append(one)
        joint.after()
    assert (joint.cost, joint.update_cost) == (8.0, 3.0)


class Event:
    """Passes each 2,000 ms."""

    def record(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return 2000.0


def test_the_stopwatch_adds_up_seconds_of_the_device() -> None:
    watch = Stopwatch(Event)
    for _ in range(3):
        watch.start()
        watch.stop()
    assert watch.seconds() == pytest.approx(6.0)
    assert watch.seconds() == 0.0, "asked before, so none are left"
    nothing = Stopwatch(None)
    nothing.start()
    nothing.stop()
    assert nothing.seconds() == 0.0


@pytest.mark.parametrize(("free", "fits"), [(159, False), (160, False), (161, True), (10_000, True)])
def test_a_copy_of_the_parameters_takes_less_than_a_quarter_of_the_free_memory(
    free: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 10 parameters of 4 bytes
    slots = slots_of(torch.nn.Linear(4, 2))
    copies = CopyStream(torch.device("cpu"), None, lambda n: torch.empty(n, dtype=torch.float64))
    module = SimpleNamespace(mem_get_info=lambda device: (free, 1 << 40))
    monkeypatch.setattr(device_norms.torch, "get_device_module", lambda device: module)
    assert DeviceNorms(slots, copies).can_hold() is fits


def test_norms_on_a_device_of_odd_kinds_of_tensors() -> None:
    copies = CopyStream(torch.device("cpu"), None, lambda n: torch.empty(n, dtype=torch.float64))
    kinds = [
        torch.tensor([3.0, 4.0]),
        torch.tensor([3.0 + 4.0j]),
        torch.sparse_coo_tensor([[1, 1, 0]], [1.0, 2.0, 4.0], (3,)),
        torch.tensor([[3.0, 0.0], [0.0, 4.0]]).to_sparse_csr(),
        torch.tensor([3e30, 4e30]),
        torch.tensor([6.0, 8.0], dtype=torch.bfloat16),
    ]
    norms = DeviceNorms(slots_of(torch.nn.Linear(1, 1)), copies)._squares(kinds)
    assert norms.tolist() == pytest.approx([25.0, 25.0, 25.0, 25.0, 25e60, 100.0], rel=1e-6)
