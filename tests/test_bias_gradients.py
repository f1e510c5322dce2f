"""A bias that a normalisation or a softmax cancels has a gradient of rounding: nothing is said by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradtui import watch
from gradtui.bias_gradients import cancelled
from gradtui.lab.results import learning_speeds, speed_ratio
from gradtui.report import report
from gradtui.runfile import open_run
from gradtui.view import default_measure, describe, facts, newest_known


class Attention(nn.Module):
    """One block with a linear layer each for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).tanh()
        scores = (self.query(x) @ self.key(x).transpose(1, 2) / 4).softmax(-1)
        return self.head((scores @ self.value(x)).mean(1))  # type: ignore[no-any-return]


def convolutions() -> nn.Module:
    body = [layer for i in range(3) for layer in (nn.Conv2d(8 if i else 1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8 * 36, 4))


# where most biases are cancelled, 16 bits do not tell them from the others
@pytest.mark.parametrize(
    ("make", "shape", "gone", "dtype"),
    [
        (Attention, (64, 6, 8), ["key"], torch.float32),
        (Attention, (64, 6, 8), ["key"], torch.bfloat16),
        (convolutions, (32, 1, 12, 12), ["0", "3", "6"], torch.float32),
    ],
)
def test_no_headline_rests_on_a_gradient_that_is_0_by_mathematics(
    make: type[nn.Module], shape: tuple[int, ...], gone: list[str], dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer, folder=tmp_path, every=1) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
                loss = nn.functional.cross_entropy(model(torch.randn(shape)), torch.randint(4, (shape[0],)))
            loss.backward()
            optimizer.step()
    assert recorder.path is not None
    with open_run(recorder.path) as reader:
        layers, rows = [facts(layer) for layer in reader.layers()], reader.at(3, 3)
        newest = newest_known(rows.measures)
        names = [measure.name for measure in reader.measures]
        speed = names.index("bias_grad_norm")
        mask = cancelled(newest[:, speed], newest[:, names.index("weight_grad_norm")])
        assert [layer.name for layer, is_gone in zip(layers, mask, strict=True) if is_gone] == gone
        said = describe(layers, newest, reader.measures, speed)
        assert "cancels the bias" in said[0] and all(name in said[0] for name in gone)
        assert not any("000" in line for line in said[1:])
        assert names[default_measure(reader.measures, newest)] == "grad_norm"
        ratio = speed_ratio(learning_speeds(reader, rows))
        assert ratio is not None and ratio < 1000
    found = json.loads(report(recorder.path, as_json=True, terminal=False))["layers"]
    assert [layer["name"] for layer in found if layer["bias_cancelled"]] == gone
    text = report(recorder.path, as_json=False, terminal=False)
    assert text.count("\t≈0\t") == len(gone) and "≈0: a normalisation or a softmax cancels the bias" in text


@pytest.mark.parametrize(
    ("biases", "weights", "mask"),
    [
        ([1e-9, 0.1, 0.2], [1.0, 1.0, 1.0], [True, False, False]),
        ([0.0, 0.1], [1.0, 1.0], [True, False]),
        ([3e-9, 1e-5, 0.3], [3e-8, 1e-4, 3.0], [False, False, False]),  # a vanishing gradient is one
        ([0.0, 0.1], [0.0, 1.0], [False, False]),  # as a dead layer's is
        ([np.nan, 0.1], [1.0, 1.0], [False, False]),
        ([1e-8, 2e-8], [1.0, 1.0], [True, True]),
    ],
)
def test_which_biases_are_cancelled(biases: list[float], weights: list[float], mask: list[bool]) -> None:
    assert cancelled(np.array(biases, np.float32), np.array(weights, np.float32)).tolist() == mask
