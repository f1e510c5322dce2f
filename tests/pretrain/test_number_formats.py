"""One seed, one training: float32 and float64 differ by rounding alone; bfloat16 on a CPU that has it not is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pretrain import precision
from pretrain.autoencoder import Autoencoder
from pretrain.data import digits
from pretrain.estimators import BernoulliRBM, DeepAutoencoder, PretrainedClassifier
from pretrain.finetuning import finetune
from pretrain.greedy import train_greedily
from pretrain.layers import say_once
from pretrain.negative import GradientEstimator
from pretrain.nets import classifier
from pretrain.rbm import RBM

torch.set_num_threads(1)
TRAIN = digits().train.first(120)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def layer_of(dtype: torch.dtype, make: Callable[[torch.Generator], Any], **how: Any) -> list[Tensor]:
    generator = seeded()
    layer = make(generator).to(dtype)
    train_greedily([layer], TRAIN.images.astype("f8"), epochs=2, batch_size=20, generator=generator, **how)
    return [value.detach() for value in layer.parameters()]


LAYERS: dict[str, Callable[[torch.Generator], Any]] = {
    "cd": lambda g: RBM(64, 20, generator=g),
    "pcd": lambda g: RBM(64, 20, estimator=GradientEstimator(method="pcd", chains=7), generator=g),
    "noise": lambda g: RBM(
        64, 20, visible="gaussian", estimator=GradientEstimator(method="noise", clip=10.0), generator=g
    ),
    "rectified": lambda g: RBM(64, 20, hidden="rectified", generator=g),
    "denoising": lambda g: Autoencoder(64, 20, kind="denoising", generator=g),
    "gaussian noise": lambda g: Autoencoder(64, 20, kind="denoising", noise="gaussian", generator=g),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_of_float64_is_that_of_float32(kind: str) -> None:
    for single, double in zip(
        *(layer_of(dtype, LAYERS[kind]) for dtype in (torch.float32, torch.float64)), strict=True
    ):
        assert double.dtype == torch.float64
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


def test_supervised_layers_and_fine_tuning_are_alike_too() -> None:
    def net_of(dtype: torch.dtype) -> list[Tensor]:
        generator = seeded()
        layer = Autoencoder(64, 20, generator=generator).to(dtype)
        images = torch.from_numpy(TRAIN.images).to(dtype)
        train_greedily([layer], images, targets=TRAIN.labels, epochs=1, batch_size=20, generator=generator)
        net: nn.Sequential = classifier([layer], 10, generator, dropout=0.3)
        finetune(net, images, TRAIN.labels, epochs=2, batch_size=20, generator=generator)
        return [value.detach() for value in net.parameters()]

    for single, double in zip(net_of(torch.float32), net_of(torch.float64), strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "fitted"),
    [
        (lambda: BernoulliRBM(20, n_iter=2, random_state=0), lambda found: found.components_),
        (
            lambda: PretrainedClassifier((20,), pretrain_epochs=1, epochs=1, dropout=0.3, random_state=0),
            lambda found: found.net_[0].weight.detach().numpy(),
        ),
        (
            lambda: DeepAutoencoder((20, 5), pretrain_epochs=1, epochs=1, random_state=0),
            lambda found: found.net_[0].weight.detach().numpy(),
        ),
    ],
)
def test_the_type_of_the_data_decides_the_rounding_alone(make: Any, fitted: Any) -> None:
    single, double = (fitted(make().fit(TRAIN.images.astype(kind), TRAIN.labels)) for kind in ("f4", "f8"))
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-4)


def test_a_default_type_of_float64_changes_no_first_weight() -> None:
    single = [RBM(64, 20, generator=seeded()).weight, Autoencoder(64, 20, generator=seeded()).weight]
    torch.set_default_dtype(torch.float64)
    try:
        double = [RBM(64, 20, generator=seeded()).weight, Autoencoder(64, 20, generator=seeded()).weight]
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(
        one.dtype == torch.float64 and torch.equal(one.float(), other)
        for one, other in zip(double, single, strict=True)
    )


@pytest.mark.parametrize(("times", "lines"), [(9.1, 1), (0.6, 0)])
def test_bfloat16_on_a_cpu_without_it_is_said_once(
    times: float, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "times_as_long", lambda: times)
    say_once.cache_clear()
    for _ in range(2):
        rbm = RBM(64, 5, estimator=GradientEstimator(products="bfloat16"))
        train_greedily([rbm], TRAIN.images, epochs=1, batch_size=60)
    net = classifier([rbm], 10)
    finetune(net, TRAIN.images, TRAIN.labels, epochs=1, batch_size=60, precision="bfloat16")
    said = capsys.readouterr().err
    assert said.count("\n") == lines and ("bfloat16 take 9.1 times as long" in said) == bool(lines)


def test_how_long_bfloat16_takes_is_the_shortest_of_several_measurements() -> None:
    precision.times_as_long.cache_clear()
    seconds = iter([0, 30, 0, 18, 0, 90, 0, 40, 0, 19, 0, 5, 0, 2, 0, 3, 0, 4, 0, 9])
    assert precision.times_as_long(lambda: float(next(seconds))) == 9.0
    precision.times_as_long.cache_clear()
