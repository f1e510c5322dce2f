"""Devices and their random number generators."""

from __future__ import annotations

import os

import torch

from pretrain.errors import DataError, short


def device_of(name: str) -> torch.device:
    """The torch device of this name, or with "auto" the first of cuda, mps, xpu and cpu that is there.

    Under `torchrun` each process has a GPU of its own. Raises `DataError` for a device that is not available.
    """
    if name == "auto":
        name = next(kind for kind, is_there in _usual().items() if is_there)
    device = _named(name)
    if device.type == "cuda" and torch.cuda.is_available():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and device.index is not None:
            raise DataError(f"under torchrun each process has a GPU of its own: give cuda, not {name}")
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    check_device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def check_device(device: str | torch.device) -> None:
    """Raise `DataError` for a device on which nothing can be trained here."""
    name, device = str(device), _named(device)
    if device.type == "meta":
        raise DataError(f"a training needs numbers, and the device meta holds none: use {_others()}")
    try:
        torch.zeros(1, device=device).add_(1).item()
        torch.Generator(device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        # torch says at length what it was built for
        raise DataError(f"{name} is not available: use {_others()}") from error


def _named(name: str | torch.device) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise DataError(f"torch has no device {short(name)}: use {_others()}") from error


def _usual() -> dict[str, bool]:
    xpu = getattr(torch, "xpu", None)
    return {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "xpu": xpu is not None and xpu.is_available(),
        "cpu": True,
    }


def _others() -> str:
    """Those that are there, in words."""
    there = [kind for kind, is_there in _usual().items() if is_there]
    count = torch.cuda.device_count() if "cuda" in there else 0
    return " or ".join(f"cuda:0 to cuda:{count - 1}" if kind == "cuda" and count > 1 else kind for kind in there)


def generator_on(device: torch.device, seed: int) -> torch.Generator:
    """A generator of random numbers on the device, seeded."""
    return torch.Generator(device).manual_seed(seed)
