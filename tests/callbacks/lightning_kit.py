"""A small module, its data and a Trainer: imported by a test that runs, for Lightning takes seconds to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gradtui.callbacks.lightning import GradtuiCallback
from tests.callbacks.nets import images_and_labels, small_net

__all__ = ["Classifier", "GradtuiCallback", "SIGTERMException", "fit", "loader", "pl", "trainer_with"]


class Classifier(pl.LightningModule):  # type: ignore[misc]
    def __init__(self, fails_at: int | None = None, error: type[BaseException] = ValueError) -> None:
        super().__init__()
        self.net = small_net()
        self.fails_at, self.error = fails_at, error
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.fails_at is not None and self.global_step == self.fails_at:
            raise self.error("a bad batch")
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.item())
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*images_and_labels()), batch_size=8)


def trainer_with(callback: Any, folder: Path, **more: Any) -> Any:
    settings: dict[str, Any] = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return pl.Trainer(callbacks=[callback] if callback else [], **{**settings, **more})


def fit(model: Any, callback: Any, folder: Path, **more: Any) -> Any:
    trainer = trainer_with(callback, folder, **more)
    trainer.fit(model, loader(), loader())
    return trainer
