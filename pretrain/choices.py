"""The values that settings with a choice take. No torch: `--help` and wrong flags should not wait for it."""

from __future__ import annotations

from typing import Any, Literal, get_args

VisibleUnits = Literal["bernoulli", "gaussian"]
HiddenUnits = Literal["bernoulli", "rectified"]
Method = Literal["cd", "pcd", "fast-pcd", "tempering", "noise"]
Kind = Literal["plain", "denoising", "contractive", "sparse"]
Activation = Literal["sigmoid", "tanh", "relu", "linear"]
Cost = Literal["cross-entropy", "squared"]
Noise = Literal["masking", "gaussian", "salt-and-pepper"]
Propagate = Literal["probabilities", "samples"]
Optimizer = Literal["adam", "sgd", "lbfgs", "cg"]
Loss = Literal["cross-entropy", "squared"]
Precision = Literal["float32", "bfloat16"]
Task = Literal["classify", "autoencode"]


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise `ValueError` unless `value` is one of the values of the `Literal` type `choices`."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, not {value!r}")
