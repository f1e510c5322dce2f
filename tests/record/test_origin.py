"""Where a NaN began: in small trainings in which that is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gradtui.record.layers import LayerTable, specs_of
from gradtui.record.origin import GradientGuard, find_break
from gradtui.runfile import open_run
from gradtui.runfile.schema import Origin
from tests.record.watched_nets import perceptron, watch_into

STEP = 4


def origin_of(
    model: nn.Module, loss: Callable[[Tensor, int], Tensor], folder: Path, change: Callable[[], object] = lambda: None
) -> Origin:
    """Train by plain gradient descent; `change` is done to the gradients before each step."""
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch_into(model, optimizer, path=folder / "nan.run"):
        for step in range(1, STEP + 3):
            optimizer.zero_grad()
            loss(torch.randn(8, 6), step).backward()
            change()
            optimizer.step()
    with open_run(folder / "nan.run") as reader:
        (origin,) = reader.origins()
    return origin


class BreaksBackwards(nn.Module):
    """As it was; from a step on, the gradient on the way back is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == STEP:
            x = x + (0 * x).pow(2).sum(1, keepdim=True).sqrt()
        return x


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_nan_of_the_backward_pass_is_placed_although_clipping_spreads_it(clip: float | None, tmp_path: Path) -> None:
    model = perceptron(6, 5, 4, 3)  # 0 sigmoid 2 sigmoid 4
    broken = nn.Sequential(*list(model)[:2], BreaksBackwards(), *list(model)[2:])
    change = (lambda: nn.utils.clip_grad_norm_(broken.parameters(), clip)) if clip else (lambda: None)
    origin = origin_of(broken, lambda x, step: broken(x).square().mean(), tmp_path, change)
    assert (origin.step, origin.phase, origin.layer) == (STEP, "backward", 0)


def test_the_first_layer_is_not_blamed_for_a_bad_input(tmp_path: Path) -> None:
    model = perceptron(6, 5, 3)

    def loss(x: Tensor, step: int) -> Tensor:
        return model(x / 0 if step == STEP else x).square().mean()

    origin = origin_of(model, loss, tmp_path)
    assert (origin.step, origin.phase, origin.layer) == (STEP, "forward", None)


def test_what_is_broken_between_two_layers_belongs_to_the_one_before(tmp_path: Path) -> None:
    first, second = nn.Linear(6, 5), nn.Linear(5, 3)
    model = nn.Sequential(first, second)

    def loss(x: Tensor, step: int) -> Tensor:
        hidden = torch.exp(first(x) * (1e6 if step == STEP else 1))
        return second(hidden / hidden.sum(1, keepdim=True)).square().mean()

    origin = origin_of(model, loss, tmp_path)
    assert (origin.step, origin.phase, origin.layer) == (STEP, "forward", 0)


def test_the_infinity_of_a_mask_is_no_origin() -> None:
    layer, head = nn.Linear(4, 12), nn.Linear(4, 2)
    table = LayerTable()
    table.add(specs_of(nn.ModuleList([layer, head]), "", {id(layer): 0.0, id(head): 1.0}))
    q, k, v = layer(torch.randn(1, 1, 3, 4)).chunk(3, -1)
    mask = torch.full((3, 3), -torch.inf).triu(1)
    mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    loss = torch.log(0 * head(mixed).sum() - 1)  # after the head
    assert torch.isnan(loss)
    assert find_break(loss, [slot.parameter for slot in table.slots], 0).origin(table).layer == 1


def test_gradients_are_not_looked_at_where_nothing_changes_them() -> None:
    model = perceptron(6, 5, 3)
    table = LayerTable()
    table.add(specs_of(model, "", {}))
    guard = GradientGuard(table)
    for clips in (False, True):
        guard.alters = None
        model.zero_grad()
        model(torch.randn(8, 6)).square().mean().backward()
        guard.after_backward(1)
        if clips:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        guard.before_step()
        assert guard.alters is clips


def test_a_nan_that_was_left_out_is_forgotten() -> None:
    model = perceptron(6, 5, 3)
    table = LayerTable()
    table.add(specs_of(model, "", {}))
    guard = GradientGuard(table)
    for step, factor in ((1, torch.nan), (2, torch.nan), (3, 1.0)):
        model.zero_grad()
        (factor * model(torch.randn(8, 6)).square().mean()).backward()
        guard.after_backward(step)
        found = guard.found and guard.found.origin(table)
        assert (found and (found.step, found.layer)) == ((1, 1) if step < 3 else None)
