"""What a diagnosis can say: the kinds of findings, and the numbers that decide. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradtui.runfile.schema import Finding

__all__ = ["KINDS", "Finding", "Kind", "Thresholds"]


@dataclass(frozen=True)
class Kind:
    """One kind of finding: what it is called, what it means, and which remedies fit (`gradtui remedies` has them)."""

    name: str
    meaning: str
    remedies: tuple[str, ...]


_TABLE = (
    Kind(
        "nan",
        "a NaN or an infinity appeared",
        ("a smaller learning rate", "clipping", "an ε in logarithms, roots and divisions", "a look at the data"),
    ),
    Kind(
        "exploding",
        "gradients grow from layer to layer, or from step to step, until nothing is learnt",
        ("clipping", "a smaller learning rate", "He or Xavier initialisation", "BatchNorm", "LSTM for sequences"),
    ),
    Kind(
        "vanishing",
        "the gradient shrinks on its way back, so that the first layers hardly learn",
        ("ReLU with He initialisation", "BatchNorm", "residual shortcuts", "pretraining", "LSTM for sequences"),
    ),
    Kind(
        "dead",
        "most units of a layer are zero on the whole batch, and get no gradient",
        ("a smaller learning rate", "leaky ReLU or ELU", "He initialisation", "BatchNorm"),
    ),
    Kind(
        "saturated",
        "most outputs lie where the activation function is flat",
        ("smaller initial weights", "BatchNorm", "ReLU", "inputs of unit variance", "cross-entropy as the loss"),
    ),
    Kind(
        "update-too-large",
        "steps are so large, beside the parameters, that they undo each other",
        ("a smaller learning rate", "a warm-up of the rate", "clipping"),
    ),
    Kind(
        "update-too-small",
        "steps are so small, beside the parameters, that nothing changes",
        ("a larger learning rate",),
    ),
    Kind(
        "plateau",
        "the loss stands still, near where it began",
        ("another learning rate", "another initialisation", "a look at the labels", "momentum or Adam"),
    ),
    Kind(
        "not-updating",
        "a layer does not move while others do",
        ("the optimizer's parameters", "requires_grad", "detach and no_grad in the forward pass"),
    ),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _TABLE}


@dataclass(frozen=True)
class Thresholds:
    """The numbers that decide: ratios, but for the first five.

    Attributes:
        least_rows: recorded steps below which only NaN is spoken of.
        least_steps: steps below which only NaN and explosions are.
        patience: steps before it is said that a loss or the parameters stand still.
        plateau_rows: recorded steps before it is said of a loss.
        slope: the fall within the recent part, in standard errors, that counts as still falling.
        begin: share of the run, its beginning, that later values are compared with.
        recent: share of the run, its end, that is looked at.
        exceptions: share of the steps that may differ from what is said to hold.
        progress: share of its first value by which a loss has to have fallen to count as learning.
        learnt: the same, above which a net that no longer learns has learnt what there is, and is not stuck.
        vanishing: a layer's gradient per parameter over that of the fastest later layer.
        vanishing_update: its update ratio over the median of the layers, where the loss falls nevertheless.
        exploding_layers: a layer's gradient per parameter over that of the slowest later one.
        exploding_growth: the gradient of the net over its own past.
        exploding_loss: the loss over its first value.
        dead: share of a layer's units that are zero on whole batches.
        dead_above_others: the same over the median of the other layers' share.
        saturated: share of a layer's outputs.
        too_large: the net's median update ratio, at first or now.
        too_large_growth: the norm of the parameters over what it was at first.
        too_small: the share by which the parameters can have changed in all steps so far: the median of the layers.
        too_small_fastest: the same of the layer that moves most; where one moves by more, the others have a reason of
            their own not to.
        plateau: share of its first value within which a loss counts as having stood still.
        plateau_lower: the same, below its first value, that such a loss has never been.
        negligible: a layer's gradient over its parameters, where rounding undoes the steps that it makes.
    """

    least_rows: int = 2
    least_steps: int = 25
    patience: int = 100
    plateau_rows: int = 10
    slope: float = 3.0
    begin: float = 0.05
    recent: float = 0.25
    exceptions: float = 0.1
    progress: float = 0.1
    learnt: float = 0.6
    vanishing: float = 5e-3
    vanishing_update: float = 0.02
    exploding_layers: float = 100.0
    exploding_growth: float = 100.0
    exploding_loss: float = 10.0
    dead: float = 0.7
    dead_above_others: float = 2.0
    saturated: float = 0.6
    too_large: float = 0.1
    too_large_growth: float = 12.0
    too_small: float = 0.01
    too_small_fastest: float = 0.1
    plateau: float = 0.03
    plateau_lower: float = 0.1
    negligible: float = 1e-6
