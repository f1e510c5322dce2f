"""The feed-forward nets a recipe can ask for; `recurrent` has those that read a sequence.

All have the same layers, `fc1`, `norm1`, `act1`, `drop1`, `fc2`, … and differ in how these are joined, so that twins
can be compared layer by layer. The hidden layers are fc1 … fcN, the output layer fcN+1 gives logits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradtui.lab import initialise
from gradtui.lab.recipe import Recipe
from gradtui.lab.size import MAXOUT_PIECES, blocks, fan_ins, is_low_rank

LEAKY_SLOPE = 0.01  # Maas et al. 2013
PRELU_SLOPE = 0.25  # He et al. 2015
LRN_NEIGHBOURS, LRN_BETA, LRN_K = 5, 0.75, 2.0  # Krizhevsky et al. 2012, sec. 3.3
LRN_ALPHA = LRN_NEIGHBOURS * 1e-4  # torch divides α by the neighbours, the paper does not


class Maxout(nn.Module):
    """The largest of `pieces` neighbouring sums: [batch, units · pieces] -> [batch, units] (Goodfellow et al. 2013)."""

    def __init__(self, pieces: int = MAXOUT_PIECES) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, sums: Tensor) -> Tensor:
        """Take the largest."""
        return sums.view(len(sums), -1, self.pieces).amax(dim=2)


class NeighbourNorm(nn.LocalResponseNorm):
    """Local response normalisation over the units of a layer, [batch, units] (Krizhevsky et al. 2012)."""

    def __init__(self) -> None:
        super().__init__(LRN_NEIGHBOURS, alpha=LRN_ALPHA, beta=LRN_BETA, k=LRN_K)

    def forward(self, input: Tensor) -> Tensor:
        """Divide each unit by its neighbours."""
        return super().forward(input.unsqueeze(2)).squeeze(2)


class LowRank(nn.Module):
    """A linear layer whose weight matrix is U·V, with V [rank, fan_in] and U [fan_out, rank]."""

    def __init__(self, fan_in: int, fan_out: int, rank: int, *, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.narrow_weight = nn.Parameter(torch.empty(rank, fan_in, dtype=dtype))
        self.wide_weight = nn.Parameter(torch.empty(fan_out, rank, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(fan_out, dtype=dtype)) if bias else None

    def forward(self, inputs: Tensor) -> Tensor:
        """[batch, fan_in] -> [batch, fan_out]."""
        return functional.linear(functional.linear(inputs, self.narrow_weight), self.wide_weight, self.bias)


class Residual(nn.Sequential):
    """Pre-activation residual net: two layers a block, whose input is added to their output (He et al. 2016).

    The sum is taken of the layers' weighted sums, so that nothing stands in the shortcut's way; where the width
    changes, a projection does.
    """

    def __init__(self, layers: OrderedDict[str, nn.Module], hidden: tuple[int, ...]) -> None:
        super().__init__(layers)
        self._ends = {f"fc{last + 1}": f"shortcut{number}" for number, (_, last) in enumerate(blocks(hidden), 1)}

    def forward(self, input: Tensor) -> Tensor:
        """[batch, inputs] -> logits [batch, outputs]."""
        carried = value = input
        for name, module in self._modules.items():
            if name.startswith("shortcut"):
                continue
            assert module is not None
            value = module(value)
            if name == "fc1":
                carried = value
            elif name in self._ends:
                projection = self._modules.get(self._ends[name])
                carried = value = value + (carried if projection is None else projection(carried))
        return value


class Highway(nn.Sequential):
    """y = T·H(x) + (1 − T)·x with T = σ(W_T x + b_T), where a layer keeps the width (Srivastava et al. 2015)."""

    def forward(self, input: Tensor) -> Tensor:
        """[batch, inputs] -> logits [batch, outputs]."""
        value, carried, share = input, input, None
        for name, module in self._modules.items():
            assert module is not None
            if name.startswith("gate"):
                carried, share = value, torch.sigmoid(module(value))
                continue
            value = module(value)
            if name.startswith("act") and share is not None:
                value = share * value + (1 - share) * carried
                share = None
        return value


class Dense(nn.Sequential):
    """Each layer sees the inputs and the outputs of all layers before it (Huang et al. 2017)."""

    def forward(self, input: Tensor) -> Tensor:
        """[batch, inputs] -> logits [batch, outputs]."""
        value, seen = input, [input]
        for name, module in self._modules.items():
            assert module is not None
            if name.startswith("fc") and name != "fc1":
                seen.append(value)
                value = torch.cat(seen, dim=1)
            value = module(value)
        return value


def build(recipe: Recipe, generator: torch.Generator) -> nn.Sequential:
    """The feed-forward net of a recipe; `generator` alone decides the weights. LSUV is yet to be scaled (`lsuv`)."""
    dtype = torch.float64 if recipe.dtype == "float64" else torch.float32
    before = fan_ins(recipe)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation draws from the global generator
        for index, units in enumerate(recipe.hidden):
            layers.update(_hidden_layer(recipe, index, before[index], units, dtype, generator))
        output = nn.Linear(before[-1], recipe.outputs, dtype=dtype)
        _initialise(output, recipe, generator, first=not recipe.hidden)
        layers[f"fc{len(recipe.hidden) + 1}"] = output
        if recipe.net == "residual":
            layers.update(_projections(recipe, layers, dtype, generator))
            return Residual(layers, recipe.hidden)
    if recipe.net == "highway":
        return Highway(layers)
    if recipe.net == "dense":
        return Dense(layers)
    return nn.Sequential(layers)


def lsuv(recipe: Recipe, model: nn.Module, images: Tensor) -> None:
    """Scale the layers of a recipe with LSUV weights to outputs of variance 1 on `images`."""
    layers = [module for name, module in model.named_children() if name.startswith("fc")]
    training = model.training
    model.eval()  # BatchNorm's running averages are not to learn from this
    initialise.scale_to_unit_variance(model, layers, images)
    model.train(training)


def _hidden_layer(
    recipe: Recipe, index: int, fan_in: int, units: int, dtype: torch.dtype, generator: torch.Generator
) -> dict[str, nn.Module]:
    number = index + 1
    sums = units * (MAXOUT_PIECES if recipe.activation == "maxout" else 1)
    # a bias before a normalisation that takes the mean away would do nothing: the normalisation has its own
    bias = recipe.norm not in ("batch", "layer")
    layers: dict[str, nn.Module] = {}
    if recipe.net == "highway" and index and fan_in == units:
        gate = nn.Linear(fan_in, units, dtype=dtype)
        initialise.fill(gate.weight, None, "lecun", None, generator)
        nn.init.constant_(gate.bias, initialise.GATE_BIAS)
        layers[f"gate{number}"] = gate
    linear: nn.Module
    if is_low_rank(recipe, fan_in, sums):
        linear = LowRank(fan_in, sums, recipe.rank, bias=bias, dtype=dtype)
    else:
        linear = nn.Linear(fan_in, sums, bias=bias, dtype=dtype)
    _initialise(linear, recipe, generator, first=index == 0)
    layers[f"fc{number}"] = linear
    if recipe.norm in _NORMS:
        layers[f"norm{number}"] = _NORMS[recipe.norm](sums, dtype)
    layers[f"act{number}"] = _ACTIVATIONS[recipe.activation](recipe, units, dtype)
    if recipe.norm == "lrn":
        layers[f"norm{number}"] = NeighbourNorm()
    if recipe.dropout:
        layers[f"drop{number}"] = nn.Dropout(recipe.dropout)
    return layers


def _projections(
    recipe: Recipe, layers: Mapping[str, nn.Module], dtype: torch.dtype, generator: torch.Generator
) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for number, (first, last) in enumerate(blocks(recipe.hidden), 1):
        before, after = (_sums(layers[f"fc{index + 1}"]) for index in (first - 1, last))
        if before != after:
            projection = nn.Linear(before, after, bias=False, dtype=dtype)
            initialise.fill(projection.weight, None, "lecun", None, generator)
            found[f"shortcut{number}"] = projection
    return found


def _sums(layer: nn.Module) -> int:
    return layer.wide_weight.shape[0] if isinstance(layer, LowRank) else cast(nn.Linear, layer).out_features


def _initialise(layer: nn.Module, recipe: Recipe, generator: torch.Generator, *, first: bool) -> None:
    bias = cast("Tensor | None", layer.bias)
    if isinstance(layer, LowRank):
        initialise.fill(layer.narrow_weight, None, recipe.init, recipe.sigma, generator)
        initialise.fill(layer.wide_weight, bias, recipe.init, recipe.sigma, generator)
    elif recipe.init == "chain":
        initialise.fill_chain(cast(Tensor, layer.weight), cast(Tensor, bias), recipe.point if first else 0.5)
    else:
        initialise.fill(cast(Tensor, layer.weight), bias, recipe.init, recipe.sigma, generator)


_NORMS: dict[str, Callable[[int, torch.dtype], nn.Module]] = {
    "batch": lambda sums, dtype: nn.BatchNorm1d(sums, dtype=dtype),
    "layer": lambda sums, dtype: nn.LayerNorm(sums, dtype=dtype),
    "rms": lambda sums, dtype: nn.RMSNorm(sums, dtype=dtype),
}
_ACTIVATIONS: dict[str, Callable[[Recipe, int, torch.dtype], nn.Module]] = {
    "sigmoid": lambda recipe, units, dtype: nn.Sigmoid(),
    "tanh": lambda recipe, units, dtype: nn.Tanh(),
    "softplus": lambda recipe, units, dtype: nn.Softplus(),
    "relu": lambda recipe, units, dtype: nn.ReLU(),
    "leaky-relu": lambda recipe, units, dtype: nn.LeakyReLU(LEAKY_SLOPE if recipe.slope is None else recipe.slope),
    "prelu": lambda recipe, units, dtype: nn.PReLU(
        units, PRELU_SLOPE if recipe.slope is None else recipe.slope, dtype=dtype
    ),
    "elu": lambda recipe, units, dtype: nn.ELU(),
    "selu": lambda recipe, units, dtype: nn.SELU(),
    "gelu": lambda recipe, units, dtype: nn.GELU(),
    "silu": lambda recipe, units, dtype: nn.SiLU(),
    "maxout": lambda recipe, units, dtype: Maxout(),
}
