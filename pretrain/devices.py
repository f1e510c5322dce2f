"""Devices and their random number generators."""

from __future__ import annotations

import os

import torch

from pretrain.errors import DataError


def device_of(name: str) -> torch.device:
    """The device called auto, cpu, cuda or mps; under `torchrun` each process has a GPU of its own.

    Raises `DataError` for one that is not available.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_there in there.items() if is_there)
    if not there.get(name, False):
        raise DataError(f"{name} is not available: use {' or '.join(kind for kind, works in there.items() if works)}")
    if name == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    return torch.device(name)


def generator_on(device: torch.device, seed: int) -> torch.Generator:
    """A generator of random numbers on the device, seeded."""
    return torch.Generator(device).manual_seed(seed)
