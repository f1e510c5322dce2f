"""What a layer maps, as all screens show it: right for each kind of layer, and never a guess."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from gradtui import watch
from gradtui.record.layers import LayerTable, specs_of
from gradtui.runfile import open_run
from gradtui.view import facts

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    OLD_NORMED = weight_norm(nn.Linear(7, 5))  # type: ignore[no-untyped-call]


class Reversed(nn.Module):
    """A linear layer whose weight is (in, out), as `Conv1D` of transformers; `nf` and `nx` are its own names."""

    def __init__(self) -> None:
        super().__init__()
        self.nf, self.nx = 30, 20
        self.weight, self.bias = nn.Parameter(torch.zeros(20, 30)), nn.Parameter(torch.zeros(30))


class LowRank(nn.Linear):
    """A frozen layer with a trained product of two matrices beside it."""

    def __init__(self) -> None:
        super().__init__(20, 30)
        self.lora_A, self.lora_B = nn.Parameter(torch.zeros(4, 20)), nn.Parameter(torch.zeros(30, 4))


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (nn.Linear(64, 30), "64→30"),
        (nn.Conv2d(3, 16, 5), "3→16 5×5"),
        (nn.Conv2d(32, 32, 3, groups=32), "32→32 3×3"),
        (nn.ConvTranspose1d(8, 6, 4, groups=2), "8→6 4"),
        (nn.ConvTranspose2d(8, 3, 4), "8→3 4×4"),
        (nn.ConvTranspose3d(8, 3, 2), "8→3 2×2×2"),
        (Reversed(), "20→30"),
        (LowRank(), "20→30"),
        (OLD_NORMED, "7→5"),
        (parametrizations.weight_norm(nn.Conv1d(1, 32, 3)), "1→32 3"),
        (parametrizations.spectral_norm(nn.Linear(7, 5)), "7→5"),
        (spectral_norm(nn.Linear(7, 5)), "7→5"),  # type: ignore[no-untyped-call]
        (parametrizations.orthogonal(nn.Linear(7, 5)), "7→5"),
        (nn.LSTMCell(1, 51), "1→51"),
        (nn.GRUCell(3, 5), "3→5"),
        (nn.RNNCell(3, 5), "3→5"),
        (nn.LSTM(10, 20, 2, bidirectional=True), "10→40 ×2"),
        (nn.LSTM(10, 20, proj_size=7), "10→7"),
        (nn.GRU(10, 20, 3), "10→20 ×3"),
        (nn.MultiheadAttention(64, 8, kdim=32, vdim=16), "64→64 8 heads"),
        (nn.Embedding(1000, 32), "1000→32"),
        (nn.EmbeddingBag(1000, 32), "1000→32"),
        (nn.Bilinear(3, 4, 5), "3×4→5"),
        (nn.PReLU(8), "8"),
        (nn.BatchNorm2d(9), "9"),
        (nn.LayerNorm((4, 5)), "4×5"),
        (nn.GroupNorm(2, 8), "8"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else value,
)
def test_each_kind_of_layer_says_what_it_maps(module: nn.Module, size: str) -> None:
    table = LayerTable()
    table.add(specs_of(module, "", {}))
    assert facts(table.layers[0]).shape == size


class GraphAttention(nn.Module):
    """As it is written in tutorials: the features, and two vectors in one, in no known order."""

    def __init__(self) -> None:
        super().__init__()
        self.W, self.a = nn.Parameter(torch.randn(512, 60)), nn.Parameter(torch.randn(120, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = x @ self.W
        scores = (h @ self.a[:60] + (h @ self.a[60:]).T).softmax(1)
        return scores @ h


class Tokens(nn.Module):
    """Owns a vector beside a layer: what goes in and comes out is not of the vector alone."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.scale = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.ones(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x + self.start) * self.scale.sum())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "batch", "sizes"),
    [
        (GraphAttention(), torch.randn(4, 512), ["512→60"]),
        (Tokens(), torch.randn(2, 5, 8), ["10 parameters", "8→3"]),
    ],
)
def test_layers_of_own_kinds_show_what_was_seen_or_how_many_parameters(
    model: nn.Module, batch: Tensor, sizes: list[str], tmp_path: Path
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, folder=tmp_path) as recorder:
        model(batch).sum().backward()
        optimizer.step()
    assert recorder.path is not None
    with open_run(recorder.path) as reader:
        assert [facts(layer).shape for layer in reader.layers()] == sizes
