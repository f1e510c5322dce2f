"""Which pass, layer and operation a NaN is put down to, in the first step and in a later one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradtui.record.operations import POLES, operation, poles
from gradtui.runfile import open_run
from gradtui.runfile.schema import Origin
from tests.record.watched_nets import watch_into

LATER = 4
Loss = Callable[[nn.Module, Tensor, bool], Tensor]


def origin_of(loss_of: Loss, at: int, path: Path, width: int = 4) -> Origin:
    """Train two layers; the loss is told whether to break, as it does in one step."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, width))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    with watch_into(net, optimizer, path=path):
        for step in range(1, at + 3):
            optimizer.zero_grad()
            loss_of(net, torch.randn(8, 6), step == at).backward()
            optimizer.step()
    with open_run(path) as run:
        (origin,) = run.origins()
    return origin


def masked_softmax(net: nn.Module, x: Tensor, breaks: bool) -> Tensor:
    mask = torch.zeros(8, 1, dtype=torch.bool)
    mask[3] = breaks
    return net[2](net[0](x).masked_fill(mask, -torch.inf).softmax(-1)).square().mean()


def in_half(scale: float) -> Loss:
    def loss(net: nn.Module, x: Tensor, breaks: bool) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            hidden = net[0](x.sign() * (scale if breaks else 1))
            return functional.layer_norm(net[2](hidden).float(), (4,)).square().mean()

    return loss


FORWARD: dict[str, tuple[Loss, int | None, str]] = {
    "data": (lambda net, x, b: net(x / 0 if b else x).square().mean(), None, "the input of the model"),
    "target": (
        lambda net, x, b: functional.mse_loss(net(x), torch.zeros(8, 4) / (not b)), None, "target .*mse_loss"),
    "a constant": (
        lambda net, x, b: net[2](net[0](x) * torch.tensor(torch.nan if b else 1.0)).mean(), 0, "no layer made"),
    "softmax": (masked_softmax, 0, "softmax of a row that is all -∞"),
    "log of 0": (lambda net, x, b: (net(x).relu() * (0 if b else 1) + (not b)).log().mean(), 1, "log of 0"),
    "log below 0": (lambda net, x, b: (net(x).tanh() - (2 if b else -2)).log().mean(), 1, "log of a negative"),
    "sqrt": (lambda net, x, b: net[2]((net[0](x).tanh() - (2 if b else -2)).sqrt()).mean(), 0, "sqrt of a negative"),
    "division": (
        lambda net, x, b: net[2](net[0](x) / (net[0](x) * 0 + (not b)).detach()).square().mean(), 0, "division by 0"),
    "std": (lambda net, x, b: net(x[:1] if b else x).std(0).mean(), 1, "std of a single number"),
    "no targets": (
        lambda net, x, b: functional.cross_entropy(net(x), torch.full((8,), -100 if b else 1)), 1, "of no targets"),
    "exp": (lambda net, x, b: net[2](net[0](x).mul(1e4 if b else 1).exp()).mean(), 0, "exp .* overflowed float32"),
    "half": (in_half(6e4), 0, "its output overflowed float16, whose largest number is 65,504"),
    "half input": (in_half(1e6), None, "input .* infinite in float16, whose largest number is 65,504"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.parametrize("at", [1, LATER])
@pytest.mark.parametrize("name", FORWARD)
def test_the_forward_pass_is_told_with_layer_and_operation(name: str, at: int, tmp_path: Path) -> None:
    loss, layer, words = FORWARD[name]
    origin = origin_of(loss, at, tmp_path / "run")
    assert (origin.step, origin.phase, origin.layer) == (at, "forward", layer), origin
    assert re.search(words, origin.what), origin.what


def pulled(out: Tensor, breaks: bool) -> Tensor:
    """Numbers above 1, or the one place where most slopes are infinite: they depend on the net all the same."""
    return out * 0 if breaks else out.square() + 1


BACKWARD: dict[str, tuple[Loss, str]] = {
    "sqrt": (lambda net, x, b: pulled(net(x), b).sqrt().mean(), "sqrt of 0"),
    "distance": (
        lambda net, x, b: (net(x) - (net(x) if b else 0)).square().sum(1).sqrt().mul(1 - b).mean(), "sqrt of 0"),
    "pow": (lambda net, x, b: (pulled(net(x), b) ** 0.5).mean(), "power of 0"),
    "log": (lambda net, x, b: torch.where(net(x) < 99, 1.0, (net(x).relu() * (0 if b else 1) + (not b)).log()).mean()
            + net(x).mean(), "log of 0"),
    "division": (
        lambda net, x, b: torch.where(net(x) < 99, net(x), 1 / (net(x) * (0 if b else 1) + 9 * (not b))).mean(),
        "division by 0"),
    "norm": (lambda net, x, b: pulled(net(x), b).square().sum(1).sqrt().mean(), "sqrt of 0"),
    "std": (lambda net, x, b: (lambda y: (y - y.mean(1, keepdim=True)).square().mean(1).sqrt().mean())(
        net(x) * (0 if b else 1)), "sqrt of 0"),
    "acos": (lambda net, x, b: (net(x) * 0 + (1 if b else 0.5)).acos().mean(), "acos of ±1"),
}  # fmt: skip


def test_a_gradient_that_overflows_float16_is_told_with_the_format(tmp_path: Path) -> None:
    def loss(net: nn.Module, x: Tensor, breaks: bool) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            return net(x).float().square().mean() * (1e9 if breaks else 1)  # as of a loss scale that is too large

    for at in (1, LATER):
        origin = origin_of(loss, at, tmp_path / f"run{at}")
        assert (origin.step, origin.phase, origin.layer) == (at, "backward", 1), origin
        assert origin.what == "its gradient was NaN or infinite in float16, whose largest number is 65,504"


@pytest.mark.parametrize("at", [1, LATER])
@pytest.mark.parametrize("name", BACKWARD)
def test_the_backward_pass_is_told_with_the_operation_whose_slope_is_infinite(
    name: str, at: int, tmp_path: Path
) -> None:
    loss, words = BACKWARD[name]
    origin = origin_of(loss, at, tmp_path / "run")
    assert (origin.step, origin.phase, origin.layer) == (at, "backward", 1), origin
    assert re.search(words, origin.what), origin.what


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
@pytest.mark.parametrize("at", [1, LATER])
def test_an_optimizer_whose_epsilon_is_0_is_told(at: int, kind: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).to(kind)
    optimizer = torch.optim.Adam(net.parameters(), eps=1e-8 if kind == torch.float16 else 0.0)
    with watch_into(net, optimizer, path=tmp_path / "run"):
        for step in range(1, at + 2):
            optimizer.zero_grad()
            (net(torch.randn(8, 6, dtype=kind)).square().mean() * (0 if step == at else 1)).backward()
            if step < at:
                for parameter in net.parameters():
                    parameter.grad = torch.ones_like(parameter)
            elif at > 1:  # as if there had been no step before
                optimizer.state.clear()
            optimizer.step()
    with open_run(tmp_path / "run") as run:
        (origin,) = run.origins()
    assert (origin.step, origin.phase, origin.layer) == (at, "optimizer", 0)
    told = "1e-08, is 0 in float16" if kind == torch.float16 else "the ε of Adam is 0"
    assert told in origin.what


@pytest.mark.parametrize("clear", ["to none", "to zero", "never"])
def test_plain_gradient_descent_is_not_blamed_for_a_gradient(clear: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with watch_into(net, optimizer, path=tmp_path / "run"):
        for step in range(1, LATER + 2):
            if clear != "never":
                optimizer.zero_grad(set_to_none=clear == "to none")
            pulled(net(torch.randn(8, 6)), step == LATER).sqrt().mean().backward()
            optimizer.step()
    with open_run(tmp_path / "run") as run:
        (origin,) = run.origins()
    assert (origin.step, origin.phase, origin.layer) == (LATER, "backward", 1)


def test_complex_numbers_do_not_end_the_recording(tmp_path: Path) -> None:
    net = nn.Linear(6, 5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with watch_into(net, optimizer, path=tmp_path / "run", every=1):
        for _ in range(3):
            optimizer.zero_grad()
            torch.fft.fft(net(torch.randn(8, 6))).log().sqrt().abs().mean().backward()
            optimizer.step()
    with open_run(tmp_path / "run") as run:
        assert run.newer(0).step.tolist() == [1, 2, 3]


def test_parameters_that_are_nan_before_the_first_step_are_told(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    with torch.no_grad():
        net[0].weight[2] = torch.nan
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch_into(net, optimizer, path=tmp_path / "run"):
        net(torch.arange(5)).square().mean().backward()
        optimizer.step()
    with open_run(tmp_path / "run") as run:
        (origin,) = run.origins()
    assert (origin.step, origin.phase, origin.layer) == (1, "forward", 0)
    assert "before the first step" in origin.what


def test_steps_that_a_loss_scaler_skips_are_no_origin(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    optimizer = torch.optim.Adam(net.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    with watch_into(net, optimizer, path=tmp_path / "run"):
        for step in range(140):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = net(torch.randn(8, 6) / (0 if step == 139 else 1)).float().square().mean()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
    with open_run(tmp_path / "run") as run:
        (origin,) = run.origins()
        assert any(event.kind == "skipped" for event in run.events())
    assert (origin.step, origin.phase, origin.layer) == (140, "forward", None)


def test_the_graph_of_a_checkpoint_is_not_computed_again(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    calls = []
    net[0].register_forward_hook(lambda *_: calls.append(1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch_into(net, optimizer, path=tmp_path / "run"):
        hidden = torch.utils.checkpoint.checkpoint(net, torch.randn(8, 6), use_reentrant=False)
        (hidden.mean() / 0 * 0).backward()
    assert len(calls) == 2  # the pass itself, and that of backward
    with open_run(tmp_path / "run") as run:
        assert len(run.origins()) == 1


@pytest.mark.parametrize(
    "name", sorted(set(POLES) - {"linalg_eigh", "nll_loss", "std", "var", "softmax", "log_softmax"})
)
def test_each_operation_is_infinite_where_it_is_said_to_be(name: str) -> None:
    places = torch.tensor([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    for exponent in (-1.0, 0.5, 1.5, 2.0) if name == "pow" else (0.0,):
        for place in places:
            x = place.clone().requires_grad_()
            y = {
                "div": lambda x: torch.ones_like(x) / x,
                "pow": lambda x, e=exponent: x**e,
                "hypot": lambda x: torch.hypot(x, torch.zeros_like(x)),
                "xlogy": lambda x: torch.xlogy(torch.ones_like(x), x),
                "logsumexp": lambda x: torch.logsumexp(torch.where(x > 0, x, x - torch.inf).reshape(1), 0),
            }.get(name, getattr(torch, name, None))(x)
            node = y.grad_fn
            while operation(node) != name and node.next_functions:
                node = node.next_functions[0][0]
            certain_value, certain_slope = ([], []) if operation(node) != name else _poles(node)
            (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
            assert bool(certain_value) == (not bool(torch.isfinite(y).all())), (name, place, exponent)
            if operation(node) == name and name not in ("logsumexp", "div"):
                assert bool(certain_slope) == (not bool(torch.isfinite(slope))), (name, place, exponent)


def _poles(node: object) -> tuple[list[str], list[str]]:
    return poles(node, "value")[0], poles(node, "slope")[0]
