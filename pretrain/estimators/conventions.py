"""What scikit-learn's conventions require of every estimator: types, randomness, ranges of parameters."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

# not public, but nothing public gives the messages that scikit-learn's own estimators give
from sklearn.utils._param_validation import Interval

Array = npt.NDArray[Any]
RandomState = int | np.random.RandomState | None

FLOATS = (np.float64, np.float32)  # kept; all else is converted to the first

FROM_0, FROM_1 = (Interval(Integral, least, None, closed="left") for least in (0, 1))
POSITIVE = Interval(Real, 0, None, closed="neither")


def generator_of(rng: np.random.RandomState, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator of its own, on `device`, seeded by a draw from `rng`."""
    return torch.Generator(device).manual_seed(int(rng.randint(np.iinfo(np.int32).max)))
