"""Fine-tuning: the nets made of layers, each optimizer, early stopping, and what happens when it is killed."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from pretrain.autoencoder import Autoencoder
from pretrain.conjugate import ConjugateGradients
from pretrain.data import digits
from pretrain.errors import DataError
from pretrain.finetuning import NetProgress, Result, finetune
from pretrain.nets import classifier, deep_autoencoder
from pretrain.objective import Objective, evaluate
from pretrain.regularisation import EarlyStopping
from pretrain.settings import FinetuneSettings
from tests.pretrain.layers import KillAt, Killed, denoising, stack, weights

torch.set_num_threads(1)

METHODS = ["adam", "sgd", "lbfgs", "cg"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 60) -> Tensor:
    return torch.rand(count, 6, generator=seeded(1))


def labels(count: int = 60) -> Tensor:
    return (images(count).sum(1) > 3).long()


def net(dropout: float = 0.3) -> nn.Sequential:
    return classifier(stack(denoising, 6, 5, 4), 2, seeded(), dropout=dropout)


def tuned(model: nn.Sequential | None = None, **settings: Any) -> tuple[nn.Sequential, Result]:
    model = net() if model is None else model
    settings = {"data": images(), "targets": labels(), "epochs": 3, "batch_size": 16, "generator": seeded(), **settings}
    return model, finetune(model, **settings)


def test_a_classifier_is_the_encoders_and_a_small_output_layer() -> None:
    layers = stack(denoising, 6, 5, 4)
    made = classifier(layers, 200, seeded(), dropout=0.5, input_dropout=0.2)
    names = ["drop0", "fc1", "act1", "drop1", "fc2", "act2", "drop2", "fc3"]
    assert [name for name, _ in made.named_children()] == names
    assert [made.drop0.p, made.drop1.p] == [0.2, 0.5]
    made.eval()
    hidden = layers[1].encode(layers[0].encode(images()))
    torch.testing.assert_close(made[:-1](images()), hidden)
    assert made.fc3.weight.std().item() == pytest.approx(0.01, rel=5 / math.sqrt(2 * 800))
    assert not made.fc3.bias.any()


def test_a_deep_autoencoder_goes_up_and_down_through_all_layers() -> None:
    layers = [*stack(denoising, 6, 5), Autoencoder(5, 2, activation="linear", generator=seeded())]
    made = deep_autoencoder(layers)
    assert [name for name, _ in made.named_children()] == ["fc1", "act1", "fc2", "fc3", "act3", "fc4", "act4"]
    code = layers[1].encode(layers[0].encode(images()))
    torch.testing.assert_close(made(images()), layers[0].decode(layers[1].decode(code)))


def test_the_code_is_linear_unless_asked_otherwise() -> None:
    layers = stack(denoising, 6, 5, 2)
    assert "act2" not in dict(deep_autoencoder(layers).named_children())
    assert "act2" in dict(deep_autoencoder(layers, linear_code=False).named_children())


def test_the_costs_are_those_of_the_definitions() -> None:
    made = deep_autoencoder(stack(denoising, 6, 4)).double()
    x = images().double()
    rebuilt = made(x)
    crossed = -(x * rebuilt.log() + (1 - x) * (1 - rebuilt).log()).sum(1).mean()
    torch.testing.assert_close(Objective(made, "cross-entropy", classify=False).cost(x, None), crossed)
    squared = ((x - rebuilt) ** 2).sum(1).mean()
    torch.testing.assert_close(Objective(made, "squared", classify=False).cost(x, None), squared)
    assert evaluate(made, x) == pytest.approx(squared.item())
    tells = net().double().eval()
    right = tells(x).softmax(1)[torch.arange(60), labels()]
    torch.testing.assert_close(Objective(tells, classify=True).cost(x, labels()), -right.log().mean())
    wrong = (tells(x).argmax(1) != labels()).double().mean().item()
    assert evaluate(tells, x, labels()) == pytest.approx(wrong)


@pytest.mark.parametrize("method", METHODS)
def test_every_optimizer_lowers_the_cost_of_both_tasks(method: str) -> None:
    train = digits().train
    layers = stack(denoising, 64, 32)
    for model, targets, data in (
        (classifier(layers, 10, seeded()), train.labels, train.images),
        (deep_autoencoder(layers), None, train.images),
        (deep_autoencoder([Autoencoder(64, 16, cost="squared", generator=seeded())]), None, train.images),
    ):
        result = finetune(model, data, targets, optimizer=method, epochs=4, generator=seeded())
        assert result.finished
        assert result.costs[-1] < 0.97 * result.costs[0]


def test_conjugate_gradients_are_scipys() -> None:
    curvature = torch.diag(torch.tensor([1.0, 5.0, 25.0], dtype=torch.float64))
    point = nn.Parameter(torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64))
    start = point.detach().clone()
    optimizer = ConjugateGradients([point], line_searches=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        cost = point @ curvature @ point / 2
        torch.autograd.backward(cost)
        return cost.detach()

    assert optimizer.step(closure) == pytest.approx((start @ curvature @ start / 2).item())
    a = curvature.numpy()
    expected = scipy.optimize.minimize(
        lambda x: x @ a @ x / 2, start.numpy(), jac=lambda x: a @ x, method="CG", options={"maxiter": 2}
    )
    np.testing.assert_allclose(point.detach().numpy(), expected.x, rtol=1e-12)
    for _ in range(30):
        optimizer.step(closure)
    torch.testing.assert_close(point.detach(), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-5)


def test_conjugate_gradients_stay_where_the_cost_is_no_number() -> None:
    point = nn.Parameter(torch.ones(3))

    def closure() -> Tensor:
        point.grad = torch.ones(3)
        return torch.tensor(math.nan)

    ConjugateGradients([point]).step(closure)
    assert torch.equal(point.detach(), torch.ones(3))


@pytest.mark.parametrize("method", METHODS)
def test_a_callback_sees_the_gradient_where_each_step_begins(method: str) -> None:
    steps: list[int] = []

    def on_step(progress: NetProgress) -> None:
        steps.append(progress.step)
        x, target = images(), labels()
        cost = nn.functional.cross_entropy(progress.model(x), target)
        assert progress.cost == pytest.approx(cost.item(), rel=1e-5)
        parameters = list(progress.model.parameters())
        expected = torch.autograd.grad(cost, parameters)
        torch.testing.assert_close([p.grad for p in parameters], list(expected), rtol=1e-4, atol=1e-6)

    tuned(net(dropout=0), optimizer=method, batch_size=60, on_step=on_step)
    assert steps == [0, 1, 2]


def test_early_stopping_keeps_the_best_weights() -> None:
    held_out = (torch.rand(40, 6, generator=seeded(5)), torch.arange(40) % 2)  # noise: there is nothing to learn
    by_epoch: list[dict[str, Tensor]] = []

    def on_epoch(progress: NetProgress) -> None:
        by_epoch.append({name: value.clone() for name, value in progress.model.state_dict().items()})

    model, result = tuned(
        validation=held_out, patience=3, epochs=100, learning_rate=0.02, optimizer="adam", on_epoch=on_epoch
    )
    best = result.best_epoch
    assert best is not None
    assert result.errors[best] == min(result.errors)
    assert len(result.errors) == best + 4 < 100
    assert all(torch.equal(value, by_epoch[best][name]) for name, value in model.state_dict().items())
    assert evaluate(model, *held_out) == result.errors[best]


def test_without_patience_the_last_weights_stay_and_the_errors_are_told() -> None:
    model, result = tuned(validation=(images(), labels()))
    assert len(result.errors) == 3
    assert evaluate(model, images(), labels()) == result.errors[-1]


def test_products_in_bfloat16_train_as_well_and_leave_the_weights_in_their_type() -> None:
    data = digits()
    x, labels = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    errors = []
    for precision in ("float32", "bfloat16"):
        made = classifier([Autoencoder(64, 40, generator=seeded())], 10, seeded())
        finetune(made, x, labels, precision=precision, epochs=4, batch_size=20)  # type: ignore[arg-type]
        assert made.fc1.weight.dtype == torch.float32
        errors.append(evaluate(made, torch.from_numpy(data.test.images), torch.from_numpy(data.test.labels)))
    assert errors[0] < 0.2 and abs(errors[1] - errors[0]) < 0.05
    with pytest.raises(ValueError, match="float32, bfloat16"):
        finetune(made, x, labels, precision="float16")  # type: ignore[arg-type]


def test_max_norm_bounds_what_comes_into_each_hidden_unit() -> None:
    model, _ = tuned(optimizer="sgd", learning_rate=5.0, max_norm=0.7, epochs=10)
    for linear in (model.fc1, model.fc2):
        assert linear.weight.norm(dim=1).max().item() <= 0.7 + 1e-5
    free, _ = tuned(optimizer="sgd", learning_rate=5.0, epochs=10)
    assert free.fc1.weight.norm(dim=1).max().item() > 0.7
    assert model.fc3.weight.norm(dim=1).max().item() > 0.7  # the outputs are no hidden units


def test_dropout_draws_from_the_given_generator_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = weights([tuned()[0]])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(weights([tuned()[0]]), first)
    assert not torch.equal(weights([tuned(generator=seeded(1))[0]]), first)
    assert not torch.equal(weights([tuned(net(dropout=0))[0]]), first)


def test_a_mapped_file_and_a_data_set_give_what_the_tensor_gives(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images().numpy())
    expected = weights([tuned()[0]])
    both = TensorDataset(images(), labels())
    for data, targets in ((np.load(tmp_path / "x.npy", mmap_mode="r"), labels().numpy()), (both, both)):
        for memory in (0, 1 << 30):
            assert torch.equal(weights([tuned(data=data, targets=targets, memory=memory)[0]]), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("full_batch", [False, True])
def test_killed_at_any_step_it_ends_with_the_same_bits(method: str, full_batch: bool, tmp_path: Path) -> None:
    settings = {
        "optimizer": method,
        "validation": (images(), 1 - labels()),
        "patience": 2,
        "batch_size": 60 if full_batch else 16,
        "epochs": 5,
    }
    model, result = tuned(**settings)
    for call in (1, 2, *random.Random(0).sample(range(3, 12), 2)):
        while True:
            try:
                again, same = tuned(
                    **settings, checkpoint=tmp_path / str(call), checkpoint_every=0, on_step=KillAt(call)
                )
                break
            except Killed:
                continue
        assert torch.equal(weights([again]), weights([model]))
        assert same == result


def test_killed_between_checkpoints_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    model, result = tuned()
    for until in (3, 5, 8, 11):
        ticks, path = iter(range(1_000_000)), tmp_path / str(until)
        with pytest.raises(Killed):
            tuned(checkpoint=path, checkpoint_every=3, clock=ticks.__next__, on_step=KillAt(until))
        again, same = tuned(checkpoint=path)
        assert torch.equal(weights([again]), weights([model]))
        assert same == result


def test_stopped_politely_it_keeps_its_state_and_goes_on(tmp_path: Path) -> None:
    model, _ = tuned()
    for stop_after in (0, 3, 4, 11):
        steps: list[object] = []
        settings = {"checkpoint": tmp_path / str(stop_after)}
        _, first = tuned(on_step=steps.append, should_stop=lambda s=steps, n=stop_after: len(s) > n, **settings)
        assert not first.finished
        assert len(steps) == stop_after + 1
        again, result = tuned(**settings)
        assert result.finished
        assert torch.equal(weights([again]), weights([model]))


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    settings = {"checkpoint": tmp_path / "c", "validation": (images(), labels()), "patience": 1, "epochs": 20}
    model, result = tuned(**settings)
    steps: list[object] = []
    again, same = tuned(**settings, on_step=steps.append)
    assert not steps
    assert same == result
    assert torch.equal(weights([again]), weights([model]))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"data": torch.zeros(0, 6), "targets": torch.zeros(0)}, "empty"),
        ({"data": torch.rand(60, 7)}, "takes 6 inputs, but the data have 7 columns"),
        ({"data": images() * math.nan}, "NaN"),
        ({"targets": labels() + 1}, "a label 2, but the net has 2 outputs"),
        ({"targets": labels() * 0}, "all labels are 0"),
        ({"targets": labels()[:50]}, "[50]"),
        ({"validation": images()}, "needs labels"),
        ({"model": deep_autoencoder(stack(denoising, 6, 3)), "data": images() * 3, "targets": None}, "[0, 1]"),
    ],
)
def test_bad_data_get_one_clear_line_before_any_training(settings: dict[str, Any], says: str) -> None:
    steps: list[object] = []
    with pytest.raises(DataError) as caught:
        tuned(on_step=steps.append, **settings)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not steps


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"optimizer": "newton"}, "adam, sgd, lbfgs, cg"),
        ({"patience": 3}, "needs a validation set"),
        ({"loss": "squared"}, "classifier"),
        ({"targets": None, "loss": "cross-entropy"}, "ends in nn.Sigmoid"),
        ({"optimizer": "adam", "momentum": 0.5}, "takes no momentum"),
        ({"batch_size": -1}, "batch_size is -1: give a whole number from 1 to"),
        ({"epochs": -1}, "epochs is -1: give a whole number from 0"),
        ({"learning_rate": math.inf}, "learning_rate is inf: give a number above 0"),
        ({"epochs": 2.0}, "epochs is 2: give a whole number"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says.replace(".", r"\.")):
        tuned(**settings)


def test_a_checkpoint_of_another_net_is_refused_in_one_line(tmp_path: Path) -> None:
    tuned(checkpoint=tmp_path / "c")
    with pytest.raises(DataError, match="belongs to another training: its net is"):
        tuned(classifier(stack(denoising, 6, 3), 2, seeded()), checkpoint=tmp_path / "c")


def test_settings_are_an_object_or_keywords_or_both() -> None:
    expected, _ = tuned(epochs=2, optimizer="sgd", max_norm=0.5)
    model = net()
    settings = FinetuneSettings(epochs=5, optimizer="sgd", max_norm=0.5, batch_size=16)
    finetune(model, images(), labels(), settings, epochs=2, generator=seeded())
    assert torch.equal(weights([model]), weights([expected]))


def test_an_unknown_keyword_is_a_type_error_with_a_near_guess() -> None:
    with pytest.raises(TypeError, match=r"finetune\(\) got an unexpected keyword argument 'patients'.*'patience'"):
        finetune(net(), images(), labels(), patients=3)


@pytest.mark.parametrize(
    ("optimizer", "classify", "start"), [("sgd", True, 0.1), ("sgd", False, 0.001), ("adam", True, 0.001)]
)
def test_a_decayed_rate_starts_at_the_optimizers_default(optimizer: str, classify: bool, start: float) -> None:
    seen: list[float] = []
    model = net(dropout=0) if classify else deep_autoencoder(stack(denoising, 6, 4))
    finetune(
        model, images(), labels() if classify else None, optimizer=optimizer, decay=True, epochs=4,
        on_epoch=lambda progress: seen.append(progress.optimizer.param_groups[0]["lr"]),
    )  # fmt: skip
    assert seen == pytest.approx([start, 0.75 * start, 0.5 * start, 0.25 * start])


def test_early_stopping_keeps_the_best_weights_and_waits_for_its_patience() -> None:
    model, stopping = nn.Linear(1, 1), EarlyStopping(2)
    for epoch, score in enumerate([(0.5, 0.0), (0.5, 1.0), (0.4, 9.0), (0.5, 1.0)]):
        assert not stopping.has_waited_enough
        nn.init.constant_(model.weight, epoch)
        stopping.see(epoch, score, model)
    assert stopping.has_waited_enough and stopping.epoch == 1
    stopping.restore(model)
    assert model.weight.item() == 1
    for patience in (0, None):
        idle = EarlyStopping(patience)
        for epoch in range(5):
            idle.see(epoch, -epoch, model)
        assert not idle.has_waited_enough and not idle.weights
