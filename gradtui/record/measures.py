"""Where the measures stand in a row of the run file."""

from __future__ import annotations

from gradtui.measures import MEASURES

__all__ = ["MEASURES"]

(
    BIAS_GRAD_NORM,
    WEIGHT_GRAD_NORM,
    GRAD_NORM,
    PARAM_NORM,
    UPDATE_RATIO,
    ACTIVATION_MEAN,
    ACTIVATION_STD,
    SATURATED,
    DEAD,
) = range(len(MEASURES))
