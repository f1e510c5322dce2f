"""Tensors of which this process has a part only (`DTensor`: FSDP2, tensor parallel)."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """True if this process has a shard of the tensor only; looking at its values would wait for the others."""
    module: Any = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_shard(tensor: Tensor) -> Tensor:
    """What this process has of a tensor."""
    if not is_sharded(tensor):
        return tensor
    part: Any = tensor.detach()
    local: Tensor = part.to_local()
    return local
