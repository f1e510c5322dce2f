"""Trainings that take gradients by `torch.autograd.grad` or `torch.func` and update by themselves: recorded or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from gradtui.options import RecordOptions
from gradtui.record.autoattach import AutoRecorder
from gradtui.record.backward import backwards
from gradtui.record.grad_calls import grad_calls
from gradtui.record.manual_steps import REPLACED_BEFORE
from gradtui.record.patches import on_every_optimizer
from gradtui.run_request import RunRequest
from gradtui.runfile import RunReader, is_measured, open_run
from gradtui.runfolder import mark_starting
from tests.record.columns_of_ours import GRAD_NORM, PARAM_NORM, UPDATE_RATIO
from tests.record.watched_nets import perceptron

STEPS, RATE = 12, 0.1
Told = list[tuple[float, list[list[float]]]]  # loss; of each layer gradient norm, parameter norm, update ratio


def patched() -> list[object]:
    """What is wrapped while a training is looked for."""
    return [torch.autograd._engine_run_backward, torch._functorch.eager_transforms.grad_and_value_impl]


def recorded(train: Callable[[], object], folder: Path) -> RunReader | None:
    """The run of what `gradtui run` finds in a training; None if it finds nothing."""
    originals = patched()
    options = RecordOptions(every=1, update_every=1, folder=folder)
    auto = AutoRecorder(RunRequest(folder / "auto.gradtui", options))
    auto._look_for_updates()
    handle = on_every_optimizer(auto.before_any_step)
    try:
        train()
    finally:
        handle.remove()
        auto._stop_looking()
        backwards.unfollow(auto)
        if auto._recording is not None:
            auto._recording.close()
    assert patched() == originals
    return open_run(folder / "auto.gradtui") if (folder / "auto.gradtui").exists() else None


def norm(tensors: list[Tensor]) -> float:
    return float(torch.cat([tensor.detach().double().flatten() for tensor in tensors]).norm())


def tell(told: Told, loss: Tensor, before: list[Tensor], grads: list[Tensor], after: list[Tensor]) -> None:
    """Note what is to be recorded of a step of a net of layers with a weight and a bias each."""
    rows = []
    for i in range(0, len(before), 2):
        old, new = before[i : i + 2], after[i : i + 2]
        moved = [(b.double() - a.double()) for a, b in zip(old, new, strict=True)]
        rows.append([norm(grads[i : i + 2]), norm(old), norm(moved) / norm(old)])
    told.append((loss.item(), rows))


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 6, generator=generator) for _ in range(STEPS)]


def agree(reader: RunReader | None, told: Told, first: int, last: int = STEPS) -> None:
    assert reader is not None
    assert not [event.text for event in reader.events() if event.kind == "recorder"]
    rows = reader.last(99)
    assert rows.step[is_measured(rows.measures[:, 0, GRAD_NORM])].tolist() == list(range(first, last + 1))
    for step, loss, row in zip(rows.step.tolist(), rows.loss, rows.measures, strict=True):
        if first <= step <= last:
            expected, layers = told[step - 1]
            assert loss == pytest.approx(expected, rel=1e-6)
            np.testing.assert_allclose(row[:, [GRAD_NORM, PARAM_NORM, UPDATE_RATIO]], layers, rtol=2e-4)


def in_place(told: Told) -> list[Tensor]:
    """`torch.autograd.grad`, and parameters of a model that are changed where they are."""
    model = perceptron(6, 5, 4)
    parameters = list(model.parameters())
    for x in batches():
        loss = model(x).square().mean()
        grads = torch.autograd.grad(loss, parameters)
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter -= RATE * grad
        tell(told, loss, before, list(grads), parameters)
        assert all(p.grad is None for p in parameters)
    return parameters


def replaced(told: Told) -> list[Tensor]:
    """The same, of tensors in whose place new ones are put."""
    weights = [p.detach().clone().requires_grad_() for p in perceptron(6, 5, 4).parameters()]
    for x in batches():
        hidden = torch.sigmoid(x @ weights[0].T + weights[1])
        loss = (hidden @ weights[2].T + weights[3]).square().mean()
        grads = torch.autograd.grad(loss, weights)
        before = weights
        weights = [(w - RATE * g).detach().requires_grad_() for w, g in zip(weights, grads, strict=True)]
        tell(told, loss, before, list(grads), weights)
    return weights


def functional(told: Told, *, changes: bool = False) -> list[Tensor]:
    """`torch.func.grad_and_value` of `functional_call`."""
    model = perceptron(6, 5, 4)
    params = {name: p.detach().clone() for name, p in model.named_parameters()}

    def loss_of(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, params, (x,)).square().mean()

    for x in batches():
        grads, loss = torch.func.grad_and_value(loss_of)(params, x)
        before = [p.clone() for p in params.values()]
        if changes:
            for name in params:
                params[name].sub_(RATE * grads[name])
        else:
            params = {name: p - RATE * grads[name] for name, p in params.items()}
        tell(told, loss, before, list(grads.values()), list(params.values()))
    return list(params.values())


def nested(told: Told, *, apart: bool = False) -> list[Tensor]:
    """The parameters are a dict of dicts, or several arguments."""
    tensors = [p.detach().clone() for p in perceptron(6, 5, 4).parameters()]

    def loss_of(first: dict[str, Tensor], second: dict[str, Tensor], x: Tensor) -> Tensor:
        return (torch.sigmoid(x @ first["w"].T + first["b"]) @ second["w"].T + second["b"]).square().mean()

    for x in batches():
        before = tensors
        first, second = (dict(zip("wb", tensors[i : i + 2], strict=True)) for i in (0, 2))
        if apart:
            grads, loss = torch.func.grad_and_value(loss_of, argnums=(0, 1))(first, second, x)
        else:
            tree = {"first": first, "second": second}
            grads, loss = torch.func.grad_and_value(lambda tree, x: loss_of(*tree.values(), x))(tree, x)
            grads = list(grads.values())
        flat = [grad[key] for grad in grads for key in "wb"]
        tensors = [p - RATE * g for p, g in zip(tensors, flat, strict=True)]
        tell(told, loss, before, flat, tensors)
    return tensors


@pytest.mark.parametrize(
    ("train", "first", "last", "layers"),
    [
        (in_place, 2, STEPS, ["0", "2"]),
        (replaced, REPLACED_BEFORE + 1, STEPS - 1, ["weights[0]", "weights[1]", "weights[2]", "weights[3]"]),
        (functional, REPLACED_BEFORE + 1, STEPS - 1, ["0", "2"]),
        (lambda told: functional(told, changes=True), 2, STEPS - 1, ["0", "2"]),
        (nested, REPLACED_BEFORE + 1, STEPS - 1, ["first", "second"]),
        (lambda told: nested(told, apart=True), REPLACED_BEFORE + 1, STEPS - 1, ["first", "second"]),
    ],
    ids=["in place", "replaced", "functional", "functional in place", "dict of dicts", "two arguments"],
)
def test_the_training_is_recorded_and_goes_as_without(
    train: Callable[[Told], list[Tensor]], first: int, last: int, layers: list[str], tmp_path: Path
) -> None:
    plain, told, weights = train([]), Told(), list[Tensor]()
    reader = recorded(lambda: weights.extend(train(told)), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain, weights, strict=True))
    assert reader is not None and [layer.name for layer in reader.layers()] == layers
    if len(layers) > 2:  # a layer for each tensor
        told = [(loss, []) for loss, _ in told]
        rows = reader.last(99)
        assert rows.step.tolist() == [*range(first, last + 1), STEPS]
        np.testing.assert_allclose(rows.loss[:-1], [told[step - 1][0] for step in range(first, last + 1)], rtol=1e-6)
        assert (rows.measures[:-1, :, UPDATE_RATIO] > 0).all()
        return
    agree(reader, told, first, last)
    assert {layer.kind for layer in reader.layers()} == {"Linear" if layers == ["0", "2"] else "Tensor"}
    assert reader.last(1).step.tolist() == [STEPS]


def test_gradients_that_are_taken_twice_for_one_update_are_one_step(tmp_path: Path) -> None:
    def train() -> None:
        model = perceptron(6, 5, 4)
        parameters = list(model.parameters())
        for x in batches():
            for retain in (True, False):  # for instance to know its norm first
                loss = model(x).square().mean()
                grads = torch.autograd.grad(loss, parameters, retain_graph=retain)
            with torch.no_grad():
                for parameter, grad in zip(parameters, grads, strict=True):
                    parameter -= RATE * grad

    reader = recorded(train, tmp_path)
    assert reader is not None and reader.last(99).step.tolist() == list(range(2, STEPS + 1))
    assert (reader.last(99).measures[:, :, UPDATE_RATIO] > 0).all()


def trains(kind: str) -> list[Tensor]:
    """A net of two matrices, trained in one of many ways: the gradients of all are the same, and so are the weights."""
    generator = torch.Generator().manual_seed(0)
    first, last = torch.randn(6, 5, generator=generator), torch.randn(5, 4, generator=generator) / 2

    def cost(first: Tensor, last: Tensor, x: Tensor) -> Tensor:
        return (torch.tanh(x @ first) @ last).square().mean()

    def of_dict(tree: dict[str, dict[str, Tensor]], x: Tensor) -> Tensor:
        return cost(tree["first"]["w"], tree["last"]["w"], x)

    for x in batches() * 2:
        if kind in ("replaced", "vector"):
            first.requires_grad_(), last.requires_grad_()
            output = (torch.tanh(x @ first) @ last).square()
            if kind == "replaced":
                output.mean().backward()
            else:
                output.backward(torch.full_like(output, 1 / output.numel()))
            grads = [first.grad, last.grad]
        elif kind == "argnums":
            grads = torch.func.grad(cost, argnums=(0, 1))(first, last, x)
        elif kind == "nested":
            tree, _ = torch.func.grad_and_value(of_dict)({"first": {"w": first}, "last": {"w": last}}, x)
            grads = [tree["first"]["w"], tree["last"]["w"]]
        elif kind == "tuples":
            (grads,) = torch.func.grad(lambda trees: cost(*trees[0], x))([(first, last)])  # noqa: B023
        elif kind == "aux":
            grads, _ = torch.func.grad(lambda pair, x: (cost(*pair, x), x), has_aux=True)((first, last), x)
        elif kind == "per sample":
            each = torch.func.vmap(torch.func.grad(cost, argnums=(0, 1)), (None, None, 0))(first, last, x[:, None])
            grads = [one.mean(0) for one in each]
        elif kind == "ensemble":
            both = torch.func.vmap(torch.func.grad(cost, argnums=(0, 1)), (0, 0, None))
            grads = [one[0] for one in both(first[None], last[None], x)]
        first, last = ((w - RATE * g).detach() for w, g in zip((first, last), grads, strict=True))
    return [first, last]


KINDS = {
    "replaced": ["first", "last"],
    "vector": ["first", "last"],
    "argnums": ["first", "last"],
    "nested": ["first", "last"],
    "tuples": ["0"],
    "aux": ["first", "last"],
    "per sample": ["first", "last"],
    "ensemble": ["first", "last"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_are_replaced_are_recorded_in_whatever_way_gradients_are_taken(kind: str, tmp_path: Path) -> None:
    """The norms of all kinds are those of one of them, which the tests above compare with autograd's."""
    plain, seen = trains(kind), list[Tensor]()
    reader = recorded(lambda: seen.extend(trains(kind)), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    assert reader is not None and [layer.name for layer in reader.layers()] == KINDS[kind]
    rows = reader.last(99)
    assert rows.step[-1] == 2 * STEPS and len(rows.step) >= 2 * STEPS - REPLACED_BEFORE - 1
    at = rows.step.tolist().index(STEPS)
    expected = {"grad": [], "ratio": []}  # type: dict[str, list[float]]
    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn(6, 5, generator=generator), torch.randn(5, 4, generator=generator) / 2]
    for x in batches():
        pair = [one.detach().requires_grad_() for one in pair]
        grads = torch.autograd.grad((torch.tanh(x @ pair[0]) @ pair[1]).square().mean(), pair)
        expected["grad"], before = [norm([g]) for g in grads], pair
        pair = [w - RATE * g for w, g in zip(pair, grads, strict=True)]
        expected["ratio"] = [norm([n - o]) / norm([o]) for n, o in zip(pair, before, strict=True)]
    if kind == "tuples":
        np.testing.assert_allclose(rows.measures[at, 0, GRAD_NORM], np.hypot(*expected["grad"]), rtol=1e-4)
        return
    np.testing.assert_allclose(rows.measures[at, :, GRAD_NORM], expected["grad"], rtol=1e-4)
    np.testing.assert_allclose(rows.measures[at, :, UPDATE_RATIO], expected["ratio"], rtol=1e-3)


def test_one_tensor_and_gradients_with_a_graph_are_trainings_too(tmp_path: Path) -> None:
    def one_tensor() -> None:
        w = torch.randn(6, 4)
        for x in batches() * 2:
            w = w - RATE * torch.func.grad(lambda w, x: (x @ w).square().mean())(w, x)

    def with_graph() -> None:
        model = perceptron(6, 5, 4)
        parameters = list(model.parameters())
        for x in batches():
            grads = torch.autograd.grad(model(x).square().mean(), parameters, create_graph=True)
            with torch.no_grad():
                for parameter, grad in zip(parameters, grads, strict=True):
                    parameter -= RATE * grad

    for train, layers in ((one_tensor, ["w"]), (with_graph, ["0", "2"])):
        folder = tmp_path / train.__name__
        folder.mkdir()
        reader = recorded(train, folder)
        assert reader is not None and [layer.name for layer in reader.layers()] == layers


def test_saliency_and_attacks_on_one_input_are_no_training(tmp_path: Path) -> None:
    def explain() -> None:
        model = perceptron(6, 5, 1)
        for x in batches() * 3:
            torch.func.grad(lambda x: model(x).square().sum())(x)
            x.requires_grad_()
            torch.autograd.grad(model(x).square().sum(), x)
        raw = torch.randn(6, 4, requires_grad=True)
        x = batches()[0]
        for _ in range(30):
            x = x.detach().requires_grad_()
            x = x + 0.01 * torch.autograd.grad((x @ raw).square().mean(), x)[0].sign()

    assert recorded(explain, tmp_path) is None


def with_penalty() -> None:
    """A gradient penalty, and an optimizer."""
    model = perceptron(6, 5, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x in batches():
        x.requires_grad_()
        (grad,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        optimizer.zero_grad()
        (model(x).square().mean() + (grad.norm() - 1) ** 2).backward()
        optimizer.step()


def inner_loop() -> None:
    """Inner steps of meta-learning, before its optimizer has stepped."""
    model = perceptron(6, 5, 4)
    for create_graph in (True, False):
        for x in batches():
            fast = dict(model.named_parameters())
            for _ in range(3):
                loss = torch.func.functional_call(model, fast, (x,)).square().mean()
                grads = torch.autograd.grad(loss, list(fast.values()), create_graph=create_graph)
                fast = {name: p - 0.1 * g for (name, p), g in zip(fast.items(), grads, strict=True)}


def attack() -> None:
    """Adversarial examples."""
    model = perceptron(6, 5, 1)
    for x in batches():
        bad = x.clone()
        for _ in range(10):
            bad = bad.detach().requires_grad_()
            (grad,) = torch.autograd.grad(model(bad).square().mean(), bad)
            bad = bad + 0.1 * grad.sign()
        delta = torch.zeros_like(x, requires_grad=True)
        for _ in range(10):
            (grad,) = torch.autograd.grad(model(x + delta).square().mean(), [delta])
            delta.data = delta.data + 0.1 * grad.sign()


def per_sample() -> None:
    """Gradients of each sample, curvature: nothing is trained."""
    model = perceptron(6, 5, 1)
    params = {name: p.detach() for name, p in model.named_parameters()}

    def loss_of(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, params, (x,)).square().mean()

    for x in batches():
        torch.func.vmap(torch.func.grad(loss_of), (None, 0))(params, x)
        torch.func.grad(lambda x: torch.func.grad(lambda x: model(x).square().sum())(x).sum())(x)
        torch.func.grad(loss_of)(params, x)
        torch.autograd.grad(model(x).square().mean(), list(model.parameters()))


@pytest.mark.parametrize("train", [inner_loop, attack, per_sample])
def test_what_is_no_training_is_not_recorded(train: Callable[[], None], tmp_path: Path) -> None:
    assert recorded(train, tmp_path) is None


def test_a_penalty_beside_an_optimizer_is_no_step(tmp_path: Path) -> None:
    reader = recorded(with_penalty, tmp_path)
    assert reader is not None and reader.last(99).step.tolist() == list(range(1, STEPS + 1))


@pytest.mark.parametrize("fails", ["begin", "measure", "finish"])
def test_a_failure_is_told_once_and_training_goes_on(fails: str, monkeypatch, tmp_path: Path, capfd) -> None:
    from gradtui.record.step_machine import StepMachine

    def boom(*_: object) -> None:
        raise RuntimeError("out of order")

    plain, weights = in_place([]), list[Tensor]()
    monkeypatch.setattr(StepMachine, fails, boom)
    recorded(lambda: weights.extend(in_place([])), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain, weights, strict=True))
    assert capfd.readouterr().err.count("training goes on") == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["autograd", "func"])
def test_compiled_gradients_are_compiled_as_without(what: str, tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    model = nn.Linear(6, 4)
    params = {name: p.detach().clone().requires_grad_(what == "autograd") for name, p in model.named_parameters()}

    def loss_of(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return mse_loss(torch.func.functional_call(model, params, (x,)), torch.zeros(8, 4))

    def gradients(params: dict[str, Tensor], x: Tensor) -> list[Tensor]:
        if what == "func":
            return list(torch.func.grad(loss_of)(params, x).values())
        return list(torch.autograd.grad(loss_of(params, x), list(params.values())))

    found = []

    def train() -> None:
        torch._dynamo.reset()
        counters.clear()
        compiled = torch.compile(gradients, backend="eager")
        results = [compiled(params, x) for x in batches()[:3]]
        stats = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
        found.append((results, stats))

    train()
    assert recorded(train, tmp_path) is None
    torch._dynamo.reset()
    counters.clear()
    (plain, expected), (seen, stats) = found
    assert stats == expected
    assert all(torch.equal(a, b) for one, two in zip(plain, seen, strict=True) for a, b in zip(one, two, strict=True))


def test_gradients_by_vjp_and_jacrev_are_noted_for_the_end(tmp_path: Path) -> None:
    auto = AutoRecorder(RunRequest(tmp_path / "auto.gradtui", RecordOptions(folder=tmp_path)))
    mark_starting(auto._request.path)
    auto._look_for_updates()
    before = grad_calls.transformed
    for take in (torch.func.jacrev, lambda cost: lambda at: torch.func.vjp(cost, at)[1](torch.ones(()))[0]):
        w = torch.randn(6, 4)
        for x in batches():
            cost = lambda w, x=x: (x @ w).square().mean()  # noqa: E731
            w = w - RATE * take(cost)(w)
    auto._stop_looking()
    backwards.unfollow(auto)
    assert grad_calls.transformed >= before + 2 * STEPS
    auto.note_what_was_missed()
    assert "gradients were taken inside a transform" in auto._request.why_nothing()
