"""Restricted Boltzmann machines against enumeration: every configuration of a tiny one can be written down."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pretrain.data import DataError, digits
from pretrain.greedy import train_greedily
from pretrain.nets import classifier
from pretrain.rbm import RBM, ContrastiveDivergence

INPUTS, OUTPUTS = 4, 3


def all_bits(count: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=count)), dtype=torch.float64)


V, H = all_bits(INPUTS), all_bits(OUTPUTS)


def machine(visible: str = "bernoulli", seed: int = 0, **training: object) -> RBM:
    """A tiny machine with weights that matter, in float64."""
    rbm = RBM(INPUTS, OUTPUTS, visible=visible, training=ContrastiveDivergence(**training))  # type: ignore[arg-type]
    rbm = rbm.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return rbm


def energies(rbm: RBM, v: Tensor) -> Tensor:
    """E(v, h) [images, configurations of h], written out."""
    w, c, b = rbm.weight, rbm.bias, rbm.visible_bias
    if rbm.log_variance is None:
        return torch.stack([torch.stack([-(b @ x) - c @ h - h @ w @ x for h in H]) for x in v])
    s = rbm.log_variance.exp()
    return torch.stack([torch.stack([((x - b) ** 2 / (2 * s)).sum() - c @ h - h @ w @ (x / s) for h in H]) for x in v])


IMAGES: dict[str, Callable[[], Tensor]] = {
    "bernoulli": lambda: V,
    "gaussian": lambda: torch.randn(6, INPUTS, generator=torch.Generator().manual_seed(5), dtype=torch.float64),
}


@pytest.mark.parametrize("visible", IMAGES)
def test_energy_free_energy_and_conditionals_are_those_of_the_enumerated_machine(visible: str) -> None:
    rbm, v = machine(visible), IMAGES[visible]()
    every = energies(rbm, v)
    ours = torch.stack([rbm.energy(v, h.expand(len(v), -1)) for h in H], dim=1)
    torch.testing.assert_close(ours, every)
    torch.testing.assert_close(rbm.free_energy(v), -torch.logsumexp(-every, dim=1))
    torch.testing.assert_close(rbm.encode(v), torch.softmax(-every, dim=1) @ H)


def test_the_visible_conditional_of_bernoulli_units_is_that_of_the_enumerated_machine() -> None:
    rbm = machine()
    share = torch.softmax(-energies(rbm, V), dim=0)  # over v, for each h
    torch.testing.assert_close(rbm.decode(H), share.T @ V)


def test_gaussian_units_are_normal_around_their_mean_with_the_learnt_variance() -> None:
    rbm = machine("gaussian")
    assert rbm.log_variance is not None
    h = H[5].expand(20_000, -1)
    drawn = rbm.sample_visible(h, torch.Generator().manual_seed(0)).detach()
    deviation = torch.exp(rbm.log_variance / 2).detach()
    mean = (rbm.visible_bias + H[5] @ rbm.weight).detach()
    assert ((drawn.mean(0) - mean).abs() < 5 * deviation / 20_000**0.5).all()
    torch.testing.assert_close(drawn.std(0), deviation, rtol=0.03, atol=0)
    # the density is that of the energy: log p(v | h) and −E differ by the same number for every v
    points = IMAGES["gaussian"]()
    log_density = torch.distributions.Normal(mean, deviation).log_prob(points).sum(1)
    difference = log_density + rbm.energy(points, H[5].expand(len(points), -1)).detach()
    torch.testing.assert_close(difference, difference[:1].expand(len(points)))


def test_gibbs_sampling_comes_to_the_machines_own_distribution() -> None:
    rbm = machine()
    drawn = rbm.gibbs(V.repeat(1500, 1), 60, torch.Generator().manual_seed(1))
    exact = torch.softmax(-rbm.free_energy(V), dim=0).detach()
    index = (drawn @ torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)).long()
    shares = torch.bincount(index, minlength=16) / len(drawn)
    assert ((shares - exact).abs() < 5 * (exact * (1 - exact) / len(drawn)).sqrt()).all()


@pytest.mark.parametrize("visible", IMAGES)
@pytest.mark.parametrize("training", [{}, {"steps": 3}, {"chains": 5}, {"chains": 7, "steps": 2}])
def test_the_gradient_is_that_of_the_free_energies_difference(
    visible: str, training: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rbm, v0 = machine(visible, weight_cost=0.0, **training), IMAGES[visible]()
    seen: list[Tensor] = []
    fill = RBM._fill

    def remember(self: RBM, v0: Tensor, h0: Tensor, v: Tensor, h: Tensor) -> None:
        seen.append(v.clone())
        fill(self, v0, h0, v, h)

    monkeypatch.setattr(RBM, "_fill", remember)
    rbm.fill_gradient(v0, torch.Generator().manual_seed(2))
    found = {name: p.grad.clone() for name, p in rbm.named_parameters() if p.grad is not None}
    rbm.zero_grad()
    torch.autograd.backward(rbm.free_energy(v0).mean() - rbm.free_energy(seen[0]).mean())
    for name, parameter in rbm.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_contrastive_divergence_has_the_expectation_of_the_enumerated_chain() -> None:
    # v0 -> h (drawn) -> v1 (its mean): every h is written down, with its probability
    rbm, v0 = machine(weight_cost=0.0), V[[3, 9, 14]]
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
    generator = torch.Generator().manual_seed(3)
    draws = []
    for _ in range(4000):
        rbm.fill_gradient(v0, generator)
        assert rbm.weight.grad is not None and rbm.bias.grad is not None
        draws.append(torch.cat([rbm.weight.grad.flatten(), rbm.bias.grad]))
    found = torch.stack(draws)
    wanted = torch.cat([expected_weight.flatten(), expected_bias])
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - wanted).abs() < 5 * error + 1e-12).all()


def test_with_many_chains_and_steps_it_is_the_gradient_of_the_likelihood() -> None:
    rbm, v0 = machine(weight_cost=0.0, chains=40_000, steps=60), V[[1, 1, 6, 12]]
    rbm.fill_gradient(v0, torch.Generator().manual_seed(4))
    found = {name: p.grad.clone() for name, p in rbm.named_parameters() if p.grad is not None}
    rbm.zero_grad()
    log_z = torch.logsumexp(-rbm.free_energy(V), dim=0)
    torch.autograd.backward((rbm.free_energy(v0) + log_z).mean())
    for name, parameter in rbm.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=0, atol=5 / 40_000**0.5)


def test_weight_cost_and_sparsity_are_added() -> None:
    v0 = V[[3, 9, 14]]
    bare, heavy, sparse = (
        machine(weight_cost=0.0),
        machine(weight_cost=0.3),
        machine(weight_cost=0.0, sparsity_cost=2.0, sparsity_target=0.1),
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
        (torch.full((2, 4), 1.5), "scale them, or take gaussian"),
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
    for visible, images in IMAGES.items():
        rbm, v = machine(visible), images()
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


def test_persistent_chains_are_carried_and_come_back() -> None:
    first, second = machine(chains=5), machine(chains=5)
    generator = torch.Generator().manual_seed(6)
    first.fill_gradient(V, generator)
    kept = {name: value.clone() for name, value in first.state().items()}
    state = generator.get_state()
    first.fill_gradient(V, generator)
    second.load_state(kept)
    generator.set_state(state)
    second.fill_gradient(V, generator)
    torch.testing.assert_close(first.state()["chains"], second.state()["chains"], rtol=0, atol=0)
