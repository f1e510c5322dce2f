"""The measures of a layer: what they are called, and how they are taken. Imports no torch.

Each measure is a column of a recorded step. Those of gradtui are made as anybody's are: a `Measure` that is registered
in `MEASURES`, or handed to `watch(measures=[…])`. A package registers its own in a module that it names as an entry
point of the group `gradtui.measures`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gradtui.registry import Registry
from gradtui.runfile import schema
from gradtui.runfile.schema import Layer

__all__ = [
    "GRADIENT",
    "LEARNING_SPEED",
    "MEASURES",
    "WEIGHT_GRADIENT",
    "Measure",
    "Norm",
    "column_of",
    "described",
    "run_measures",
]

Tensor = Any  # a torch.Tensor: what reads runs has no torch
Number = Any  # a number, a tensor of one element, or None if there is nothing to measure
OfParameters = Callable[[Mapping[str, Tensor], Mapping[str, Tensor | None]], Number]
OfOutputs = Callable[[Tensor, str | None, Layer], Number]


@dataclass(frozen=True)
class Norm:
    """An L2 norm over the parameters of a layer, from sums of squares that are taken once for all such measures.

    Attributes:
        of: "gradients" (of the mean cost, before the step; a loss scale is divided out), "parameters" (before the
            step) or "updates" (the step that the optimizer really took).
        over: "all" parameters of the layer, its "biases", or the "others".
        relative_to: "parameters" divides an update by the norm of the same parameters before it; where that is 0
            there is nothing to measure.

    Raises:
        ValueError: there is no such norm.
    """

    of: Literal["gradients", "parameters", "updates"]
    over: Literal["all", "biases", "others"] = "all"
    relative_to: Literal["parameters"] | None = None

    def __post_init__(self) -> None:
        if self.of not in ("gradients", "parameters", "updates"):
            raise ValueError(f"a norm of {self.of!r}: give gradients, parameters or updates")
        if self.over not in ("all", "biases", "others"):
            raise ValueError(f"a norm over {self.over!r}: give all, biases or others")
        if self.relative_to is not None and (self.of, self.relative_to) != ("updates", "parameters"):
            raise ValueError("only a norm of updates can be relative, and only to parameters")


@dataclass(frozen=True)
class Measure(schema.Measure):
    """One number for each layer at a recorded step, and how it is taken: by exactly one of the last three.

        Measure("spectral_norm", "σ₁(W)", "1", "largest singular value of the weight", of_parameters=spectral_norm)

    A function gets tensors that are detached, under `torch.no_grad()`; those are the training's own memory, so do not
    change them. The random number generators are as before once it returns. It gives a number, a tensor of one
    element, or None where there is nothing to measure. A function that raises, or gives anything else, is said once
    on stderr and is not called again; the recording goes on without it.

    Attributes:
        name: what it is called in the run file; no other measure of the run may have the name.
        symbol: a few characters for the head of a column.
        unit: of the number; "1" if it has none.
        definition: what it is, in a sentence.
        title: a heading of a few words, e.g. "Spectral norm"; the name if there is none.
        source: "gradients", "parameters", "updates" or "outputs": follows from how it is taken.
        norm: sums of squares; they cost next to nothing beside the others.
        of_parameters: called for each layer before the step, with its parameters by name (those counted for this
            layer: a parameter that several layers share is at the first of them) and their gradients by the same
            names, None where there is none. Only on measured steps on which the update ratio is due too. Not called
            for layers whose parameters are sharded over processes, nor on steps that a loss scaler skips.
        of_outputs: called for each layer on steps whose outputs are sampled, with what the layer puts out after its
            activation function (floating point, of at least two elements; float32 if it has lower precision), the
            name of that function as `torch.nn.functional` has it ("relu", "tanh", …) and the `Layer`. It is called
            with None for the name before an activation function is known; of several calls the last one counts.
        in_report: the table of `gradtui report` shows it; the JSON has all measures.

    Raises:
        ValueError: it has no name, or is not taken in exactly one way.
    """

    source: str = field(init=False, default="")
    norm: Norm | None = None
    of_parameters: OfParameters | None = None
    of_outputs: OfOutputs | None = None
    in_report: bool = True

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a measure needs a name")
        ways = {"norm": self.norm, "of_parameters": self.of_parameters, "of_outputs": self.of_outputs}
        given = [way for way, value in ways.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"measure {self.name!r}: give exactly one of {', '.join(ways)}")
        source = self.norm.of if self.norm is not None else given[0].removeprefix("of_")
        object.__setattr__(self, "source", source)


MEASURES: Registry[Measure] = Registry("measure", "gradtui.measures")


def run_measures(own: Sequence[Measure] = ()) -> tuple[Measure, ...]:
    """The columns of a run: the registered measures, ours first, then `own`.

    Raises ValueError if two have one name, TypeError if one is no `Measure`.
    """
    found = {measure.name: measure for measure in MEASURES.values()}
    for measure in own:
        if not isinstance(measure, Measure):
            raise TypeError(f"measures: {measure!r} is no gradtui.Measure")
        if measure.name in found:
            raise ValueError(f"measures: there are two of the name {measure.name!r}: give yours another name")
        found[measure.name] = measure
    return tuple(found.values())


def column_of(measures: Sequence[schema.Measure], name: str) -> int:
    """The column of a measure among those of a run; raises ValueError if the run does not have it."""
    return [measure.name for measure in measures].index(name)


def described(measure: schema.Measure) -> schema.Measure:
    """The same with its title and source, which run files from before schema 3 do not have."""
    known = MEASURES.get(measure.name)
    if measure.title or known is None:
        return measure
    one = measure
    return schema.Measure(one.name, one.symbol, one.unit, one.definition, known.title, known.source)


# -- what gradtui measures --------------------------------------------------------------------------------------------

FLAT = 0.05  # of the largest derivative: below it a unit is saturated
_EDGE = (1.0 - math.sqrt(1.0 - FLAT)) / 2.0  # sigmoid: s(1 − s) = FLAT/4
# activation functions: where an output is saturated, below the first and above the second number
SATURATING = {
    "sigmoid": (_EDGE, 1.0 - _EDGE),
    "tanh": (-math.sqrt(1.0 - FLAT), math.sqrt(1.0 - FLAT)),
    "softsign": (math.sqrt(FLAT) - 1.0, 1.0 - math.sqrt(FLAT)),
}
RECTIFYING = frozenset({"relu", "relu6", "threshold"})  # activation functions that are 0 for all small inputs
CHANNELS_FIRST = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm")  # kinds of layers whose units are dimension 1


def _mean(output: Tensor, activation: str | None, layer: Layer) -> Number:
    return output.mean()


def _std(output: Tensor, activation: str | None, layer: Layer) -> Number:
    return output.std()  # with the mean a fifth of what torch.std_mean takes on a CPU


def _saturated(output: Tensor, activation: str | None, layer: Layer) -> Number:
    if activation not in SATURATING:
        return None
    low, high = SATURATING[activation]
    return ((output < low) | (output > high)).count_nonzero() / output.numel()


def _dead(output: Tensor, activation: str | None, layer: Layer) -> Number:
    if activation not in RECTIFYING or output.dim() < 2:
        return None
    units = output.transpose(1, -1) if layer.kind.startswith(CHANNELS_FIRST) else output
    alive = (units != 0).flatten(0, -2).any(0)
    return 1.0 - alive.count_nonzero() / alive.numel()


LEARNING_SPEED = "bias_grad_norm"  # the measure that "learns faster" and "slower" are said of
WEIGHT_GRADIENT = "weight_grad_norm"
GRADIENT = "grad_norm"  # that of layers whose biases say nothing

for _measure in (
    Measure(
        LEARNING_SPEED,
        "‖∂C/∂b‖",
        "cost per unit bias",
        "learning speed: L2 norm of the gradient of the mean cost by the layer's biases, before the step",
        title="Learning speed",
        norm=Norm("gradients", over="biases"),
    ),
    Measure(
        WEIGHT_GRADIENT,
        "‖∂C/∂W‖",
        "cost per unit weight",
        "L2 norm of the gradient of the mean cost by the layer's other parameters, before the step",
        title="Weight gradient",
        norm=Norm("gradients", over="others"),
        in_report=False,
    ),
    Measure(
        GRADIENT,
        "‖∂C/∂θ‖",
        "cost per unit parameter",
        "gradient norm: L2 norm of the gradient of the mean cost by all the layer's parameters, before the step",
        title="Gradient norm",
        norm=Norm("gradients"),
    ),
    Measure(
        "param_norm",
        "‖θ‖",
        "1",
        "L2 norm of the layer's parameters, before the step",
        title="Parameter norm",
        norm=Norm("parameters"),
        in_report=False,
    ),
    Measure(
        "update_ratio",
        "‖Δθ‖/‖θ‖",
        "1",
        "update ratio: L2 norm of the step the optimizer really took, over that of the parameters before it",
        title="Update ratio",
        norm=Norm("updates", relative_to="parameters"),
    ),
    Measure(
        "activation_mean",
        "mean a",
        "1",
        "mean of the layer's output, after its activation function",
        title="Mean activation",
        of_outputs=_mean,
        in_report=False,
    ),
    Measure(
        "activation_std",
        "std a",
        "1",
        "standard deviation of the layer's output, after its activation function",
        title="Std of activations",
        of_outputs=_std,
        in_report=False,
    ),
    Measure(
        "saturated",
        "saturated",
        "share of the outputs",
        "saturated fraction: share of the outputs of a sigmoid, tanh or their like where its derivative is under "
        "5 % of its maximum",
        title="Saturated fraction",
        of_outputs=_saturated,
    ),
    Measure(
        "dead",
        "dead",
        "share of the units",
        "dead fraction: share of the units after a ReLU or its like that are zero on the whole batch",
        title="Dead fraction",
        of_outputs=_dead,
    ),
):
    MEASURES.register(_measure.name, _measure)
