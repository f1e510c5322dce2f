"""The measures of a layer: the columns of a recorded step, in the words of the field. Imports no torch."""

from __future__ import annotations

from gradtui.runfile.schema import Measure

__all__ = ["MEASURES", "Measure"]

MEASURES: tuple[Measure, ...] = (
    Measure(
        "bias_grad_norm",
        "‖∂C/∂b‖",
        "cost per unit bias",
        "learning speed: L2 norm of the gradient of the mean cost by the layer's biases, before the step",
        title="Learning speed",
        source="gradients",
    ),
    Measure(
        "weight_grad_norm",
        "‖∂C/∂W‖",
        "cost per unit weight",
        "L2 norm of the gradient of the mean cost by the layer's other parameters, before the step",
        title="Weight gradient",
        source="gradients",
    ),
    Measure(
        "grad_norm",
        "‖∂C/∂θ‖",
        "cost per unit parameter",
        "gradient norm: L2 norm of the gradient of the mean cost by all the layer's parameters, before the step",
        title="Gradient norm",
        source="gradients",
    ),
    Measure(
        "param_norm",
        "‖θ‖",
        "1",
        "L2 norm of the layer's parameters, before the step",
        title="Parameter norm",
        source="parameters",
    ),
    Measure(
        "update_ratio",
        "‖Δθ‖/‖θ‖",
        "1",
        "update ratio: L2 norm of the step the optimizer really took, over that of the parameters before it",
        title="Update ratio",
        source="updates",
    ),
    Measure(
        "activation_mean",
        "mean a",
        "1",
        "mean of the layer's output, after its activation function",
        title="Mean activation",
        source="outputs",
    ),
    Measure(
        "activation_std",
        "std a",
        "1",
        "standard deviation of the layer's output, after its activation function",
        title="Std of activations",
        source="outputs",
    ),
    Measure(
        "saturated",
        "saturated",
        "share of the outputs",
        "saturated fraction: share of the outputs of a sigmoid, tanh or their like where its derivative is under "
        "5 % of its maximum",
        title="Saturated fraction",
        source="outputs",
    ),
    Measure(
        "dead",
        "dead",
        "share of the units",
        "dead fraction: share of the units after a ReLU or its like that are zero on the whole batch",
        title="Dead fraction",
        source="outputs",
    ),
)
