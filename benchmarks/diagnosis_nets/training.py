"""What every net of the benchmark has in common: a training that its seed makes, data, and parts of nets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

T = TypeVar("T")
Losses = np.ndarray


class Draw:
    """What a seed decides."""

    def __init__(self, *seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def one(self, choices: Sequence[T]) -> T:
        return choices[int(self._rng.integers(len(choices)))]

    def integer(self, low: int, high: int) -> int:
        """Both ends are possible."""
        return int(self._rng.integers(low, high + 1))

    def between(self, low: float, high: float) -> float:
        """Evenly on a logarithmic scale."""
        return float(math.exp(self._rng.uniform(math.log(low), math.log(high))))

    def seed(self) -> int:
        return int(self._rng.integers(2**31))


@dataclass
class Training:
    """One training.

    Attributes:
        loss: the loss of a step, counted from 1.
        is_fair: given the losses, whether the net is what it is said to be, by evidence that no recorder has a part in.
        clip: the largest gradient norm.
        fault: of a NaN that was put there by hand: the layer that ran last before it (None: the input) and the step.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[int], Tensor]
    steps: int
    is_fair: Callable[[Losses], bool]
    scheduler: Any = None
    clip: float | None = None
    fault: tuple[str | None, int] | None = None
    watched: dict[str, nn.Module] | None = None  # if there are several models
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)

    def run(self, look: Callable[[int, Tensor], None] = lambda step, loss: None) -> Losses:
        """Train; `look` is called after each backward, and after each step with its number negated."""
        losses = []
        for step in range(1, self.steps + 1):
            loss = self.loss(step)
            self.optimizer.zero_grad()
            loss.backward()
            look(step, loss)
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            look(-step, loss)
            if self.scheduler is not None:
                self.scheduler.step()
            losses.append(loss.item())
        return np.array(losses)


@lru_cache
def digits() -> tuple[Tensor, Tensor]:
    """Inputs [1797, 64] in 0 … 1, and classes."""
    bunch = load_digits()
    return torch.tensor(bunch.data, dtype=torch.float32) / 16, torch.tensor(bunch.target)


class Batches:
    """Random batches of a data set, the same for the same seed."""

    def __init__(self, x: Tensor, y: Tensor, size: int, seed: int) -> None:
        self.x, self.y, self.size = x, y, size
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(self.x), (self.size,), generator=self._generator)
        return self.x[chosen], self.y[chosen]


def classify(model: nn.Module, batches: Batches) -> Callable[[int], Tensor]:
    """The loss of a classifier."""

    def loss(step: int) -> Tensor:
        x, y = batches()
        return nn.functional.cross_entropy(model(x), y)

    return loss


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        share = float((model(x).argmax(1) == y).float().mean())
    model.train()
    return share


def end(losses: Losses) -> float:
    """The mean loss of the last twentieth."""
    return float(losses[-max(1, len(losses) // 20) :].mean())


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "leaky": nn.LeakyReLU, "gelu": nn.GELU, "elu": nn.ELU,
}  # fmt: skip


class Functional(nn.Module):
    """An MLP whose activation function is called as a function."""

    def __init__(self, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])
        names = {"leaky": "leaky_relu"}
        self.activation = getattr(nn.functional, names.get(activation, activation))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


def mlp(sizes: Sequence[int], activation: str, *, functional: bool = False, norm: bool = False) -> nn.Module:
    if functional:
        return Functional(sizes, activation)
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes[:-1]):
        parts += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if norm else []), ACTIVATIONS[activation]()]
    return nn.Sequential(*parts, nn.Linear(sizes[-2], sizes[-1]))


class ConvNet(nn.Module):
    """Convolutions on digits of 8 × 8, pooled once, and a linear layer."""

    def __init__(self, channels: Sequence[int], activation: str, classes: int = 10) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(a, b, 3, padding=1) for a, b in zip([1, *channels[:-1]], channels, strict=True)]
        )
        self.activation = ACTIVATIONS[activation]()
        self.head = nn.Linear(channels[-1] * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 1, 8, 8)
        for i, convolution in enumerate(self.convolutions):
            x = self.activation(convolution(x))
            if i == 0:
                x = nn.functional.max_pool2d(x, 2)
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """A recurrent net that reads digits row by row."""

    def __init__(self, kind: str, width: int, layers: int = 1) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(8, width, layers, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.rnn(x.view(-1, 8, 8))
        return self.head(states[:, -1])  # type: ignore[no-any-return]


class Residual(nn.Module):
    """An MLP with shortcuts."""

    def __init__(self, width: int, depth: int, activation: str, *, norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.blocks = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) if norm else nn.Identity() for _ in range(depth)])
        self.activation = ACTIVATIONS[activation]()
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + self.activation(block(norm(x))) / math.sqrt(len(self.blocks))
        return self.head(x)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """One block of a transformer, written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Reads symbols, and says what the next one is; or reads digits row by row."""

    def __init__(self, symbols: int, width: int, blocks: int, length: int, classes: int | None = None) -> None:
        super().__init__()
        self.embed: nn.Module = nn.Embedding(symbols, width) if classes is None else nn.Linear(symbols, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList([Attention(width, 2) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes or symbols)
        self.reads_symbols = classes is None

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.places
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x if self.reads_symbols else x.mean(1))  # type: ignore[no-any-return]


def initialise(model: nn.Module, way: str | float) -> nn.Module:
    """`he`, `xavier`, or a number: normal with this gain over √(inputs). Biases are 0 then."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            inputs = module.weight[0].numel()
            if way == "he":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif way == "xavier":
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.normal_(module.weight, std=float(way) / math.sqrt(inputs))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def optimizer_for(name: str, parameters: Any, rate: float, **more: Any) -> torch.optim.Optimizer:
    if name == "momentum":
        return torch.optim.SGD(parameters, lr=rate, momentum=0.9, **more)
    kinds: dict[str, Any] = {
        "sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop,
    }  # fmt: skip
    return kinds[name](parameters, lr=rate, **more)  # type: ignore[no-any-return]
