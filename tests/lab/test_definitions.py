"""Activations, initialisations, normalisations and nets against their definitions, in NumPy and float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradtui.lab.initialise import GATE_BIAS
from gradtui.lab.models import build, lsuv
from gradtui.lab.recipe import Recipe
from gradtui.lab.recurrent import build_recurrent
from gradtui.lab.tensors import load
from gradtui.lab.train import make_model
from gradtui.remedies import choices

Array = np.ndarray
Z = np.concatenate([np.linspace(-6, 6, 241), [-1e-3, 1e-3]])
Z = Z[Z != 0]  # the slope of ReLU and its kin at 0 is a convention
NET = Recipe(hidden=(3, 3), dtype="float64", init="xavier")


def net(recipe: Recipe, seed: int = 0) -> nn.Sequential:
    return build(recipe, torch.Generator().manual_seed(seed))


def phi(z: Array) -> Array:
    return np.array([(1 + math.erf(x / math.sqrt(2))) / 2 for x in z])


def sigma(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, eq. 14
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": sigma,
    "tanh": np.tanh,
    "softplus": lambda z: np.log1p(np.exp(z)),
    "relu": lambda z: np.maximum(0, z),
    "leaky-relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "prelu": lambda z: np.where(z > 0, z, 0.25 * z),
    "elu": lambda z: np.where(z > 0, z, np.exp(z) - 1),
    "selu": lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * (np.exp(z) - 1)),
    "gelu": lambda z: z * phi(z),
    "silu": lambda z: z * sigma(z),
}


def activate(module: nn.Module, z: Array) -> tuple[Array, Array]:
    """Values and slopes of an activation at `z`, each fed to all three units of a layer."""
    wide = torch.from_numpy(np.repeat(z[:, None], 3, axis=1)).requires_grad_()
    out = module(wide)
    out.sum().backward()
    assert wide.grad is not None
    return out.detach().numpy()[:, 0], wide.grad.numpy()[:, 0]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_slopes_of_activations_are_those_of_their_formulas(name: str) -> None:
    values, slopes = activate(net(NET.but(activation=name)).act1, Z)  # type: ignore[arg-type]
    function = ACTIVATIONS[name]
    np.testing.assert_allclose(values, function(Z), rtol=1e-12, atol=1e-12)
    step = 1e-6
    np.testing.assert_allclose(slopes, (function(Z + step) - function(Z - step)) / (2 * step), rtol=1e-5, atol=1e-7)
    assert set(ACTIVATIONS) | {"maxout"} == set(choices("activation"))


@pytest.mark.parametrize("name", ["leaky-relu", "prelu"])
@pytest.mark.parametrize("slope", [0.0, 0.3, -0.1])
def test_a_slope_can_be_given(name: str, slope: float) -> None:
    values, slopes = activate(net(NET.but(activation=name, slope=slope)).act1, np.array([-2.0, 2.0]))  # type: ignore[arg-type]
    np.testing.assert_allclose(values, [-2 * slope, 2.0])
    np.testing.assert_allclose(slopes, [slope, 1.0])


def test_prelu_learns_a_slope_for_each_unit() -> None:
    act = net(NET.but(activation="prelu")).act1
    z = torch.tensor([[-1.0, -2.0, 3.0], [-4.0, 5.0, 6.0]], dtype=torch.float64)
    act(z).sum().backward()
    (slope,) = act.parameters()
    assert slope.grad is not None
    assert slope.grad.tolist() == [-5.0, -2.0, 0.0], "the sum of what is below 0"


def test_maxout_takes_the_larger_of_two_sums() -> None:
    made = net(NET.but(activation="maxout"))
    images = torch.rand(5, 64, dtype=torch.float64)
    sums = images @ made.fc1.weight.T + made.fc1.bias  # type: ignore[union-attr, operator]
    expected = np.array([[max(row[2 * unit : 2 * unit + 2]) for unit in range(3)] for row in sums.tolist()])
    np.testing.assert_allclose(made[:2](images).detach().numpy(), expected)


# -- initialisations ------------------------------------------------------------------------------------------------

FAN_IN, FAN_OUT = 400, 300
WIDE = Recipe(hidden=(FAN_IN, FAN_OUT), dtype="float64")
DEVIATIONS = {
    "normal": 1.0,
    "scaled": FAN_IN**-0.5,
    "uniform": (3 * FAN_IN) ** -0.5,
    "lecun": FAN_IN**-0.5,
    "xavier": (2 / (FAN_IN + FAN_OUT)) ** 0.5,
    "xavier-uniform": (2 / (FAN_IN + FAN_OUT)) ** 0.5,
    "he": (2 / FAN_IN) ** 0.5,
    "he-uniform": (2 / FAN_IN) ** 0.5,
}
BOUNDS = {"uniform": FAN_IN**-0.5, "xavier-uniform": (6 / 700) ** 0.5, "he-uniform": (6 / FAN_IN) ** 0.5}


@pytest.mark.parametrize("init", DEVIATIONS)
def test_weights_have_the_deviation_of_the_formula(init: str) -> None:
    weight = net(WIDE.but(init=init)).fc2.weight.detach().numpy()  # type: ignore[union-attr, operator]
    # the standard error of a deviation from n numbers is under σ/√(2n): five of them
    error = 5 / math.sqrt(2 * weight.size)
    assert weight.std() == pytest.approx(DEVIATIONS[init], rel=error)
    assert abs(weight.mean()) < 5 * DEVIATIONS[init] / math.sqrt(weight.size)
    if init in BOUNDS:
        assert BOUNDS[init] * 0.999 < np.abs(weight).max() <= BOUNDS[init]
    else:
        kurtosis = ((weight / weight.std()) ** 4).mean()
        assert kurtosis == pytest.approx(3.0, abs=0.1), "normally distributed"


@pytest.mark.parametrize("init", sorted(set(choices("init")) - {"chain", "identity"}))
def test_biases_start_at_zero_but_for_the_books(init: str) -> None:
    bias = net(WIDE.but(init=init)).fc1.bias.detach().numpy()  # type: ignore[union-attr, operator]
    if init in ("normal", "scaled"):
        assert bias.std() == pytest.approx(1.0, rel=5 / math.sqrt(2 * FAN_IN))
    else:
        assert not bias.any()


def test_sigma_scales_weights_and_biases() -> None:
    one, small = (net(WIDE.but(init="normal", sigma=sigma)).fc2 for sigma in (1.0, 0.01))
    for name in ("weight", "bias"):
        np.testing.assert_allclose(getattr(small, name).detach(), 0.01 * getattr(one, name).detach(), rtol=1e-12)


def test_orthogonal_matrices_keep_lengths() -> None:
    weight = net(WIDE.but(init="orthogonal")).fc2.weight.detach().numpy()  # type: ignore[union-attr, operator]
    np.testing.assert_allclose(weight @ weight.T, np.eye(FAN_OUT), atol=1e-10)


@pytest.mark.parametrize("changes", [{}, {"net": "residual"}, {"net": "highway"}, {"net": "dense"}, {"rank": 5},
                                     {"activation": "relu"}, {"norm": "rms"}])  # fmt: skip
def test_lsuv_gives_every_layer_outputs_of_variance_one(changes: dict[str, object]) -> None:
    recipe = Recipe(hidden=(30,) * 6, init="lsuv", activation="tanh", cost="softmax").adapted(changes)
    tensors = load(recipe)
    model = make_model(recipe, tensors, torch.Generator().manual_seed(0))
    seen: dict[str, float] = {}
    for name, module in model.named_children():
        if name.startswith("fc"):
            module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: float(out.detach().var())}))
    model(tensors.images[:512])
    assert len(seen) == 7
    for name, variance in seen.items():
        assert variance == pytest.approx(1.0, abs=0.02), name


def test_lsuv_leaves_batch_norms_averages_alone() -> None:
    recipe = Recipe(hidden=(8, 8), init="lsuv", norm="batch", cost="softmax")
    made = net(recipe)
    lsuv(recipe, made, load(recipe).images[:64])
    assert made.training and not made.norm1.running_mean.any()  # type: ignore[union-attr, operator]


def test_identity_starts_a_recurrent_net_with_the_identity() -> None:
    recipe = Recipe(data="adding", net="rnn", activation="relu", init="identity", cost="squared", hidden=(200,))
    made = build_recurrent(recipe, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(made.rnn1.weight_hh.detach(), np.eye(200))  # type: ignore[union-attr, operator]
    assert float(made.rnn1.weight_ih.detach().std()) == pytest.approx(0.001, rel=0.2)  # type: ignore[union-attr, operator]


def test_each_gate_is_initialised_as_a_matrix_of_its_own_and_the_forget_gate_opened() -> None:
    recipe = Recipe(
        data="adding", net="lstm", activation="tanh", init="orthogonal", cost="squared", hidden=(20,), forget_bias=3.0
    )
    cell = build_recurrent(recipe, torch.Generator().manual_seed(0)).lstm1
    for gate in cell.weight_hh.detach().chunk(4):  # type: ignore[union-attr, operator]
        np.testing.assert_allclose(gate @ gate.T, np.eye(20), atol=1e-5)
    biases = (cell.bias_ih + cell.bias_hh).detach().chunk(4)  # type: ignore[union-attr, operator]
    assert [set(gate.tolist()) for gate in biases] == [{0.0}, {3.0}, {0.0}, {0.0}], "input, forget, cell, output"


@pytest.mark.parametrize("init", sorted(set(choices("init")) - {"chain", "identity"}))
def test_one_generator_decides_the_weights_and_the_global_one_is_left_alone(init: str) -> None:
    state = torch.get_rng_state()
    one, same, other = (net(NET.but(init=init), seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.fc2.weight, other.fc2.weight)  # type: ignore[union-attr, arg-type]


# -- normalisations -------------------------------------------------------------------------------------------------

IMAGES = torch.from_numpy(np.random.default_rng(0).random((40, 64)))


def before_and_after(norm: str) -> tuple[Array, Array]:
    """What goes into the first normalisation, and what comes out: [images, units]."""
    made = net(NET.but(hidden=(9, 5), norm=norm, activation="relu", init="he"))
    seen: list[Array] = []
    made.norm1.register_forward_hook(  # type: ignore[union-attr, operator]
        lambda _, given, out: seen.extend([given[0].detach().numpy(), out.detach().numpy()])
    )
    made(IMAGES)
    return seen[0], seen[1]


def test_batch_norm_gives_each_unit_mean_0_and_variance_1_over_the_batch() -> None:
    z, out = before_and_after("batch")
    np.testing.assert_allclose(out, (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5), rtol=1e-9, atol=1e-12)


def test_layer_norm_does_so_for_each_image_over_the_units() -> None:
    z, out = before_and_after("layer")
    mean, variance = z.mean(1, keepdims=True), z.var(1, keepdims=True)
    np.testing.assert_allclose(out, (z - mean) / np.sqrt(variance + 1e-5), rtol=1e-9, atol=1e-12)


def test_rms_norm_divides_by_the_root_mean_square() -> None:
    z, out = before_and_after("rms")
    np.testing.assert_allclose(out, z / np.sqrt((z**2).mean(1, keepdims=True)), rtol=1e-6)


def test_local_response_normalisation_divides_an_output_by_its_neighbours() -> None:
    a, out = before_and_after("lrn")
    assert (a >= 0).all(), "it comes after the activation"
    expected = np.empty_like(a)
    for unit in range(9):  # Krizhevsky et al. 2012, sec. 3.3: k = 2, n = 5, α = 1e-4, β = 0.75
        near = a[:, max(0, unit - 2) : unit + 3]
        expected[:, unit] = a[:, unit] / (2 + 1e-4 * (near**2).sum(1)) ** 0.75
    np.testing.assert_allclose(out, expected, rtol=1e-9)


def test_inputs_are_scaled_by_what_the_training_images_say() -> None:
    unit, symmetric, standardised = (
        load(Recipe(input_scale=scale, train_size=300, dtype="float64"))
        for scale in ("unit", "symmetric", "standardised")
    )
    plain = unit.images.numpy()
    assert plain.min() == 0 and plain.max() == 1
    np.testing.assert_allclose(symmetric.images, 2 * plain - 1, atol=1e-6)
    varying = plain.std(0) > 0
    scaled = standardised.images.numpy()
    np.testing.assert_allclose(scaled[:, varying].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled[:, varying].std(0), 1, atol=1e-5)
    assert not scaled[:, ~varying].any() and not varying.all()
    assert unit.test is not None and standardised.test is not None
    test = (unit.test[0].numpy() - plain.mean(0))[:, varying] / plain.std(0)[varying]
    np.testing.assert_allclose(standardised.test[0].numpy()[:, varying], test, atol=1e-4)


# -- nets -----------------------------------------------------------------------------------------------------------


def linear(made: nn.Module, name: str, x: Array) -> Array:
    layer = dict(made.named_children())[name]
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()  # type: ignore[union-attr, operator]
    return x @ layer.weight.detach().numpy().T + bias  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("hidden", [(5,) * 7, (5,) * 6, (5, 4, 3, 3, 6), (4, 4)])
def test_a_residual_net_adds_what_goes_into_two_layers_to_what_comes_out(hidden: tuple[int, ...]) -> None:
    made = net(NET.but(net="residual", hidden=hidden, activation="tanh"))
    x = linear(made, "fc1", IMAGES.numpy())
    layer, block = 2, 0
    while layer <= len(hidden):
        block += 1
        before, last = x, min(layer + 1, len(hidden))
        for index in range(layer, last + 1):
            x = linear(made, f"fc{index}", np.tanh(x))
        x = x + (linear(made, f"shortcut{block}", before) if before.shape != x.shape else before)
        layer = last + 1
    expected = linear(made, f"fc{len(hidden) + 1}", np.tanh(x))
    np.testing.assert_allclose(made(IMAGES).detach().numpy(), expected, rtol=1e-9)


def test_a_plain_twin_has_the_same_layers_and_the_same_weights() -> None:
    twins = [net(NET.but(net=kind, hidden=(5,) * 7, norm="batch")) for kind in ("plain", "residual")]
    (plain, residual) = ([(name, p) for name, p in twin.named_parameters()] for twin in twins)
    assert [name for name, _ in plain] == [name for name, _ in residual]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(plain, residual, strict=True))


def test_a_highway_net_mixes_each_layers_input_and_output_by_a_gate_that_starts_nearly_shut() -> None:
    made = net(NET.but(net="highway", hidden=(5, 5, 4, 4), activation="relu"))
    x = np.maximum(0, linear(made, "fc1", IMAGES.numpy()))
    for index in (2, 3, 4):
        h = np.maximum(0, linear(made, f"fc{index}", x))
        if index == 3:  # the width changes: a plain layer
            x = h
            continue
        share = sigma(linear(made, f"gate{index}", x))
        x = share * h + (1 - share) * x
        assert share.mean() < 0.5
        assert set(dict(made.named_children())[f"gate{index}"].bias.tolist()) == {GATE_BIAS}  # type: ignore[union-attr, operator]
    assert not hasattr(made, "gate3") and not hasattr(made, "gate1")
    np.testing.assert_allclose(made(IMAGES).detach().numpy(), linear(made, "fc5", x), rtol=1e-9)


def test_in_a_densely_connected_net_each_layer_sees_all_before_it() -> None:
    made = net(NET.but(net="dense", hidden=(5, 4, 3), activation="tanh"))
    seen = IMAGES.numpy()
    for index in (1, 2, 3):
        seen = np.concatenate([seen, np.tanh(linear(made, f"fc{index}", seen))], axis=1)
    np.testing.assert_allclose(made(IMAGES).detach().numpy(), linear(made, "fc4", seen), rtol=1e-9)


def test_a_low_rank_layer_is_a_product_of_two_thin_matrices() -> None:
    made = net(NET.but(hidden=(20, 20), rank=3))
    u, v = (getattr(made.fc2, name).detach().numpy() for name in ("wide_weight", "narrow_weight"))
    assert (u.shape, v.shape) == ((20, 3), (3, 20))
    x = np.random.default_rng(1).random((4, 20))
    out = made.fc2(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(out, x @ (u @ v).T + made.fc2.bias.detach().numpy(), rtol=1e-9)  # type: ignore[union-attr, operator]
    assert isinstance(net(NET.but(hidden=(20, 20), rank=15)).fc2, nn.Linear), "where it would not be smaller"


def test_dropout_leaves_units_out_while_training_only() -> None:
    drop = net(NET.but(hidden=(1000, 5), dropout=0.3)).drop1
    ones = torch.ones(50, 1000, dtype=torch.float64)
    kept = drop(ones)
    assert float((kept == 0).double().mean()) == pytest.approx(0.3, abs=5 * (0.21 / 50_000) ** 0.5)
    np.testing.assert_allclose(kept[kept != 0].detach(), 1 / 0.7)
    assert torch.equal(drop.eval()(ones), ones)


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "net": st.sampled_from(["plain", "residual", "highway", "dense"]),
            "hidden": st.lists(st.integers(2, 9), min_size=2, max_size=6).map(tuple),
            "activation": st.sampled_from(list(choices("activation"))),
            "norm": st.sampled_from(["none", *choices("norm")]),
            "rank": st.integers(0, 3),
        }
    )
)
def test_parameters_are_counted_as_torch_counts_them(facts: dict[str, object]) -> None:
    recipe = Recipe(**facts)  # type: ignore[arg-type]
    assert recipe.parameters == sum(p.numel() for p in net(recipe).parameters())


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("hidden", [(3,), (4, 2, 5)])
def test_parameters_of_recurrent_nets_are_too(kind: str, hidden: tuple[int, ...]) -> None:
    recipe = Recipe(net=kind, hidden=hidden, activation="tanh")
    made = build_recurrent(recipe, torch.Generator())
    assert recipe.parameters == sum(p.numel() for p in made.parameters())
