"""Which layers have losses of their own, as the graphs of the first losses show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from gradtui.record.backward import backwards
from gradtui.runfile import open_run
from tests.record.watched_nets import watch_into


class Agent(nn.Module):
    """A trunk, the heads of an actor and of a critic, and a spread that is a parameter by itself."""

    def __init__(self, shares: bool, bias: bool) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6, bias=bias), nn.Tanh())
        self.other = self.trunk if shares else nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.actor, self.critic = nn.Linear(6, 2, bias=bias), nn.Linear(6, 1, bias=bias)
        self.spread = nn.Parameter(torch.zeros(2))

    def losses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, value = self.actor(self.trunk(x)), self.critic(self.other(x))
        policy = torch.distributions.Normal(mean, self.spread.expand_as(mean).exp())
        return -policy.log_prob(torch.ones(2)).mean(), value.square().mean() * 1000


def together(losses: tuple[Tensor, Tensor]) -> None:
    (losses[0] + losses[1]).backward()


def one_after_the_other(losses: tuple[Tensor, Tensor]) -> None:
    losses[0].backward(retain_graph=True)
    losses[1].backward()


def branches_of(model: nn.Module, step: Callable[[], None], path: Path) -> dict[str, set[str]]:
    """Layer -> the names of the last layers that it leads to, in the run of four steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch_into(model, optimizer, path):
        for _ in range(6):
            optimizer.zero_grad()
            step()
            optimizer.step()
        assert backwards._is_plain, "nobody looks any more"
    with open_run(path) as run:
        layers = run.layers()
    return {layer.name: {layers[end].name for end in layer.branches} for layer in layers}


@pytest.mark.parametrize("backward", [together, one_after_the_other])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shares", [True, False])
def test_heads_have_branches_of_their_own(shares: bool, bias: bool, backward: Callable, tmp_path: Path) -> None:
    agent = Agent(shares, bias)
    found = branches_of(agent, lambda: backward(agent.losses(torch.ones(5, 4))), tmp_path / "a.gradtui")
    assert found.pop("Agent") == {"Agent"}, "the spread"
    assert found.pop("actor") == {"actor"} and found.pop("critic") == {"critic"}
    assert found.pop("trunk.0") == found.pop("trunk.2") == ({"actor", "critic"} if shares else {"actor"})
    assert found == ({} if shares else {"other.0": {"critic"}})


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 8)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2))
        self.norm = nn.LayerNorm(8)
        self.convolution = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x)
        for block in self.blocks:
            x = block(x)
        x = relu(self.convolution(x.transpose(1, 2))).transpose(1, 2)
        return self.norm(x) @ self.words.weight.T  # tied


def test_a_net_with_one_loss_has_one_branch(tmp_path: Path) -> None:
    model = Residual()
    tokens = torch.arange(10)[None]

    def step() -> None:
        nn.functional.cross_entropy(model(tokens)[0], tokens[0]).backward()

    found = branches_of(model, step, tmp_path / "a.gradtui")
    assert set(map(frozenset, found.values())) == {frozenset({"words"})}, found


def test_layers_that_no_graph_shows_have_none(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model.add_module("unused", nn.Linear(2, 2))

    def step() -> None:
        model[1](model[0](torch.ones(2, 3))).square().mean().backward()

    assert branches_of(model, step, tmp_path / "a.gradtui") == {"0": {"1"}, "1": {"1"}, "unused": set()}
