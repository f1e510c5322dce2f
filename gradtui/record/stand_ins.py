"""Tensors of ours that stand in for those which a training replaces at each step, and are given their values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from gradtui.record.layers import LayerSpec


def make_stand_ins(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Parameters with the values of these tensors."""
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def copy_values(tensors: Iterable[Tensor], into: list[Tensor]) -> None:
    """Give what stands in the values of the tensors that are the parameters now."""
    with torch.no_grad():
        torch._foreach_copy_(into, [tensor.detach() for tensor in tensors])


def with_stand_ins(specs: Iterable[LayerSpec], tensors: Iterable[Tensor], into: Iterable[Tensor]) -> list[LayerSpec]:
    """The layers of these tensors, with what stands in for each in its place."""
    own = {id(tensor): stand_in for tensor, stand_in in zip(tensors, into, strict=True)}
    return [
        replace(spec, parameters={name: own.get(id(p), p) for name, p in spec.parameters.items()}) for spec in specs
    ]
