"""A small model that returns its loss, as those of transformers do, and its data."""

from __future__ import annotations

import torch
from torch import nn

from tests.callbacks.nets import images_and_labels, small_net


class Classifier(nn.Module):
    def __init__(self, fails_at: int | None = None, error: type[BaseException] = ValueError) -> None:
        super().__init__()
        self.net = small_net()
        self.fails_at, self.error, self.calls = fails_at, error, 0

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.training:
            self.calls += 1
            if self.calls == self.fails_at:
                raise self.error("a bad batch")
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def examples() -> list[dict[str, torch.Tensor]]:
    return [{"x": image, "labels": label} for image, label in zip(*images_and_labels(), strict=True)]
