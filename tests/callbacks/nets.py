"""A small net, its data, and looking at the runs that a test has made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradtui import RunReader, open_run, runs

EXAMPLES, FEATURES, CLASSES = 24, 6, 3


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 5), nn.Sigmoid(), nn.Linear(5, CLASSES))


def images_and_labels(count: int = EXAMPLES) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(count, FEATURES, generator=generator),
        torch.randint(CLASSES, (count,), generator=generator),
    )


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def runs_of(folder: Path) -> list[RunReader]:
    """The runs in a folder, oldest first."""
    return [open_run(run.path) for run in sorted(runs(folder), key=lambda run: run.started)]


def only_run(folder: Path) -> RunReader:
    (run,) = runs_of(folder)
    return run


def ending(run: RunReader) -> tuple[str, str]:
    status = run.status()
    return status.state, status.detail


def metrics_of(run: RunReader) -> dict[str, list[float]]:
    return {name: one.value.tolist() for name, one in run.scalars()[0].items()}


def ask_to_stop(recorder: Any) -> None:
    """As if a viewer had: without waiting for the heartbeat that brings it."""
    recorder._recording._writer.commands.append("stop")
