"""Trainings with a twist: every number against plain autograd, and the weights bit for bit as without the recorder."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import gradtui
from gradtui.options import RecordOptions
from gradtui.record.budget import Sampling
from gradtui.runfile import is_measured
from tests.record.columns_of_ours import GRAD_NORM
from tests.record.oracle import Training, compare
from tests.record.watched_nets import SteppedClock, perceptron, recorder_with


def batches(count: int = 3, width: int = 6, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, width, generator=generator).to(dtype) for _ in range(count)]


def training_of(make, make_optimizer=None, *, dtype=torch.float32, set_to_none=True, loss_of=None) -> Training:
    """Three plain steps of a model."""

    def training(probe):
        torch.manual_seed(0)
        model = make()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = (make_optimizer or (lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9)))(trained)
        probe.watch(model, optimizer)
        for x in batches(dtype=dtype):
            optimizer.zero_grad(set_to_none=set_to_none)
            loss = (loss_of or (lambda model, x: model(x).abs().square().mean()))(model, x)
            loss.backward()
            probe.before(loss)
            optimizer.step()
            probe.after()

    return training


def test_accumulated_gradients_are_those_of_the_step_and_their_losses_add_up(tmp_path: Path) -> None:
    def training(probe):
        model = perceptron(6, 5, 4)
        optimizer = torch.optim.Adam(model.parameters())
        probe.watch(model, optimizer)
        for x in batches():
            optimizer.zero_grad()
            losses = [model(part).square().mean() / 4 for part in x.chunk(4)]
            for loss in losses:
                loss.backward()
            probe.before(sum(loss.item() for loss in losses))
            optimizer.step()
            probe.after()

    compare(training, tmp_path / "r.gradtui")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floats_have_their_norms(dtype, tmp_path: Path) -> None:
    compare(training_of(lambda: perceptron(6, 50, 70, 4).to(dtype), dtype=dtype), tmp_path / "r.gradtui")


def test_complex_parameters_have_the_norm_of_their_absolute_values(tmp_path: Path) -> None:
    def make():
        return nn.Sequential(nn.Linear(6, 5, dtype=torch.complex64), nn.Linear(5, 3, dtype=torch.complex128))

    def loss_of(model, x):
        return model[1](model[0](x).to(torch.complex128)).abs().square().mean()

    reader = compare(training_of(make, dtype=torch.complex64, loss_of=loss_of), tmp_path / "r.gradtui")
    model = make()
    assert len(reader.neurons(1).bias_grad[0]) == len(model[0].bias)


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
def test_checkpointed_activations(reentrant, tmp_path: Path) -> None:
    def loss_of(model, x):
        hidden = checkpoint(model[:2], x.clone().requires_grad_(), use_reentrant=reentrant)
        return checkpoint(model[2:], hidden, use_reentrant=reentrant).square().mean()

    compare(training_of(lambda: perceptron(6, 5, 5, 4), loss_of=loss_of), tmp_path / "r.gradtui")


class Tied(nn.Module):
    """A weight that two layers share, a frozen layer between them, and a layer of which the weight alone is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.frozen = nn.Linear(6, 6), nn.Linear(6, 6).requires_grad_(False)
        self.partly, self.decode = nn.Linear(6, 6), nn.Linear(6, 6)
        self.partly.weight.requires_grad_(False)
        self.decode.weight = self.encode.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.partly(self.frozen(self.encode(x).tanh())))


def test_shared_and_frozen_parameters(tmp_path: Path) -> None:
    compare(training_of(Tied), tmp_path / "r.gradtui")


@pytest.mark.parametrize("make_optimizer", [lambda ps: torch.optim.SGD(ps, lr=0.1), torch.optim.SparseAdam])
def test_sparse_gradients(make_optimizer, tmp_path: Path) -> None:
    def loss_of(model, x):
        return model((x[:, :5] * 3).long().abs()).square().mean()

    compare(
        training_of(lambda: nn.Embedding(20, 4, sparse=True), make_optimizer, loss_of=loss_of), tmp_path / "r.gradtui"
    )


def test_parametrized_weights_belong_to_the_layer_whose_weights_they_make(tmp_path: Path) -> None:
    def make():
        return nn.Sequential(
            parametrizations.weight_norm(nn.Linear(6, 6)),
            nn.Tanh(),
            parametrizations.orthogonal(nn.Linear(6, 6, bias=False)),
            nn.Tanh(),
            parametrizations.spectral_norm(nn.Linear(6, 6)),
            nn.Linear(6, 3),
        )

    reader = compare(training_of(make), tmp_path / "r.gradtui")
    layers = reader.layers()
    assert [layer.name for layer in layers] == ["0", "2", "4", "5"]
    assert layers[0].shapes == {"bias": (6,), "weight.original0": (6, 1), "weight.original1": (6, 6)}
    assert [layer.input_shape for layer in layers] == [(6,)] * 4
    assert layers[0].kind == "Linear"


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_weight_norm_of_old(tmp_path: Path) -> None:
    compare(training_of(lambda: nn.utils.weight_norm(nn.Linear(6, 6))), tmp_path / "r.gradtui")


def test_gradients_that_are_zeroed_in_place(tmp_path: Path) -> None:
    compare(training_of(lambda: perceptron(6, 5, 4), set_to_none=False), tmp_path / "r.gradtui")


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda ps: torch.optim.Adam(ps, fused=True),
        lambda ps: torch.optim.AdamW(ps, foreach=True),
        lambda ps: torch.optim.SGD(ps, lr=0.1, fused=True),
        lambda ps: torch.optim.Adam(ps, lr=torch.tensor(1e-3)),
        lambda ps: torch.optim.Adam([{"params": ps[:2], "lr": 0.1}, {"params": ps[2:], "weight_decay": 0.1}]),
        lambda ps: torch.optim.Muon([p for p in ps if p.dim() == 2]),
        lambda ps: torch.optim.Adafactor(ps),
    ],
    ids=["fused", "foreach", "fused SGD", "tensor lr", "groups", "Muon", "Adafactor"],
)
def test_kinds_of_optimizers(make_optimizer, tmp_path: Path) -> None:
    compare(training_of(lambda: perceptron(6, 5, 4), make_optimizer), tmp_path / "r.gradtui")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="capturable optimizers need a GPU")
def test_a_capturable_optimizer(tmp_path: Path) -> None:
    compare(
        training_of(
            lambda: perceptron(6, 5, 4).cuda(),
            lambda ps: torch.optim.Adam(ps, capturable=True),
            loss_of=lambda model, x: model(x.cuda()).square().mean(),
        ),
        tmp_path / "r.gradtui",
    )


def test_relu_in_place(tmp_path: Path) -> None:
    def make():
        return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 5), nn.ReLU(inplace=True))

    compare(training_of(make), tmp_path / "r.gradtui")


def test_an_optimizer_for_each_parameter_that_steps_inside_backward(tmp_path: Path) -> None:
    def training(probe):
        model = perceptron(6, 5, 5, 4)
        optimizers = {p: torch.optim.SGD([p], lr=0.1, momentum=0.9) for p in model.parameters()}

        def step(parameter):
            optimizers[parameter].step()
            optimizers[parameter].zero_grad()

        probe.watch(model, list(optimizers.values()))
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(step)
        for x in batches():
            twin = copy.deepcopy(model)  # the hooks are on the model alone
            for parameter in twin.parameters():
                parameter._post_accumulate_grad_hooks = None
            loss = twin(x).square().mean()
            loss_to_step_by = model(x).square().mean()
            for parameter, grad in zip(
                model.parameters(), torch.autograd.grad(loss, list(twin.parameters())), strict=True
            ):
                parameter.grad = grad if type(probe).__name__ == "Bare" else None
            probe.before(loss)
            for parameter in model.parameters():
                parameter.grad = None
            loss_to_step_by.backward()
            probe.after()

    compare(training, tmp_path / "r.gradtui")


class Lookahead(torch.optim.Optimizer):
    """Steps another optimizer inside its own step."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.inner = inner

    def step(self, closure=None):
        self.inner.step()


@pytest.mark.parametrize("every", [1, 2, None])
def test_an_optimizer_that_steps_another_one_is_recorded(every, tmp_path: Path) -> None:
    model = perceptron(6, 5, 4)
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    outer = Lookahead(inner)
    sampling = Sampling(RecordOptions(every=every, budget=1.0))
    recorder = recorder_with(model, inner, tmp_path / "r.gradtui", sampling, SteppedClock(tick=1e-4))
    recorder._recording.observe(outer)
    for x in batches(20):
        outer.zero_grad()
        model(x).square().mean().backward()
        outer.step()
    recorder.close()
    reader = gradtui.open_run(recorder.path)
    assert not [event.text for event in reader.events() if event.kind == "recorder"]
    assert is_measured(reader.last(99).measures[:, :, GRAD_NORM]).any(axis=1).sum() > 1


@pytest.mark.parametrize("make_optimizer", [lambda ps: torch.optim.LBFGS(ps, max_iter=3), torch.optim.Adam])
@pytest.mark.parametrize("named", [True, False])
def test_a_closure_is_measured_after_its_first_evaluation(make_optimizer, named, tmp_path: Path) -> None:
    def training(probe):
        model = perceptron(6, 5, 4)
        optimizer = make_optimizer(model.parameters())
        probe.watch(model, optimizer)
        for x in batches():
            first = [True]

            def closure(x=x, first=first):
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                if first:
                    first.clear()
                    probe.before(loss)
                return loss

            optimizer.step(closure=closure) if named else optimizer.step(closure)
            probe.after()

    compare(training, tmp_path / "r.gradtui")


def test_the_loss_of_an_unmeasured_closure_is_that_of_its_first_evaluation(tmp_path: Path) -> None:
    model = perceptron(6, 5, 4)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=5)
    clock = SteppedClock()
    recorder = recorder_with(model, optimizer, tmp_path / "r.gradtui", Sampling(RecordOptions(every=1000)), clock)
    losses: list[list[float]] = []

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 6)).square().mean()
        loss.backward()
        losses[-1].append(loss.item())
        return loss

    for _ in range(3):
        clock.now += 1.0
        losses.append([])
        optimizer.step(closure)
    recorder.close()
    np.testing.assert_allclose(gradtui.open_run(recorder.path).last(9).loss, [each[0] for each in losses])
    assert len(losses[1]) > 1


def test_the_two_models_of_a_gan_are_a_group_of_layers_each(tmp_path: Path) -> None:
    def training(probe):
        maker, judge = perceptron(6, 5, 4, seed=1), perceptron(4, 5, 1, seed=2)
        makes, judges = torch.optim.Adam(maker.parameters()), torch.optim.Adam(judge.parameters())
        probe.watch({"maker": maker, "judge": judge}, [makes, judges])
        for z, x in zip(batches(), batches(width=4), strict=True):
            judges.zero_grad()
            real, fake = functional.softplus(-judge(x)).mean(), functional.softplus(judge(maker(z).detach())).mean()
            real.backward()
            fake.backward()
            probe.before(float("nan"), judges)
            judges.step()
            probe.after()
            makes.zero_grad()
            loss = functional.softplus(-judge(maker(z))).mean()
            loss.backward()
            probe.before(loss, makes)
            makes.step()
            probe.after()

    reader = compare(training, tmp_path / "r.gradtui")
    series, _ = reader.scalars()
    assert list(series) == ["loss judge"] and len(series["loss judge"].value) == 3


@pytest.mark.parametrize("sizes", [(6, 5, 4), (6, 100, 120, 4), (6, 300, 200, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_that_is_cast_after_its_optimizer_was_made(dtype, sizes, tmp_path: Path) -> None:
    def training(probe):
        model = perceptron(*sizes)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        probe.watch(model, optimizer)
        for i, x in enumerate(batches(4)):
            if i == 2:
                model.to(dtype)
            optimizer.zero_grad()
            loss = model(x.to(next(model.parameters()).dtype)).square().mean()
            loss.backward()
            probe.before(loss)
            optimizer.step()
            probe.after()

    compare(training, tmp_path / "r.gradtui")
