"""Baseline for our two-ring benchmark. All knobs are in TrainConfig, all logic is in Trainer."""

from __future__ import annotations

import os
import random
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


@dataclass
class TrainConfig:
    seed: int = 1234
    n_train: int = 1024
    n_valid: int = 256
    batch_size: int = 64
    hidden: int = 32
    dropout: float = 0.1
    lr: float = 3e-3
    weight_decay: float = 1e-4
    epochs: int = 5
    num_workers: int = 2


def set_seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class RingDataset(Dataset):
    """Points on one of two noisy rings around the origin."""

    def __init__(self, n: int, seed: int):
        rng = np.random.default_rng(seed)
        self.y = rng.integers(0, 2, n)
        radius = 1.0 + self.y + 0.15 * rng.standard_normal(n)
        angle = rng.uniform(0, 2 * np.pi, n)
        self.x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, idx: int) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.x[idx]), torch.tensor(float(self.y[idx]))


class RingNet(nn.Module):
    def __init__(self, hidden: int, dropout: float):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(2, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
        )
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x)).squeeze(-1)


class AverageMeter:
    def __init__(self) -> None:
        self.sum, self.count = 0.0, 0

    def update(self, value: float, n: int = 1) -> None:
        self.sum += value * n
        self.count += n

    @property
    def avg(self) -> float:
        return self.sum / max(self.count, 1)


class Trainer:
    def __init__(self, cfg: TrainConfig):
        self.cfg = cfg
        set_seed(cfg.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = RingNet(cfg.hidden, cfg.dropout).to(self.device)
        self.loss_fn = nn.BCEWithLogitsLoss()
        self.train_loader = DataLoader(
            RingDataset(cfg.n_train, seed=0),
            batch_size=cfg.batch_size,
            shuffle=True,
            num_workers=cfg.num_workers,
            persistent_workers=cfg.num_workers > 0,
        )
        self.valid_loader = DataLoader(RingDataset(cfg.n_valid, seed=1), batch_size=cfg.batch_size)
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.opt, max_lr=10 * cfg.lr, total_steps=cfg.epochs * len(self.train_loader)
        )
        self.global_step = 0

    def fit(self) -> None:
        for epoch in range(1, self.cfg.epochs + 1):
            train_loss = self._train_one_epoch()
            valid_loss, valid_acc = self.evaluate()
            print(
                f"epoch {epoch}/{self.cfg.epochs} | train_loss {train_loss:.4f} "
                f"| valid_loss {valid_loss:.4f} | valid_acc {valid_acc:.3f} "
                f"| lr {self.scheduler.get_last_lr()[0]:.2e}"
            )

    def _train_one_epoch(self) -> float:
        self.model.train()
        meter = AverageMeter()
        for x, y in self.train_loader:
            x, y = x.to(self.device), y.to(self.device)
            loss = self.loss_fn(self.model(x), y)
            self.opt.zero_grad(set_to_none=True)
            loss.backward()
            self.opt.step()
            self.scheduler.step()
            self.global_step += 1
            meter.update(loss.item(), len(x))
        return meter.avg

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        self.model.eval()
        losses, accs = AverageMeter(), AverageMeter()
        for x, y in self.valid_loader:
            x, y = x.to(self.device), y.to(self.device)
            logits = self.model(x)
            losses.update(self.loss_fn(logits, y).item(), len(x))
            accs.update(((logits > 0).float() == y).float().mean().item(), len(x))
        return losses.avg, accs.avg

    def save(self, path: str) -> None:
        torch.save({k: v.cpu() for k, v in self.model.state_dict().items()}, path)


def main() -> None:
    cfg = TrainConfig()
    print(asdict(cfg))
    trainer = Trainer(cfg)
    trainer.fit()
    if save_to := os.environ.get("SAVE_TO"):
        trainer.save(save_to)


if __name__ == "__main__":
    main()
