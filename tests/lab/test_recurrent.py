"""Recurrent nets against their equations, and the gradient through time against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gradtui.lab.costs import COSTS, share_right
from gradtui.lab.recipe import Recipe
from gradtui.lab.recurrent import Recurrent, build_recurrent
from gradtui.lab.tensors import load, sequences_of_epoch
from pretrain.data import adding
from pretrain.errors import DataError

Array = np.ndarray
T, BATCH = 6, 3
BASE = Recipe(
    data="adding", net="rnn", activation="tanh", cost="squared", init="xavier", hidden=(4,), length=T, dtype="float64"
)


def sigma(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def built(recipe: Recipe) -> Recurrent:
    net = build_recurrent(recipe, torch.Generator().manual_seed(0))
    with torch.no_grad():  # biases that matter
        for name, parameter in net.named_parameters():
            if "bias" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    return net


def sequences(seed: int = 0) -> tuple[Array, Array]:
    inputs, targets = adding(BATCH, T, np.random.default_rng(seed))
    return inputs.astype(float), targets.astype(float)


def step(kind: str, activation: str, cell: torch.nn.Module, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """One time step, written out."""
    own = {name: p.detach().numpy() for name, p in cell.named_parameters()}
    a = x @ own["weight_ih"].T + own["bias_ih"]
    b = h @ own["weight_hh"].T + own["bias_hh"]
    if kind == "rnn":
        return {"tanh": np.tanh, "relu": lambda z: np.maximum(0, z), "sigmoid": sigma}[activation](a + b), c
    if kind == "lstm":  # Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000
        i, f, g, o = np.split(a + b, 4, axis=1)
        c = sigma(f) * c + sigma(i) * np.tanh(g)
        return sigma(o) * np.tanh(c), c
    (ar, az, an), (br, bz, bn) = np.split(a, 3, axis=1), np.split(b, 3, axis=1)  # Cho et al. 2014
    r, z = sigma(ar + br), sigma(az + bz)
    return (1 - z) * np.tanh(an + r * bn) + z * h, c


KINDS = [("rnn", "tanh"), ("rnn", "relu"), ("rnn", "sigmoid"), ("lstm", "tanh"), ("gru", "tanh")]


@pytest.mark.parametrize(("kind", "activation"), KINDS)
@pytest.mark.parametrize("hidden", [(4,), (4, 3)])
def test_the_output_is_that_of_the_equations(kind: str, activation: str, hidden: tuple[int, ...]) -> None:
    net = built(BASE.but(net=kind, activation=activation, hidden=hidden))
    inputs, _ = sequences()
    states = [inputs[:, t] for t in range(T)]
    for name, units in zip(net.cells, hidden, strict=True):
        h = c = np.zeros((BATCH, units))
        after = []
        for x in states:
            h, c = step(kind, activation, dict(net.named_children())[name], x, h, c)
            after.append(h)
        states = after
    expected = states[-1] @ net.fc.weight.detach().numpy().T + net.fc.bias.detach().numpy()
    np.testing.assert_allclose(net(torch.from_numpy(inputs)).detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize(("kind", "activation"), KINDS)
def test_the_gradient_through_time_is_what_nudging_a_state_does_to_the_cost(kind: str, activation: str) -> None:
    net = built(BASE.but(net=kind, activation=activation))
    inputs, targets = sequences()
    cell = dict(net.named_children())[f"{kind}1"]
    weight, bias = net.fc.weight.detach().numpy(), net.fc.bias.detach().numpy()

    def cost(at: int, which: str, nudge: Array) -> float:
        h = c = np.zeros((BATCH, 4))
        for t in range(T):
            h, c = step(kind, activation, cell, inputs[:, t], h, c)
            if t == at and which == "h1":
                h = h + nudge
            elif t == at:
                # the output of this step was made of the state before the nudge came: h is made again
                own = h / np.tanh(c)
                c = c + nudge
                h = own * np.tanh(c)
        return float(((h @ weight.T + bias - targets) ** 2).mean())

    net.watched = True
    COSTS["squared"](net(torch.from_numpy(inputs)), torch.from_numpy(targets)).backward()
    found = net.through_time()
    assert set(found) == ({"h1", "c1"} if kind == "lstm" else {"h1"})
    for which, norms in found.items():
        for t in range(T):
            gradient = np.zeros((BATCH, 4))
            for index in np.ndindex(BATCH, 4):
                nudge = np.zeros((BATCH, 4))
                nudge[index] = 1e-6
                gradient[index] = (cost(t, which, nudge) - cost(t, which, -nudge)) / 2e-6
            assert float(norms[t]) == pytest.approx(np.linalg.norm(gradient), rel=1e-5, abs=1e-9)


def test_states_are_kept_only_while_they_are_watched() -> None:
    net = built(BASE.but(hidden=(4, 3)))
    inputs, targets = (torch.from_numpy(part) for part in sequences())
    COSTS["squared"](net(inputs), targets).backward()
    assert net.through_time() == {}
    net.watched = True
    COSTS["squared"](net(inputs), targets).backward()
    assert [(name, len(norms)) for name, norms in net.through_time().items()] == [("h1", T), ("h2", T)]
    assert net.through_time() == {}, "asked for once"


def test_the_adding_problem_marks_one_number_in_each_half() -> None:
    inputs, targets = adding(2_000, 11, np.random.default_rng(3))
    assert inputs.shape == (2_000, 11, 2) and targets.shape == (2_000, 1)
    numbers, marks = inputs[..., 0], inputs[..., 1]
    assert set(np.unique(marks)) == {0.0, 1.0}
    assert (marks[:, :5].sum(1) == 1).all() and (marks[:, 5:].sum(1) == 1).all()
    np.testing.assert_allclose((numbers * marks).sum(1), targets[:, 0], rtol=1e-6)
    assert set(marks.argmax(1)) == set(range(5)), "every place of the first half"
    assert numbers.min() >= 0 and numbers.max() < 1
    # always guessing 1 has the variance of the sum of two numbers from U(0, 1): 1/6, here with its standard error
    squared = (targets - 1) ** 2
    assert squared.mean() == pytest.approx(1 / 6, abs=5 * squared.std() / 2_000**0.5)


@pytest.mark.parametrize("length", [1, 0, -3])
def test_a_sequence_of_less_than_two_is_refused(length: int) -> None:
    with pytest.raises(DataError, match="2 time steps or more"):
        adding(5, length, np.random.default_rng(0))


def test_each_epoch_has_new_sequences_and_a_seed_has_the_same() -> None:
    first, again, second = (sequences_of_epoch(BASE.but(train_size=9), epoch)[0] for epoch in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, second)
    tensors = load(BASE.but(train_size=9))
    assert tensors.validation is not None and tensors.test is not None
    assert not torch.equal(tensors.validation[0], tensors.test[0])


def test_digits_are_read_row_by_row() -> None:
    flat, rows = load(Recipe()), load(Recipe(net="lstm", activation="tanh"))
    assert rows.images.shape == (1200, 8, 8)
    assert torch.equal(rows.images.reshape(1200, 64), flat.images)


def test_a_sequence_is_right_within_four_hundredths() -> None:
    outputs, wanted = torch.tensor([[1.0], [1.03], [0.95], [0.5]]), torch.ones(4, 1)
    assert share_right(outputs, wanted) == 0.5
