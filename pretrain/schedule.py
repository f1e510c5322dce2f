"""Numbers that change from epoch to epoch, and the optimizers that take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch.optim import Optimizer

from pretrain.errors import DataError

Schedule = float | Callable[[int], float]
"""One number, or the number for each epoch, counted from 0."""

T = TypeVar("T")


def at(schedule: Schedule | None, epoch: int) -> float | None:
    """The value at this epoch; None, which leaves it to the optimizer, stays None."""
    return schedule(epoch) if callable(schedule) else schedule


def named(schedule: Schedule | None) -> float | str | None:
    """The schedule in the settings of a checkpoint: functions by name."""
    return getattr(schedule, "__name__", "schedule") if callable(schedule) else schedule


def hinton_momentum(epoch: int) -> float:
    """0.5 in the first five epochs, then 0.9 (Hinton 2010, section 9.1; the change after
    five epochs is that of the programs to Hinton & Salakhutdinov 2006)."""
    return 0.5 if epoch < 5 else 0.9


def linear(start: float, epochs: int) -> Callable[[int], float]:
    """Decay linearly from `start` to almost 0, as persistent chains need (Tieleman 2008, section 4)."""

    def rate(epoch: int) -> float:
        return start * max(1 - epoch / epochs, 1 / epochs)

    rate.__name__ = f"linear({start:g}, {epochs})"
    return rate


def set_rates(optimizer: Optimizer, learning_rate: float | None, momentum: float | None) -> None:
    """Set them in every group of parameters; None leaves the value unchanged.

    Raises `ValueError` for a momentum if the optimizer has none.
    """
    for group in optimizer.param_groups:
        if learning_rate is not None:
            group["lr"] = learning_rate
        if momentum is not None:
            if "momentum" not in group:
                raise ValueError(f"{type(optimizer).__name__} takes no momentum: leave it out, or use another")
            group["momentum"] = momentum


def for_each(value: T | Sequence[T], count: int, name: str) -> list[T]:
    """One value per layer: the same for all, or one each; raises `DataError` for another number of values."""
    if not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise DataError(f"there are {count} layers, but {len(value)} values of {name}")
    return list(value)


def load_optimizer(optimizer: Optimizer, kind: str, state: dict[str, Any]) -> None:
    """Load the state of an optimizer of the same kind; raises `ValueError` for another kind."""
    if kind != type(optimizer).__name__:
        raise ValueError(f"it was trained with {kind}, not {type(optimizer).__name__}")
    optimizer.load_state_dict(state)
