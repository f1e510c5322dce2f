"""Bias gradients that say nothing of how fast a layer learns: they are 0 by mathematics, but for rounding.

A normalisation takes away what a bias before it adds, and the softmax of attention what a key's bias adds. What is
recorded of such a bias is the rounding of its format. It shows beside the gradient of the same layer's weight.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradtui.runfile.blocks import FloatArray

ROUNDING = 1e-6  # of the weight's gradient: what float32 leaves of a sum that is 0
FAR_BELOW = 0.01  # of the other layers' share of bias in weight: what bfloat16 and float16 leave

Mask = npt.NDArray[np.bool_]


def cancelled(biases: FloatArray, weights: FloatArray) -> Mask:
    """True for layers whose bias gradient is at rounding level: norms by biases and by weights, [layers] each."""
    bias, weight = biases.astype(np.float64), weights.astype(np.float64)
    known = np.isfinite(bias) & np.isfinite(weight) & (weight > 0)
    share = np.divide(bias, weight, out=np.full(len(bias), np.nan), where=known)
    typical = float(np.median(share[known & (share > ROUNDING)])) if (known & (share > ROUNDING)).any() else 0.0
    mask: Mask = known & (share <= max(ROUNDING, FAR_BELOW * typical))
    return mask
