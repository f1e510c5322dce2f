"""Conjugate gradients as a torch optimizer; the method is SciPy's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Vector = npt.NDArray[np.float64]


class ConjugateGradients(torch.optim.Optimizer):
    """A few line searches of nonlinear conjugate gradients a step (SciPy's Polak–Ribière).

    For large batches: Hinton & Salakhutdinov 2006 use three line searches on each batch of 1,000 images. Nothing is
    carried from one step to the next.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], line_searches: int = 3) -> None:
        super().__init__(parameters, {"line_searches": line_searches})
        if len(self.param_groups) > 1:
            raise ValueError("conjugate gradients search along one line for all parameters: use one parameter group")

    def step(self, closure: Callable[[], Any] | None = None) -> float:  # type: ignore[override]
        """Minimises what `closure` returns, which also fills `.grad`; returns the cost where the search began."""
        # imported here: it takes a third of a second, and only this optimizer needs it
        from scipy.optimize import minimize

        if closure is None:
            raise ValueError("conjugate gradients need a closure that computes the cost")
        group = self.param_groups[0]
        parameters = [parameter for parameter in group["params"] if parameter.requires_grad]
        costs: list[float] = []

        def cost_and_gradient(point: Vector) -> tuple[float, Vector]:
            _put(point, parameters)
            with torch.enable_grad():
                costs.append(float(closure()))  # waits for the device
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            return costs[-1], _flat(grads)

        start = _flat([parameter.detach() for parameter in parameters])
        options = {"maxiter": group["line_searches"]}
        found = minimize(cost_and_gradient, start, jac=True, method="CG", options=options)
        # if the cost is not finite, keep the start
        better = np.isfinite(found.x).all() and found.fun <= costs[0]
        _put(cast(Vector, found.x) if better else start, parameters)
        return costs[0]


def _flat(tensors: Iterable[Tensor]) -> Vector:
    vector: Vector = torch.cat([tensor.reshape(-1) for tensor in tensors]).double().cpu().numpy()
    return vector


def _put(point: Vector, parameters: list[nn.Parameter]) -> None:
    values = torch.from_numpy(point).to(parameters[0].device, parameters[0].dtype)
    with torch.no_grad():
        start = 0
        for parameter in parameters:
            parameter.copy_(values[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()
