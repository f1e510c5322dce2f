"""What is seen of calls of `backward`: each loss once, and its end when it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gradtui.record.backward import Backwards


class Listener:
    def __init__(self) -> None:
        self.broken: list[float] = []

    def loss_broke(self, loss: torch.Tensor) -> None:
        self.broken.append(loss.item())


class Follower:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def backward_begins(self, loss: torch.Tensor | None) -> None:
        self.seen.append("none" if loss is None else f"{loss.item():g}")

    def backward_ended(self) -> None:
        self.seen.append("end")


@pytest.fixture
def backwards() -> Iterator[Backwards]:
    """One of its own, with a listener; PyTorch's function is put back."""
    original, found, listener = torch.autograd.backward, Backwards(), Listener()
    found.listen(listener)
    yield found
    found.ignore(listener)
    assert torch.autograd.backward is original


def loss_of(value: float) -> torch.Tensor:
    return torch.tensor(value, requires_grad=True) * 1.0


@pytest.mark.parametrize("followed", [False, True])
def test_losses_add_up_until_they_are_asked_for(backwards: Backwards, followed: bool) -> None:
    follower = Follower()
    if followed:
        backwards.follow(follower)
    loss_of(2.0).backward()
    torch.autograd.backward([loss_of(3.0)])
    loss_of(5.0).backward(torch.tensor(1.0))  # with a gradient of its own it is no loss
    assert backwards.take() == 5.0 and backwards.take() is None
    loss_of(7.0).backward()
    backwards.drop()
    assert backwards.take() is None
    assert follower.seen == (["2", "end", "3", "end", "none", "end", "7", "end"] if followed else [])
    backwards.unfollow(follower)


def test_what_is_asked_for_during_a_call_comes_at_its_end(backwards: Backwards) -> None:
    told: list[str] = []
    leaf = torch.tensor(1.0, requires_grad=True)

    def step(gradient: torch.Tensor) -> None:
        assert backwards.active
        backwards.at_end(lambda: told.append(f"active {backwards.active}"))

    leaf.register_hook(step)
    (leaf * 2.0).backward()
    assert told == ["active False"]
    loss_of(1.0).backward()
    assert told == ["active False"], "once"


def test_a_backward_within_a_backward_is_no_loss_of_its_own(backwards: Backwards) -> None:
    leaf = torch.tensor(1.0, requires_grad=True)

    @torch.enable_grad()
    def again(gradient: torch.Tensor) -> None:  # as reentrant checkpointing does it
        loss_of(100.0).backward()

    leaf.register_hook(again)
    (leaf * 2.0).backward()
    assert backwards.take() == 2.0 and not backwards.active


def test_a_call_that_fails_leaves_nothing_behind(backwards: Backwards) -> None:
    with pytest.raises(RuntimeError, match="scalar"):
        (torch.ones(3, requires_grad=True) * 1.0).backward()
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.tensor(1.0).backward()
    assert not backwards.active
    backwards.drop()
    loss_of(2.0).backward()
    assert backwards.take() == 2.0


def test_a_loss_that_broke_is_told_while_its_graph_is_there() -> None:
    found, graphs = Backwards(), []

    class Looks(Listener):
        def loss_broke(self, loss: torch.Tensor) -> None:
            graphs.append(loss.grad_fn is not None and loss.isnan().item())

    listener = Looks()
    found.listen(listener)
    loss_of(float("nan")).backward()
    loss_of(1.0).backward()
    found.ignore(listener)
    assert graphs == [True]


def test_only_the_first_losses_on_a_device_are_waited_for() -> None:
    class OnDevice:
        is_cpu = is_cuda = False

        def __init__(self, value: float) -> None:
            self.value, self.asked = value, 0

        def is_complex(self) -> bool:
            return False

        def detach(self) -> torch.Tensor:
            return torch.tensor(self.value)

        def numel(self) -> int:
            return 1

        def item(self) -> float:
            self.asked += 1
            return self.value

    found = Backwards()
    losses = [OnDevice(value) for value in (1.0, float("nan"), float("nan"))]
    assert [found.add(loss) for loss in losses] == [True, False, True]
    assert [loss.asked for loss in losses] == [1, 1, 0]
