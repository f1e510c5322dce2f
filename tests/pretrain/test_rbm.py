"""Restricted Boltzmann machines against enumeration: every configuration of a tiny one can be written down."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from pretrain.conditionals import Conditionals
from pretrain.data import digits
from pretrain.errors import DataError
from pretrain.greedy import train_greedily
from pretrain.negative import GradientEstimator, Particles
from pretrain.nets import classifier
from pretrain.rbm import RBM

INPUTS, OUTPUTS = 4, 3
KINDS: dict[str, dict[str, Any]] = {
    "bernoulli": {},
    "gaussian": {"visible": "gaussian"},
    "labels": {"groups": (3,)},
    "gaussian with labels": {"visible": "gaussian", "groups": (2,)},
}
METHODS: list[dict[str, Any]] = [
    {},
    {"steps": 3},
    {"method": "pcd", "chains": 5},
    {"method": "pcd", "chains": 7, "steps": 2},
    {"method": "fast-pcd", "chains": 5},
    {"method": "tempering", "chains": 4, "temperatures": 3, "steps": 2},
    {"method": "noise", "steps": 4, "burn_in": 2},
]


def all_bits(count: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=count)), dtype=torch.float64)


V, H = all_bits(INPUTS), all_bits(OUTPUTS)


def small_rbm(kind: str = "bernoulli", seed: int = 0, hidden: str = "bernoulli", **training: Any) -> RBM:
    """A tiny RBM with weights that matter, in float64."""
    rbm = RBM(INPUTS, OUTPUTS, hidden=hidden, estimator=GradientEstimator(**training), **KINDS[kind]).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return rbm


def energies(rbm: RBM, v: Tensor) -> Tensor:
    """E(v, h) [images, configurations of h], written out."""
    w, c, b = rbm.weight, rbm.bias, rbm.visible_bias
    s = torch.ones(INPUTS, dtype=torch.float64)
    gaussian = 0
    if rbm.log_variance is not None:
        gaussian = len(rbm.log_variance)
        s = torch.cat([rbm.log_variance.exp(), s[gaussian:]])

    def own(x: Tensor) -> Tensor:
        of_gaussian = ((x - b) ** 2 / (2 * s))[:gaussian].sum()
        return of_gaussian - (b * x)[gaussian:].sum()

    return torch.stack([torch.stack([own(x) - c @ h - h @ w @ (x / s) for h in H]) for x in v])


def images(kind: str) -> Tensor:
    """All configurations of what can be enumerated, with some values of what cannot."""
    numbers = torch.randn(16, INPUTS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    one_of = {size: torch.eye(size, dtype=torch.float64) for size in (2, 3)}
    if kind == "bernoulli":
        return V
    if kind == "gaussian":
        return numbers
    if kind == "labels":
        return torch.cat([torch.tensor([[0.0], [1.0]]).repeat_interleave(3, 0).double(), one_of[3].repeat(2, 1)], 1)
    return torch.cat([numbers[:, :2], one_of[2].repeat(8, 1)], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_energy_free_energy_and_conditionals_are_those_of_the_enumerated_rbm(kind: str) -> None:
    rbm, v = small_rbm(kind), images(kind)
    every = energies(rbm, v)
    ours = torch.stack([rbm.energy(v, h.expand(len(v), -1)) for h in H], dim=1)
    torch.testing.assert_close(ours, every)
    torch.testing.assert_close(rbm.free_energy(v), -torch.logsumexp(-every, dim=1))
    torch.testing.assert_close(rbm.encode(v), torch.softmax(-every, dim=1) @ H)


@pytest.mark.parametrize("kind", ["bernoulli", "labels"])
def test_the_visible_conditional_of_discrete_units_is_that_of_the_enumerated_rbm(kind: str) -> None:
    rbm, v = small_rbm(kind), images(kind)
    share = torch.softmax(-energies(rbm, v), dim=0)  # over v, for each h
    torch.testing.assert_close(rbm.decode(H), share.T @ v)
    drawn = rbm.sample_visible(H[5].expand(20_000, -1), torch.Generator().manual_seed(0)).detach()
    for configuration, probability in zip(v, share[:, 5].detach(), strict=True):
        found = (drawn == configuration).all(1).double().mean()
        assert abs(found - probability) < 5 * (probability * (1 - probability) / 20_000) ** 0.5
    assert {tuple(row) for row in drawn.tolist()} <= {tuple(row) for row in v.tolist()}


def test_gaussian_units_are_normal_around_their_mean_with_the_learnt_variance() -> None:
    rbm = small_rbm("gaussian")
    assert rbm.log_variance is not None
    h = H[5].expand(20_000, -1)
    drawn = rbm.sample_visible(h, torch.Generator().manual_seed(0)).detach()
    deviation = torch.exp(rbm.log_variance / 2).detach()
    mean = (rbm.visible_bias + H[5] @ rbm.weight).detach()
    assert ((drawn.mean(0) - mean).abs() < 5 * deviation / 20_000**0.5).all()
    torch.testing.assert_close(drawn.std(0), deviation, rtol=0.03, atol=0)
    # the density is that of the energy: log p(v | h) and −E differ by the same number for every v
    points = images("gaussian")
    log_density = torch.distributions.Normal(mean, deviation).log_prob(points).sum(1)
    difference = log_density + rbm.energy(points, H[5].expand(len(points), -1)).detach()
    torch.testing.assert_close(difference, difference[:1].expand(len(points)))


def test_rectified_units_stand_for_copies_of_bernoulli_units() -> None:
    # copies with biases ½, 1½, … lower, written out: 30 are enough for these fields
    rbm = small_rbm(hidden="rectified")
    with torch.no_grad():
        field = torch.nn.functional.linear(V, rbm.weight, rbm.bias)
        copies = field[:, :, None] - torch.arange(30) - 0.5
        torch.testing.assert_close(rbm.free_energy(V), -(V @ rbm.visible_bias) - F.softplus(copies).sum((1, 2)))
        number_on = torch.sigmoid(copies).sum(2)
        conditionals = rbm.conditionals()
        mean = conditionals.hidden_mean(field)
        assert (mean - number_on).abs().max() < 0.011, "what the class says of its approximation"
        drawn = rbm.sample_code(V.repeat(4000, 1), torch.Generator().manual_seed(0)).view(4000, 16, 3)
        # the mean of max(0, N(x, s²)) is x Φ(x/s) + s φ(x/s)
        normal, s = torch.distributions.Normal(0.0, 1.0), torch.sigmoid(field).sqrt()
        expected = field * normal.cdf(field / s) + s * normal.log_prob(field / s).exp()
        square = (field**2 + s**2) * normal.cdf(field / s) + field * s * normal.log_prob(field / s).exp()
        error = (drawn.mean(0) - expected).abs() / ((square - expected**2) / 4000).sqrt()
        assert error[expected > 0.01].max() < 5, "rarer ones are no normal mean"
        assert (drawn.mean(0)[expected <= 0.01] < 0.02).all()
        torch.testing.assert_close(rbm.encode(V), field.clamp(min=0))


def test_gibbs_sampling_comes_to_the_rbms_own_distribution() -> None:
    rbm = small_rbm()
    drawn = rbm.gibbs(V.repeat(1500, 1), 60, torch.Generator().manual_seed(1))
    exact = torch.softmax(-rbm.free_energy(V), dim=0).detach()
    index = (drawn @ torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)).long()
    shares = torch.bincount(index, minlength=16) / len(drawn)
    assert ((shares - exact).abs() < 5 * (exact * (1 - exact) / len(drawn)).sqrt()).all()


def particles_of(rbm: RBM, monkeypatch: pytest.MonkeyPatch) -> list[Particles]:
    """What the negative phase gives, as the gradient is filled."""
    seen: list[Particles] = []
    fill = RBM._fill

    def remember(self: RBM, rbm: Conditionals, data: Particles, model: Particles) -> None:
        seen.append(Particles(model.v.clone(), model.h.clone()))
        fill(self, rbm, data, model)

    monkeypatch.setattr(RBM, "_fill", remember)
    return seen


def gradients(rbm: RBM) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in rbm.named_parameters() if p.grad is not None}


def fill_by_autograd(rbm: RBM, v0: Tensor, v: Tensor) -> None:
    rbm.zero_grad()
    torch.autograd.backward(rbm.free_energy(v0).mean() - rbm.free_energy(v).mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", METHODS)
def test_the_gradient_is_that_of_the_free_energies_difference(
    kind: str, training: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rbm, v0 = small_rbm(kind, weight_cost=0.0, **training), images(kind)
    seen = particles_of(rbm, monkeypatch)
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):  # chains and fast weights move on
        rbm.fill_gradient(v0, generator)
    found = gradients(rbm)
    fill_by_autograd(rbm, v0, seen[-1].v)
    for name, parameter in rbm.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_the_gradient_of_rectified_units_has_softplus_for_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    rbm = small_rbm(weight_cost=0.0, hidden="rectified")
    seen = particles_of(rbm, monkeypatch)
    rbm.fill_gradient(V, torch.Generator().manual_seed(2))
    found = gradients(rbm)

    def free_energy(v: Tensor) -> Tensor:
        # the copies' sum as an integral: its derivative by the field is log(1 + e^x)
        field = torch.nn.functional.linear(v, rbm.weight, rbm.bias)
        return -(v @ rbm.visible_bias) - (field * F.softplus(field).detach()).sum(1)

    rbm.zero_grad()
    torch.autograd.backward(free_energy(V).mean() - free_energy(seen[0].v).mean())
    for name, parameter in rbm.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


@pytest.mark.parametrize("kind", ["bernoulli", "labels"])
def test_contrastive_divergence_has_the_expectation_of_the_enumerated_chain(kind: str) -> None:
    # v0 -> h (drawn) -> v1 (its mean): every h is written down, with its probability
    rbm, v0 = small_rbm(kind, weight_cost=0.0), images(kind)[[1, 3, 5]]
    with torch.no_grad():
        share = torch.softmax(-energies(rbm, v0), dim=1)  # p(h | v0)
        means = rbm.decode(H)
        expected_weight = torch.zeros_like(rbm.weight)
        expected_bias = torch.zeros_like(rbm.bias)
        for image, of_image in zip(v0, share, strict=True):
            for probability, v1 in zip(of_image, means, strict=True):
                h1 = rbm.encode(v1[None])[0]
                expected_weight += probability * torch.outer(h1, v1) / len(v0)
                expected_bias += probability * h1 / len(v0)
            h0 = rbm.encode(image[None])[0]
            expected_weight -= torch.outer(h0, image) / len(v0)
            expected_bias -= h0 / len(v0)
    assert_mean_gradient(rbm, v0, {"weight": expected_weight, "bias": expected_bias})


def test_contrastive_divergence_of_gaussian_units_has_the_expectation_of_the_integrated_chain() -> None:
    # one visible unit: v0 -> h (enumerated) -> v1 ~ N(mean, σ²), integrated by Gauss and Hermite
    rbm = RBM(1, 2, visible="gaussian", estimator=GradientEstimator(weight_cost=0.0)).double()
    assert rbm.log_variance is not None
    with torch.no_grad():
        rbm.weight.copy_(torch.tensor([[0.8], [-1.1]]))
        rbm.bias.copy_(torch.tensor([0.3, -0.2]))
        rbm.visible_bias.fill_(0.4)
        rbm.log_variance.fill_(-0.3)
    v0 = torch.tensor([[-0.5], [1.2]], dtype=torch.float64)
    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(40))
    expected = {name: torch.zeros_like(p) for name, p in rbm.named_parameters()}
    for image in v0:
        on = rbm.encode(image[None])[0].detach()
        for h in all_bits(2):
            probability = torch.where(h > 0, on, 1 - on).prod() / len(v0)
            states = rbm.decode(h[None]).detach() + torch.exp(rbm.log_variance.detach() / 2) * nodes[:, None]
            rbm.zero_grad()
            cost = rbm.free_energy(image[None])[0] - (rbm.free_energy(states) * weights).sum() / weights.sum()
            torch.autograd.backward(probability * cost)
            for name, parameter in rbm.named_parameters():
                assert parameter.grad is not None
                expected[name] += parameter.grad
    assert_mean_gradient(rbm, v0, expected)


def assert_mean_gradient(rbm: RBM, v0: Tensor, expected: dict[str, Tensor]) -> None:
    """The mean of many estimates is `expected`, within five standard errors."""
    generator = torch.Generator().manual_seed(3)
    draws = []
    for _ in range(4000):
        rbm.fill_gradient(v0, generator)
        found = gradients(rbm)
        draws.append(torch.cat([found[name].flatten() for name in expected]))
    found = torch.stack(draws)
    wanted = torch.cat([value.flatten() for value in expected.values()])
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - wanted).abs() < 5 * error + 1e-12).all()


EXACT_ENOUGH: list[dict[str, Any]] = [
    {"method": "pcd", "chains": 40_000, "steps": 60},
    {"method": "tempering", "chains": 10_000, "temperatures": 4, "steps": 20},
    {"method": "noise", "steps": 60, "burn_in": 30},
]


@pytest.mark.parametrize("kind", ["bernoulli", "labels"])
@pytest.mark.parametrize("training", EXACT_ENOUGH)
def test_with_enough_particles_and_steps_it_is_the_gradient_of_the_likelihood(
    kind: str, training: dict[str, Any]
) -> None:
    rbm, v = small_rbm(kind, weight_cost=0.0, **training), images(kind)
    some = v[[1, 1, 3, 5]]
    # where the particles are as many as the images, many images
    v0 = some if "chains" in training else some.repeat(2_500, 1)
    rbm.fill_gradient(v0, torch.Generator().manual_seed(4))
    found = gradients(rbm)
    rbm.zero_grad()
    log_z = torch.logsumexp(-rbm.free_energy(v), dim=0)
    torch.autograd.backward((rbm.free_energy(some) + log_z).mean())
    for name, parameter in rbm.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=0, atol=5 * 0.5 / 10_000**0.5)


@pytest.mark.parametrize("method", ["pcd", "tempering"])
def test_chains_of_gaussian_units_come_to_the_rbms_own_moments(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rbm = small_rbm("gaussian", method=method, chains=20_000, temperatures=3, steps=40)
    seen = particles_of(rbm, monkeypatch)
    rbm.fill_gradient(images("gaussian"), torch.Generator().manual_seed(4))
    with torch.no_grad():
        share = torch.softmax(rbm.conditionals().visible_log_sum(H), dim=0)
        mean = share @ rbm.decode(H)
        assert rbm.log_variance is not None
        second = share @ (rbm.decode(H) ** 2) + rbm.log_variance.exp()
    v = seen[0].v
    assert ((v.mean(0) - mean).abs() < 5 * v.std(0) / 20_000**0.5).all()
    assert (((v**2).mean(0) - second).abs() < 5 * (v**2).std(0) / 20_000**0.5).all()


def test_fast_weights_learn_from_each_gradient_and_forget() -> None:
    rbm = small_rbm(method="fast-pcd", chains=6, fast_rate=0.3, weight_cost=0.0)
    generator = torch.Generator().manual_seed(8)
    expected = torch.zeros_like(rbm.weight)
    for _ in range(4):
        rbm.fill_gradient(V, generator)
        assert rbm.weight.grad is not None
        expected = 0.95 * expected - 0.3 * rbm.weight.grad
    torch.testing.assert_close(rbm.state()["fast_weight"], expected.detach())


@pytest.mark.parametrize("kind", KINDS)
def test_the_centred_gradient_is_that_of_the_rbm_written_with_centred_units(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the oracle is the RBM −(h − λ)ᵀ W (v − μ) − h·c' − …; a step there, read as a step of W, c and b here
    rbm, v0 = small_rbm(kind, weight_cost=0.0, centred=True), images(kind)
    seen = particles_of(rbm, monkeypatch)
    rbm.fill_gradient(v0, torch.Generator().manual_seed(9))
    found = gradients(rbm)
    state = rbm.state()
    mu, lambda_ = state["visible_offset"], state["hidden_offset"]
    torch.testing.assert_close(mu, rbm.conditionals().scaled(v0).mean(0).detach())
    torch.testing.assert_close(lambda_, rbm.encode(v0).mean(0).detach())
    weight = rbm.weight.detach().clone().requires_grad_()
    centred_bias = (rbm.bias + rbm.weight @ mu).detach().clone().requires_grad_()
    centred_visible = (rbm.visible_bias + lambda_ @ rbm.weight).detach().clone().requires_grad_()
    own = replace(
        rbm.conditionals(),
        weight=weight,
        bias=centred_bias - weight @ mu,
        visible_bias=centred_visible - lambda_ @ weight,
    )
    torch.autograd.backward(own.free_energy(v0).mean() - own.free_energy(seen[0].v).mean())
    assert weight.grad is not None and centred_bias.grad is not None and centred_visible.grad is not None
    torch.testing.assert_close(found["weight"], weight.grad)
    torch.testing.assert_close(found["bias"], centred_bias.grad - weight.grad @ mu)
    torch.testing.assert_close(found["visible_bias"], centred_visible.grad - lambda_ @ weight.grad)
    plain = small_rbm(kind, weight_cost=0.0)
    fill_by_autograd(plain, v0, seen[0].v)
    if rbm.log_variance is not None:
        assert plain.log_variance is not None
        torch.testing.assert_close(found["log_variance"], plain.log_variance.grad)


def test_clipping_bounds_the_norm_of_the_whole_gradient() -> None:
    bare, clipped = small_rbm(), small_rbm(clip=0.01)
    for rbm in (bare, clipped):
        rbm.fill_gradient(V, torch.Generator().manual_seed(5))
    norm = torch.cat([grad.flatten() for grad in gradients(bare).values()]).norm()
    for name, grad in gradients(clipped).items():
        torch.testing.assert_close(grad, gradients(bare)[name] * 0.01 / norm, rtol=1e-4, atol=0)


def test_products_in_bfloat16_are_those_of_float32_but_for_rounding() -> None:
    data = torch.from_numpy(digits().train.images[:100])
    plain, short = (
        RBM(64, 50, estimator=GradientEstimator(products=kind), generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
        for kind in ("float32", "bfloat16")
    )
    for rbm in (plain, short):
        rbm.fill_gradient(data, torch.Generator().manual_seed(1))
    assert short.weight.grad is not None and short.weight.grad.dtype == torch.float32
    assert plain.weight.grad is not None
    difference = (short.weight.grad - plain.weight.grad).norm() / plain.weight.grad.norm()
    assert 0 < difference < 0.05


def test_the_visible_biases_start_at_the_data() -> None:
    generator = torch.Generator().manual_seed(0)
    bits = (torch.rand(500, INPUTS, generator=generator) < torch.tensor([0.1, 0.5, 0.9, 0.0])).float()
    rbm = RBM(INPUTS, OUTPUTS)
    rbm.start_from(bits)
    share = bits.mean(0).clamp(0.01, 0.99)
    torch.testing.assert_close(rbm.visible_bias.detach(), torch.logit(share))
    before = rbm.visible_bias.detach().clone()
    rbm.start_from(1 - bits)
    torch.testing.assert_close(rbm.visible_bias.detach(), before), "what was set stays"
    numbers = torch.randn(500, INPUTS, generator=generator) * torch.tensor([1.0, 2.0, 0.5, 3.0]) + 4
    gaussian = RBM(INPUTS, OUTPUTS, visible="gaussian")
    gaussian.start_from(numbers)
    assert gaussian.log_variance is not None
    torch.testing.assert_close(gaussian.visible_bias.detach(), numbers.mean(0))
    torch.testing.assert_close(gaussian.log_variance.exp().detach(), numbers.var(0, correction=0))


def test_weight_cost_and_sparsity_are_added() -> None:
    v0 = V[[3, 9, 14]]
    bare, heavy, sparse = (
        small_rbm(weight_cost=0.0),
        small_rbm(weight_cost=0.3),
        small_rbm(weight_cost=0.0, sparsity_cost=2.0, sparsity_target=0.1),
    )
    for rbm in (bare, heavy, sparse):
        rbm.fill_gradient(v0, torch.Generator().manual_seed(5))
    torch.testing.assert_close(heavy.weight.grad, bare.weight.grad + 0.3 * bare.weight)
    pull = 2.0 * (bare.encode(v0).mean(0) - 0.1)
    torch.testing.assert_close(sparse.bias.grad, bare.bias.grad + pull)
    torch.testing.assert_close(sparse.weight.grad, bare.weight.grad + torch.outer(pull, v0.mean(0)))


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.full((2, 4), 1.5), "scale them, or use gaussian"),
        (torch.tensor([[0.0, float("nan"), 0.0, 0.0]]), "NaN"),
        (torch.zeros(3, 5), r"takes \[n, 4\]"),
        (torch.zeros(0, 4), "empty"),
    ],
)
def test_what_it_cannot_learn_from_is_one_line(x: Tensor, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        RBM(INPUTS, OUTPUTS).check(x)
    assert "\n" not in str(caught.value)


def test_its_modules_say_what_it_says() -> None:
    for kind, hidden in itertools.product(("bernoulli", "gaussian"), ("bernoulli", "rectified")):
        rbm, v = small_rbm(kind, hidden=hidden), images(kind)
        code = rbm.encode(v)
        torch.testing.assert_close(torch.nn.Sequential(*rbm.encoder())(v), code)
        torch.testing.assert_close(torch.nn.Sequential(*rbm.decoder())(code), rbm.decode(code))


def test_a_stack_learns_the_digits_layer_by_layer() -> None:
    data = digits()
    images = torch.from_numpy(data.train.images)
    generator = torch.Generator().manual_seed(0)
    layers = [RBM(64, 50, generator=generator), RBM(50, 30, generator=generator)]
    result = train_greedily(layers, images, epochs=8, batch_size=20, generator=generator)
    assert result.finished and len(result.errors) == 2
    mean_image = float(((images - images.mean(0)) ** 2).sum(1).mean())
    assert result.errors[0][-1] < 0.6 * mean_image, "better than always the mean image"
    assert result.errors[0][-1] < 0.7 * result.errors[0][0]
    assert classifier(layers, 10)(images).shape == (1200, 10)


@pytest.mark.parametrize("training", [*METHODS[2:6], {"centred": True}])
def test_what_training_carries_comes_back(training: dict[str, Any]) -> None:
    first, second = small_rbm(**training), small_rbm(**training)
    generator = torch.Generator().manual_seed(6)
    first.fill_gradient(V, generator)
    kept = {name: value.clone() for name, value in first.state().items()}
    assert kept
    state = generator.get_state()
    first.fill_gradient(V[:8], generator)
    second.load_state(kept)
    generator.set_state(state)
    second.fill_gradient(V[:8], generator)
    for name, value in first.state().items():
        torch.testing.assert_close(value, second.state()[name], rtol=0, atol=0)
    for name, grad in gradients(first).items():
        torch.testing.assert_close(grad, gradients(second)[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GradientEstimator(method="pdc"), "cd, pcd, fast-pcd, tempering, noise"),  # type: ignore[arg-type]
        (lambda: GradientEstimator(steps=0), "steps is 0: give a whole number from 1 to"),
        (lambda: GradientEstimator(method="noise", steps=2, burn_in=2), "burn_in is 2: give fewer than the 2 steps"),
        (lambda: GradientEstimator(temperatures=1), "temperatures is 1: give a whole number from 2 to"),
        (lambda: GradientEstimator(fast_rate=math.nan), "fast_rate is nan: give a number from 0 up"),
        (lambda: GradientEstimator(sparsity_target=1.0), "sparsity_target is 1: give a number between 0 and 1"),
        (lambda: GradientEstimator(products="float16"), "float32, bfloat16"),  # type: ignore[arg-type]
        (lambda: RBM(4, 3, visible="binary"), "bernoulli, gaussian"),  # type: ignore[arg-type]
        (lambda: RBM(4, 3, groups=[5]), "out of 4"),
        (lambda: RBM(4, 3, groups=[1, 2]), "at least 2 units"),
        (lambda: RBM(0, 3), "one visible and one hidden unit"),
        (lambda: RBM(4, 3, hidden="rectified", estimator=GradientEstimator(method="tempering")), "another method"),
        (lambda: RBM(4, 3, groups=[2]).decoder(), "no plain decoder"),
    ],
)
def test_unknown_or_invalid_settings_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)
