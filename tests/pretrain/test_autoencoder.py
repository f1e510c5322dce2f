"""The autoencoder's gradients against autograd of its definition, its noise against what noise is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pretrain.autoencoder import ACTIVATIONS, Autoencoder, corrupt
from pretrain.errors import DataError

torch.set_num_threads(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 7, columns: int = 5) -> Tensor:
    return torch.rand(count, columns, generator=seeded(1), dtype=torch.float64)


def layer(**settings: object) -> Autoencoder:
    made = Autoencoder(5, 4, generator=seeded(), **settings).double()
    with torch.no_grad():
        for bias in (made.bias, made.visible_bias):
            bias.normal_(generator=seeded(2))
    return made


def defined_cost(made: Autoencoder, x: Tensor, seen: Tensor) -> Tensor:
    """The cost as the papers write it: image by image, the Jacobian by autograd."""
    decoder = made.weight.t() if made.decoder_weight is None else made.decoder_weight
    activate = ACTIVATIONS[made.activation]()
    total = torch.zeros((), dtype=torch.float64)
    codes = []
    for image, shown in zip(x, seen, strict=True):
        code = activate(made.weight @ shown + made.bias)
        codes.append(code)
        rebuilt = decoder @ code + made.visible_bias
        if made.cost == "cross-entropy":
            p = torch.sigmoid(rebuilt)
            total = total - (image * p.log() + (1 - image) * (1 - p).log()).sum()
        else:
            total = total + ((image - rebuilt) ** 2).sum()
        if made.kind == "contractive":
            jacobian = torch.autograd.functional.jacobian(
                lambda v: activate(made.weight @ v + made.bias), shown, create_graph=True
            )
            total = total + made.contraction * (jacobian**2).sum()
    total = total / len(x)
    if made.kind == "sparse":
        rho, hat = made.target, torch.stack(codes).mean(0)
        total = total + made.sparsity * (rho * (rho / hat).log() + (1 - rho) * ((1 - rho) / (1 - hat)).log()).sum()
    return total


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cost", ["cross-entropy", "squared"])
@pytest.mark.parametrize(
    ("kind", "activation"),
    [(kind, name) for kind in ("plain", "denoising", "contractive") for name in ACTIVATIONS] + [("sparse", "sigmoid")],
)
def test_the_gradient_is_that_of_the_definition(kind: str, activation: str, cost: str, tied: bool) -> None:
    made = layer(kind=kind, activation=activation, cost=cost, tied=tied)
    x = images()
    made.fill_gradient(x, seeded(3))
    seen = corrupt(x, made.noise, made.level, seeded(3)) if kind == "denoising" else x
    parameters = list(made.parameters())
    expected = torch.autograd.grad(defined_cost(made, x, seen), parameters)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)


def test_the_error_is_the_squared_distance_of_an_image_and_its_reconstruction() -> None:
    made, x = layer(), images()
    expected = ((x - made.decode(made.encode(x))) ** 2).sum(1).mean().item()
    assert made.fill_gradient(x) == pytest.approx(expected, rel=1e-12)


def test_a_saturated_decoder_still_has_a_gradient() -> None:
    made = Autoencoder(3, 2)
    with torch.no_grad():
        made.visible_bias.fill_(200)
    made.fill_gradient(torch.zeros(4, 3))
    torch.testing.assert_close(made.visible_bias.grad, torch.ones(3))


def test_masking_puts_the_given_share_to_zero_and_leaves_the_rest() -> None:
    x = torch.rand(400, 500, generator=seeded()) + 0.1
    noisy = corrupt(x, "masking", 0.3, seeded(1))
    gone = noisy == 0
    assert torch.equal(noisy[~gone], x[~gone])
    assert gone.double().mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / x.numel()))


def test_salt_and_pepper_puts_half_of_the_given_share_to_each() -> None:
    x = torch.rand(400, 500, generator=seeded()) * 0.8 + 0.1
    noisy = corrupt(x, "salt-and-pepper", 0.4, seeded(1))
    salt, pepper = noisy == 1, noisy == 0
    assert torch.equal(noisy[~(salt | pepper)], x[~(salt | pepper)])
    for share in (salt, pepper):
        assert share.double().mean().item() == pytest.approx(0.2, abs=5 * math.sqrt(0.16 / x.numel()))


def test_gaussian_noise_has_mean_0_and_the_given_deviation() -> None:
    x = torch.rand(400, 500, generator=seeded(), dtype=torch.float64)
    added = corrupt(x, "gaussian", 0.5, seeded(1)) - x
    assert added.mean().item() == pytest.approx(0, abs=5 * 0.5 / math.sqrt(x.numel()))
    assert added.std().item() == pytest.approx(0.5, rel=5 / math.sqrt(2 * x.numel()))


@pytest.mark.parametrize("noise", ["masking", "gaussian", "salt-and-pepper"])
def test_no_noise_at_level_0(noise: str) -> None:
    x = images()
    assert torch.equal(corrupt(x, noise, 0.0, seeded()), x)


def test_all_randomness_is_the_generators() -> None:
    x = images()
    state = torch.get_rng_state()
    first, second = (corrupt(x, "masking", 0.5, seeded(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(layer().weight, layer().weight)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("cost", ["cross-entropy", "squared"])
def test_the_plain_modules_are_the_layer_and_share_nothing_with_it(activation: str, cost: str) -> None:
    made, x = layer(activation=activation, cost=cost), images()
    code, rebuilt = made.encode(x), made.decode(made.encode(x))
    up, down = nn.Sequential(*made.encoder()), nn.Sequential(*made.decoder())
    torch.testing.assert_close(up(x), code)
    torch.testing.assert_close(down(up(x)), rebuilt)
    with torch.no_grad():
        for parameter in (*up.parameters(), *down.parameters()):
            parameter.zero_()
    torch.testing.assert_close(made.encode(x), code)


def test_samples_are_bits_with_the_codes_probabilities() -> None:
    made = layer()
    x = images(1).expand(40_000, 5)
    bits = made.sample_code(x, seeded(1))
    assert set(bits.unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(bits.mean(0), made.encode(x[0]), rtol=0, atol=5 * 0.5 / math.sqrt(40_000))


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.rand(3, 4), "takes [n, 5], not [3, 4]"),
        (torch.rand(5), "not [5]"),
        (torch.rand(0, 5), "empty"),
        (torch.full((2, 5), math.nan), "NaN"),
        (torch.tensor([[0, 0, 0, 0, math.inf]]), "infinite"),
        (torch.full((2, 5), 255.0), "[255, 255], but cross-entropy needs [0, 1]"),
        (torch.full((2, 5), -0.5), "[0, 1]"),
    ],
)
def test_bad_data_get_one_clear_line(x: Tensor, says: str) -> None:
    with pytest.raises(DataError) as caught:
        Autoencoder(5, 4).check(x)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_squared_cost_takes_any_finite_number() -> None:
    Autoencoder(5, 4, cost="squared").check(torch.full((2, 5), -7.0))


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "variational"},
        {"activation": "step"},
        {"noise": "pink"},
        {"level": 1.5},
        {"level": -1.0, "noise": "gaussian"},
        {"kind": "sparse", "activation": "tanh"},
        {"kind": "sparse", "target": 1.0},
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Autoencoder(5, 4, **settings)
