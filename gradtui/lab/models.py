"""The nets a recipe can ask for."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn

from gradtui.lab.recipe import Recipe

_ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
CHAIN_WEIGHT = 100.0


def build(recipe: Recipe, generator: torch.Generator) -> nn.Sequential:
    """The multilayer perceptron of a recipe: `fc1`, `act1`, `fc2`, …; the last layer gives logits.

    The recipe's hidden layers are fc1 … fcN and the output layer fcN+1. `generator` alone decides the weights.
    """
    dtype = torch.float64 if recipe.dtype == "float64" else torch.float32
    sizes = (recipe.inputs, *recipe.hidden, recipe.outputs)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation draws from the global generator
        for index, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
            layer = nn.Linear(fan_in, fan_out, dtype=dtype)
            _initialise(layer, recipe, generator, first=index == 1)
            modules[f"fc{index}"] = layer
            if index < len(sizes) - 1:
                modules[f"act{index}"] = _ACTIVATIONS[recipe.activation]()
    return nn.Sequential(modules)


def _initialise(layer: nn.Linear, recipe: Recipe, generator: torch.Generator, *, first: bool) -> None:
    fan_out, fan_in = layer.weight.shape
    with torch.no_grad():
        if recipe.init == "chain":
            # b = −w·a puts z at 0, where a neuron's own activation is 1/2 (Nielsen 2015, ch. 5)
            layer.weight.fill_(CHAIN_WEIGHT)
            layer.bias.fill_(-CHAIN_WEIGHT * (recipe.point if first else 0.5))
            return
        deviation = {
            "normal": 1.0,
            "scaled": 1 / math.sqrt(fan_in),
            "xavier": math.sqrt(2 / (fan_in + fan_out)),
            "he": math.sqrt(2 / fan_in),
        }[recipe.init]
        layer.weight.normal_(0.0, deviation, generator=generator)
        if recipe.init in ("normal", "scaled"):
            layer.bias.normal_(0.0, 1.0, generator=generator)
        else:
            layer.bias.zero_()
