"""Callbacks that record a framework's training: one module a framework, loaded when it is first named.

| module         | what it holds                                              | installed by            |
| -------------- | ---------------------------------------------------------- | ----------------------- |
| `lightning`    | `GradtuiCallback`, for `lightning` and `pytorch_lightning` | `gradtui[lightning]`    |
| `transformers` | `GradtuiCallback`, for `transformers.Trainer`              | `gradtui[transformers]` |
| `accelerate`   | `GradtuiTracker`, for `Accelerator(log_with=…)`            | `gradtui[accelerate]`   |
| `skorch`       | `GradtuiCallback`, for the nets of skorch                  | `gradtui[skorch]`       |

All take `every`, `budget`, `update_every`, `name` and `folder` as `gradtui.watch` does. Importing this module imports
neither torch nor a framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["accelerate", "lightning", "skorch", "transformers"]


def __getattr__(name: str) -> Any:
    """Load a framework's module when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'gradtui.callbacks' has no attribute {name!r}")
    return import_module(f"gradtui.callbacks.{name}")
