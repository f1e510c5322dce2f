"""Every cost with every activation, against backpropagation written out in NumPy, in float64."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from gradtui.errors import UsageError
from gradtui.lab.costs import COSTS, training_cost
from gradtui.lab.models import build
from gradtui.lab.recipe import Recipe
from gradtui.lab.tensors import load
from gradtui.lab.train import train
from gradtui.runfile import open_run

Array = np.ndarray


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


# the function and, from its values, its slope
NUMPY_ACTIVATIONS = {
    "sigmoid": (sigmoid, lambda a: a * (1 - a)),
    "tanh": (np.tanh, lambda a: 1 - a**2),
    "relu": (lambda z: np.maximum(z, 0), lambda a: (a > 0).astype(float)),
}


CLASSIFIERS = [cost for cost in COSTS if cost != "squared"]


def numpy_cost(name: str, z: Array, targets: Array) -> tuple[float, Array]:
    """The mean cost over the images and its gradient by z, the inputs of the outputs: [images, 10]."""
    n = len(z)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    if name == "softmax-quadratic":
        error = p - targets
        slope_of_p = p * (error - (error * p).sum(axis=1, keepdims=True))
        return float((error**2).sum() / 2 / n), slope_of_p / n
    if name == "softmax":
        return float(-(targets * np.log(p)).sum() / n), (p - targets) / n
    a = sigmoid(z)
    if name == "quadratic":
        return float(((targets - a) ** 2).sum() / 2 / n), (a - targets) * a * (1 - a) / n
    return float(-(targets * np.log(a) + (1 - targets) * np.log(1 - a)).sum() / n), (a - targets) / n


def backpropagate(
    recipe: Recipe, weights: list[Array], biases: list[Array], images: Array, targets: Array
) -> tuple[float, list[Array], list[Array]]:
    function, slope = NUMPY_ACTIVATIONS[recipe.activation]
    activations, z = [images], images
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        z = activations[-1] @ w.T + b
        if layer < len(weights) - 1:
            activations.append(function(z))
    cost, delta = numpy_cost(recipe.cost, z, targets)
    bias_grads, weight_grads = [], []
    for layer in reversed(range(len(weights))):
        bias_grads.insert(0, delta.sum(axis=0))
        weight_grads.insert(0, delta.T @ activations[layer])
        if layer:
            delta = delta @ weights[layer] * slope(activations[layer])
    return cost, bias_grads, weight_grads


@pytest.mark.parametrize("cost", CLASSIFIERS)
@pytest.mark.parametrize("activation", NUMPY_ACTIVATIONS)
def test_cost_and_gradients_are_the_textbooks(activation: str, cost: str) -> None:
    recipe = Recipe(hidden=(6, 5, 4), activation=activation, cost=cost, dtype="float64")
    random = np.random.default_rng(5)
    sizes = (64, 6, 5, 4, 10)
    weights = [random.normal(0, 0.5, (out, into)) for into, out in pairwise(sizes)]
    biases = [random.normal(0, 0.5, out) for out in sizes[1:]]
    images, labels = random.random((12, 64)), random.integers(0, 10, 12)
    expected, bias_grads, weight_grads = backpropagate(recipe, weights, biases, images, np.eye(10)[labels])

    model = build(recipe, torch.Generator())
    linears = [module for module in model if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for linear, w, b in zip(linears, weights, biases, strict=True):
            linear.weight.copy_(torch.from_numpy(w))
            linear.bias.copy_(torch.from_numpy(b))
    targets = torch.from_numpy(labels if cost == "softmax" else np.eye(10)[labels])
    loss = COSTS[cost](model(torch.from_numpy(images)), targets)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    for linear, bias_grad, weight_grad in zip(linears, bias_grads, weight_grads, strict=True):
        for ours, theirs in ((linear.bias.grad, bias_grad), (linear.weight.grad, weight_grad)):
            assert ours is not None
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9, atol=1e-9 * np.abs(theirs).max())


@pytest.mark.parametrize("cost", CLASSIFIERS)
def test_a_run_holds_the_cost_and_the_norms_of_that_gradient(cost: str, runs_in_tmp: Path) -> None:
    from sklearn.datasets import load_digits

    recipe = Recipe(
        hidden=(7, 6), cost=cost, dtype="float64", batch_size=0, epochs=1, seed=4, init="xavier", activation="tanh"
    )
    model = build(recipe, torch.Generator().manual_seed(4))
    linears = [module for module in model if isinstance(module, torch.nn.Linear)]
    weights = [linear.weight.detach().numpy() for linear in linears]
    biases = [linear.bias.detach().numpy() for linear in linears]
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(1797)[:1200]
    images = (pixels[order] / 16).astype(np.float32).astype(float)
    expected, bias_grads, weight_grads = backpropagate(recipe, weights, biases, images, np.eye(10)[labels[order]])

    result = train(recipe, folder=runs_in_tmp)
    assert result.path is not None
    with open_run(result.path) as reader:
        assert [m.name for m in reader.measures[:3]] == ["bias_grad_norm", "weight_grad_norm", "grad_norm"]
        rows = reader.newer(0)
    assert rows.loss[0] == pytest.approx(expected, rel=1e-9)
    of_biases = np.array([np.linalg.norm(grad) for grad in bias_grads])
    of_weights = np.array([np.linalg.norm(grad) for grad in weight_grads])
    for column, norms in enumerate((of_biases, of_weights, np.hypot(of_biases, of_weights))):
        np.testing.assert_allclose(rows.measures[0, :, column], norms, rtol=2e-7)  # float32 in the file


def test_label_smoothing_is_the_cross_entropy_of_mixed_labels_as_torch_has_it() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 10, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.randint(10, (20,), generator=generator)
    recipe = Recipe().with_remedies("label-smoothing")
    assert (recipe.cost, recipe.label_smoothing) == ("softmax", 0.1)
    cost = training_cost(recipe)(logits, labels)
    (slope,) = torch.autograd.grad(cost, logits)
    mixed = 0.9 * np.eye(10)[labels.numpy()] + 0.1 / 10  # Szegedy et al. 2016, sec. 7
    expected, expected_slope = numpy_cost("softmax", logits.detach().numpy(), mixed)
    assert cost.item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(slope.numpy(), expected_slope, rtol=1e-9, atol=1e-15)
    torchs = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(logits, labels)
    assert cost.item() == pytest.approx(torchs.item(), rel=1e-12)


def test_a_training_minimises_smoothed_labels_and_reports_the_cost_without(runs_in_tmp: Path) -> None:
    recipe = Recipe(cost="softmax", label_smoothing=0.2, hidden=(8,), epochs=1, train_size=50, batch_size=0)
    path = train(recipe, folder=runs_in_tmp).path
    assert path is not None
    model = build(recipe, torch.Generator().manual_seed(recipe.seed))
    tensors = load(recipe)
    logits = model(tensors.images)
    with open_run(path) as reader:
        loss = float(reader.at(1).loss[0])
        train_cost = float(reader.scalars()[0]["train_cost"].value[0])
    smoothed = torch.nn.functional.cross_entropy(logits, tensors.targets, label_smoothing=0.2)
    assert loss == pytest.approx(smoothed.item(), rel=1e-6)
    smoothed.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= recipe.rate * parameter.grad
        after = torch.nn.functional.cross_entropy(model(tensors.images), tensors.targets)
    assert train_cost == pytest.approx(after.item(), rel=1e-5)


def test_label_smoothing_is_for_softmax_and_leaves_older_trainings_the_same() -> None:
    with pytest.raises(UsageError, match="--label-smoothing is for --cost softmax, not quadratic"):
        Recipe(cost="quadratic", label_smoothing=0.1)
    assert Recipe(cost="softmax", label_smoothing=0.1).with_remedies("quadratic").label_smoothing == 0
    assert "label_smoothing" not in Recipe().same_training()
    assert Recipe(cost="softmax").same_training() != Recipe(cost="softmax", label_smoothing=0.1).same_training()
