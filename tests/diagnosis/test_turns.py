"""Layers of different optimizers, and of branches with losses of their own; of the unmeasured nothing is said."""

from __future__ import annotations

import numpy as np
import pytest

from gradtui.diagnosis import find
from gradtui.runfile import NOT_MEASURED
from tests.diagnosis.made_up import FALLING, FLAT, LAYERS, ROWS, evidence, healthy, kinds, only, put

TWO = ((1,), (1,), (2,), (2,))  # optimizers of the four layers
IN_TURNS = np.where(np.arange(ROWS) % 2, 4, 2)  # rows of number 1, then of number 2, …


def turns(took: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A healthy run in which each row has the layers of its optimizer alone."""
    block, loss = healthy()
    block[took == 2, 2:] = NOT_MEASURED
    block[took == 4, :2] = NOT_MEASURED
    return block, loss


def test_one_that_was_hardly_measured_is_not_frozen() -> None:
    """As by a schedule that misses it, in files of every age: 1 of 100 rows, before the newest ones."""
    took = np.full(ROWS, 2)
    took[3] = 4
    block, loss = turns(took)
    assert "not-updating" not in kinds(find(evidence(block, loss, held=TWO, took=took)))


def test_one_that_has_ended_its_training_is_not_frozen() -> None:
    """A net whose layers are trained one after the other: the first one's last step is step 60."""
    took = np.where(np.arange(ROWS) < 60, 2, 4)
    block, loss = turns(took)
    assert "not-updating" not in kinds(find(evidence(block, loss, held=TWO, took=took)))


@pytest.mark.parametrize("frozen", [[0], [0, 1]])
def test_one_that_is_frozen_in_its_own_steps_is(frozen: list[int]) -> None:
    block, loss = turns(IN_TURNS)
    block[:, frozen] = NOT_MEASURED
    found = only(find(evidence(block, loss, held=TWO, took=IN_TURNS)), "not-updating")
    assert found.layers == tuple(f"fc{i + 1}" for i in frozen) and found.note and found.begin == 1


def test_one_that_is_not_in_any_optimizer_is_frozen_once_all_of_them_are_known() -> None:
    held = ((), (1,), (2,), (2,))
    block, loss = turns(IN_TURNS)
    block[:, 0] = NOT_MEASURED
    assert only(find(evidence(block, loss, held=held, took=IN_TURNS)), "not-updating").layers == ("fc1",)
    once = np.full(ROWS, 2)
    once[3] = 4
    block, loss = turns(once)
    block[:, 0] = NOT_MEASURED
    assert "not-updating" not in kinds(find(evidence(block, loss, held=held, took=once)))


def test_one_that_does_not_move_in_its_own_steps_is_told() -> None:
    block, loss = turns(IN_TURNS)
    block[IN_TURNS == 2, 0, 2] = 0.0  # the update ratio
    assert only(find(evidence(block, loss, held=TWO, took=IN_TURNS)), "not-updating").layers == ("fc1",)


@pytest.mark.parametrize(
    "facts, is_said",
    [
        ({}, True),
        ({"held": [(1,)] * LAYERS}, True),
        ({"held": TWO}, False),
        ({"branches": [(1,), (1,), (3,), (3,)]}, False),  # an actor and a critic, each with a net of its own
        ({"branches": [(2, 3), (2, 3), (2,), (3,)]}, True),  # a trunk with two heads
        ({"held": [(1,), (1, 2), (2,), (2,)]}, True),  # the second with both of the others
    ],
)
@pytest.mark.parametrize("kind", ["vanishing", "exploding"])
def test_layers_are_compared_along_one_path(facts: dict, is_said: bool, kind: str) -> None:
    """The first layer against the last two, where nothing is learnt."""
    block, loss = healthy(loss=FLAT)
    put(block, "grad_norm", 1e-5 if kind == "vanishing" else 3e3, 0)
    put(block, "grad_norm", 0.3 if kind == "vanishing" else 3e3, 1)
    if kind == "vanishing":
        put(block, "grad_norm", 1e-5, 1)
    found = find(evidence(block, loss, **facts))
    assert (kind in kinds(found)) == is_said, found


def test_heads_are_not_compared_with_one_another() -> None:
    block, loss = healthy(loss=FLAT)
    for layer, norm in enumerate((30.0, 30.0, 3e3, 3.0)):
        put(block, "grad_norm", norm, layer)
    assert only(find(evidence(block, loss)), "exploding").layers == ("fc3",)
    assert kinds(find(evidence(block, loss, branches=[(2, 3), (2, 3), (2,), (3,)]))) <= {"plateau"}


def test_an_optimizer_with_larger_gradients_that_comes_later_is_no_explosion() -> None:
    took = np.where(np.arange(ROWS) < 50, 2, 4)
    block, _ = turns(took)
    block[took == 4, 2:, 0] = 1e3
    loss = np.where(took == 2, FALLING, 4 * FALLING[0])
    assert "exploding" not in kinds(find(evidence(block, loss, held=TWO, took=took)))
