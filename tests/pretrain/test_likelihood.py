"""The partition function against enumeration and integration, and the estimates against it."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pretrain.data import digits, mnist
from pretrain.greedy import train_greedily
from pretrain.likelihood import (
    annealed_log_z,
    default_betas,
    exact_log_z,
    log_probability,
    pseudo_log_likelihood,
    reverse_annealed_log_z,
)
from pretrain.rbm import RBM
from tests.pretrain.test_rbm import V, all_bits, energies, images, small_rbm


def wide(inputs: int, outputs: int, seed: int = 0, scale: float = 0.5) -> RBM:
    rbm = RBM(inputs, outputs).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return rbm


def test_log_z_is_the_sum_over_every_configuration() -> None:
    rbm = small_rbm()
    assert exact_log_z(rbm) == pytest.approx(float(torch.logsumexp(-energies(rbm, V).flatten(), 0).detach()))


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (15, 16)])
def test_log_z_is_the_same_from_either_side(shape: tuple[int, int]) -> None:
    rbm = wide(*shape)
    twin = wide(shape[1], shape[0])
    with torch.no_grad():
        twin.weight.copy_(rbm.weight.t())
        twin.bias.copy_(rbm.visible_bias)
        twin.visible_bias.copy_(rbm.bias)
    assert exact_log_z(rbm) == pytest.approx(exact_log_z(twin), rel=1e-12)


def test_probabilities_sum_to_one() -> None:
    rbm = small_rbm()
    assert float(log_probability(rbm, V, exact_log_z(rbm)).exp().sum()) == pytest.approx(1.0)


def test_the_density_of_a_gaussian_rbm_integrates_to_one() -> None:
    rbm = RBM(1, 3, visible="gaussian").double()
    with torch.no_grad():
        for number, parameter in enumerate(rbm.parameters()):
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    points = torch.linspace(-30, 30, 60_001, dtype=torch.float64)[:, None]
    density = log_probability(rbm, points, exact_log_z(rbm)).exp()
    assert float(torch.trapezoid(density, points[:, 0])) == pytest.approx(1.0, rel=1e-9)


def test_the_gradient_of_the_likelihood_is_the_data_s_less_the_models() -> None:
    rbm, v = small_rbm(), V[[2, 7, 7, 11]]
    step = 1e-6

    def mean_log_p() -> float:
        return float(log_probability(rbm, v, exact_log_z(rbm)).mean())

    share = log_probability(rbm, V, exact_log_z(rbm)).exp()
    with torch.no_grad():
        model = torch.einsum("n,nh,nv->hv", share, rbm.encode(V), V)
        wanted = rbm.encode(v).t() @ v / len(v) - model
        for index in ((0, 0), (2, 3), (1, 2)):
            rbm.weight[index] += step
            above = mean_log_p()
            rbm.weight[index] -= 2 * step
            below = mean_log_p()
            rbm.weight[index] += step
            assert (above - below) / (2 * step) == pytest.approx(float(wanted[index]), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_annealing_finds_log_z_within_its_own_interval(seed: int) -> None:
    rbm = wide(20, 12, seed, scale=0.7)
    betas = torch.linspace(0, 1, 2000).tolist()
    found = annealed_log_z(rbm, betas=betas, generator=torch.Generator().manual_seed(seed))
    exact = exact_log_z(rbm)
    assert found.low <= exact <= found.high
    assert found.log_z == pytest.approx(exact, abs=0.1) and found.high - found.low < 0.4


@pytest.mark.parametrize("kind", ["gaussian", "labels", "gaussian with labels"])
def test_annealing_is_right_for_other_visible_units(kind: str) -> None:
    rbm = small_rbm(kind)
    found = annealed_log_z(rbm, betas=torch.linspace(0, 1, 500).tolist(), generator=torch.Generator().manual_seed(0))
    exact = exact_log_z(rbm)
    assert found.low <= exact <= found.high
    assert found.log_z == pytest.approx(exact, abs=0.1)


def test_log_z_of_label_units_is_the_sum_over_every_allowed_configuration() -> None:
    rbm = small_rbm("labels")
    assert exact_log_z(rbm) == pytest.approx(float(torch.logsumexp(-rbm.free_energy(images("labels")), 0).detach()))


def test_log_z_of_rectified_units_is_the_sum_over_the_visible_side() -> None:
    rbm = small_rbm(hidden="rectified")
    assert exact_log_z(rbm) == pytest.approx(float(torch.logsumexp(-rbm.free_energy(V), 0).detach()))


def test_annealing_backwards_bounds_log_z_from_above() -> None:
    # few inverse temperatures, so that the bounds are apart: forwards too low, backwards too high, on average
    rbm = wide(10, 8, 3, scale=2.0)
    betas = torch.linspace(0, 1, 6).tolist()
    every = all_bits(10)
    exact = exact_log_z(rbm)
    share = log_probability(rbm, every, exact).exp()
    generator = torch.Generator().manual_seed(0)
    below, above = [], []
    for _ in range(200):
        samples = every[torch.multinomial(share, 4, replacement=True, generator=generator)]
        below.append(annealed_log_z(rbm, betas=betas, chains=4, generator=generator).log_z)
        above.append(reverse_annealed_log_z(rbm, samples, betas=betas, generator=generator).log_z)
    for estimates, sign in ((below, -1), (above, 1)):
        mean = sum(estimates) / len(estimates)
        error = float(torch.tensor(estimates).std()) / len(estimates) ** 0.5
        assert sign * (mean - exact) > 5 * error
    # many, and they meet
    samples = every[torch.multinomial(share, 500, replacement=True, generator=generator)]
    long = torch.linspace(0, 1, 1000).tolist()
    found = reverse_annealed_log_z(rbm, samples, betas=long, generator=generator)
    assert found.low <= exact <= found.high and found.log_z == pytest.approx(exact, abs=0.1)


def test_annealing_of_a_rbm_trained_on_mnist_is_right(mnist_folder: Path) -> None:
    images = torch.from_numpy(mnist(mnist_folder, train_size=5_000).train.images)
    generator = torch.Generator().manual_seed(0)
    rbm = RBM(784, 20, generator=generator)
    train_greedily([rbm], images, epochs=3, batch_size=20, generator=generator)
    exact = exact_log_z(rbm)
    found = annealed_log_z(rbm, betas=torch.linspace(0, 1, 2000).tolist(), generator=generator)
    assert found.low <= exact <= found.high
    assert abs(found.log_z - exact) < 0.1


def test_annealing_of_a_rbm_trained_on_digits_is_right_from_either_base() -> None:
    images = torch.from_numpy(digits().train.images)
    generator = torch.Generator().manual_seed(0)
    rbm = RBM(64, 15, generator=generator)
    train_greedily([rbm], images, epochs=5, batch_size=20, generator=generator)
    exact = exact_log_z(rbm)
    mean = images.double().mean(0).clamp(0.01, 0.99)
    for base in (None, torch.log(mean / (1 - mean))):
        found = annealed_log_z(rbm, betas=torch.linspace(0, 1, 1500).tolist(), base=base, generator=generator)
        assert found.low <= exact <= found.high
        assert abs(found.log_z - exact) < 0.1


def test_the_pseudo_likelihood_is_the_sum_of_the_conditionals() -> None:
    rbm = small_rbm()
    log_p = log_probability(rbm, V, exact_log_z(rbm))
    for row, v in enumerate(V):
        total = 0.0
        for unit in range(4):
            other = v.clone()
            other[unit] = 1 - other[unit]
            twin = int((other == V).all(1).nonzero())
            total += float(log_p[row] - torch.logaddexp(log_p[row], log_p[twin]))
        assert float(pseudo_log_likelihood(rbm, v[None])) == pytest.approx(total)


def test_the_published_path_has_its_lengths() -> None:
    betas = default_betas()
    assert len(betas) == 14_500 and (betas[0], betas[-1]) == (0.0, 1.0)
    assert sum(beta <= 0.5 for beta in betas) == 500 and sum(beta <= 0.9 + 1e-9 for beta in betas) == 4_500
    assert all(a < b for a, b in pairwise(betas))


def test_what_cannot_be_done_is_one_line() -> None:
    with pytest.raises(ValueError, match="too many configurations"):
        exact_log_z(RBM(30, 26))
    with pytest.raises(ValueError, match="Bernoulli hidden units"):
        annealed_log_z(RBM(3, 3, hidden="rectified"))
    with pytest.raises(ValueError, match="can be enumerated for Bernoulli visible units alone"):
        exact_log_z(RBM(3, 3, visible="gaussian", hidden="rectified"))
    with pytest.raises(ValueError, match="from 0 to 1"):
        annealed_log_z(RBM(3, 3), betas=[0.0, 0.7, 0.5, 1.0])
    with pytest.raises(ValueError, match="flips bits"):
        pseudo_log_likelihood(RBM(3, 3, visible="gaussian"), torch.zeros(1, 3))


def test_an_interval_that_holds_nothing_is_open_below() -> None:
    # two inverse temperatures: the weights are all over the place
    found = annealed_log_z(wide(20, 12, 1, scale=4.0), betas=[0.0, 1.0], chains=10)
    assert found.low == -math.inf and found.deviation > 2
