"""Other tools that look at every gradient, as `overhead.py` runs them beside the recorder."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Tool:
    """What watches a training; does nothing by itself.

    Attributes:
        name: how the table calls it.
        look: to be called between backward and step, if at all.
        log: to be called with `loss=` after the step, if at all.
    """

    name = "bare"
    look: Callable[[], object] | None = None
    log: Callable[..., object] | None = None

    def go(self) -> None:
        """Its block begins."""

    def stop(self) -> None:
        """It ends; not a trace is left that could slow the others."""

    def unfinished(self) -> bool:
        """True if its block has to last one more step."""
        return False

    def close(self) -> None:
        """The measurement is over."""


class WandbWatch(Tool):
    """`wandb.watch`, offline, histograms of gradients; a step is committed only if it has some, which is generous."""

    def __init__(self, model: nn.Module, every: int | None, folder: Path) -> None:
        import wandb

        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
        self._run = wandb.init(mode="offline", dir=str(folder), project="overhead", settings=settings)
        if every is None:
            self._run.watch(model, log="gradients")
            every = 1000  # its default
        else:
            self._run.watch(model, log="gradients", log_freq=every)
        self.name = f"wandb.watch, {nth(every)}"
        self._every, self._step = every, 0
        self._hooks = [(parameter, parameter._backward_hooks) for parameter in model.parameters()]
        self.log = self._commit
        self.stop()

    def go(self) -> None:
        for parameter, hooks in self._hooks:
            parameter._backward_hooks = hooks

    def stop(self) -> None:
        for parameter, _ in self._hooks:
            parameter._backward_hooks = None

    def _commit(self, loss: torch.Tensor) -> None:
        self._step += 1
        if self._step % self._every == 0:
            self._run.log({"loss": loss.item()})

    def close(self) -> None:
        self._run.finish()


class TensorBoardHistograms(Tool):
    """`SummaryWriter.add_histogram` of each gradient."""

    def __init__(self, model: nn.Module, every: int, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.name = f"TensorBoard histograms, {nth(every)}"
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))
        self._model, self._every, self._step = model, every, 0
        self.look = self._add

    def _add(self) -> None:
        self._step += 1
        if self._step % self._every == 0:
            for name, parameter in self._model.named_parameters():
                self._writer.add_histogram(name, parameter.grad, self._step)

    def close(self) -> None:
        self._writer.close()


class LightningNorms(Tool):
    """Lightning's `grad_norm` at every step; what its logger would do with the norms is not counted."""

    name = "Lightning grad_norm, each step"

    def __init__(self, model: nn.Module) -> None:
        from lightning.pytorch.utilities import grad_norm

        self.look = lambda: grad_norm(model, 2)


def nth(every: int) -> str:
    return "each step" if every == 1 else f"each {every}th step"


def tools(mode: str, model: nn.Module, folder: Path) -> Iterator[Tool]:
    """The tools that compare with a mode of the recorder, those of them that are installed."""
    folder.mkdir()
    makers: list[tuple[str, Callable[[], Tool]]] = [
        ("wandb", lambda: WandbWatch(model, 1 if mode == "every" else None, folder)),
        ("tensorboard", lambda: TensorBoardHistograms(model, 1 if mode == "every" else 100, folder)),
    ]
    if mode == "every":
        makers.append(("lightning", lambda: LightningNorms(model)))
    for package, make in makers:
        if is_installed(package):
            yield make()


def is_installed(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def missing() -> list[str]:
    """The packages that are not installed."""
    return [package for package in ("wandb", "tensorboard", "lightning") if not is_installed(package)]
