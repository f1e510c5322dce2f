"""Nets that meet a NaN or an infinity, and an oracle that says in which step and after which layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diagnosis_nets.training import (
    Batches,
    ConvNet,
    Draw,
    Losses,
    Recurrent,
    Residual,
    Training,
    Transformer,
    classify,
    digits,
    initialise,
    mlp,
    optimizer_for,
)  # fmt: skip

cross_entropy = nn.functional.cross_entropy


def _breaks(losses: Losses) -> bool:
    return not math.isfinite(float(losses[-1])) and math.isfinite(float(losses[0]))


class At(nn.Module):
    """A function without parameters, as a module or called as it is, that is another from a step on."""

    def __init__(self, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor], step: int) -> None:
        super().__init__()
        self.before, self.after, self.step, self.calls = before, after, step, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.after(x) if self.calls >= self.step else self.before(x)


def overflow(draw: Draw) -> Training:
    """A regression whose rate is too large, with a net whose outputs have no bound."""
    torch.manual_seed(draw.seed())
    x = torch.randn(500, 6)
    y = 10 * (x[:, :1] * x[:, 1:2])
    model = mlp(
        [6, *[32] * draw.integer(1, 5), 1], draw.one(["relu", "leaky", "elu"]), functional=draw.one([True, False])
    )
    batches = Batches(x, y, 64, draw.seed())
    optimizer = optimizer_for(draw.one(["sgd", "momentum"]), model.parameters(), draw.between(0.3, 3))

    def loss(step: int) -> Tensor:
        inputs, targets = batches()
        return nn.functional.mse_loss(model(inputs), targets)

    return Training(model, optimizer, loss, 150, _breaks)


def overflow_in_a_residual_net(draw: Draw) -> Training:
    x, y = digits()
    model = draw.one([Residual(32, 6, "relu"), ConvNet([12, 12, 12], "leaky")])
    targets = nn.functional.one_hot(y, 10).float()
    batches = Batches(x, targets, 32, draw.seed())
    optimizer = optimizer_for(draw.one(["sgd", "momentum"]), model.parameters(), draw.between(5, 20))

    def loss(step: int) -> Tensor:
        inputs, wanted = batches()
        return (model(inputs) - wanted).pow(2).sum(1).mean()

    return Training(model, optimizer, loss, 150, _breaks)


def zero_by_zero(draw: Draw) -> Training:
    """A layer divides by a norm that is 0 from a step on."""
    x, y = digits()
    step, depth = draw.integer(20, 150), draw.integer(2, 5)
    sizes = [64, *[48] * depth, 10]
    model = mlp(sizes, draw.one(["relu", "tanh"]))
    gate = At(lambda h: h / h.norm(dim=1, keepdim=True), lambda h: 0 * h / (0 * h).norm(dim=1, keepdim=True), step)
    parts = list(model)
    after = 2 * draw.integer(0, depth - 1)
    model = nn.Sequential(*parts[: after + 1], gate, *parts[after + 1 :])
    optimizer = optimizer_for(draw.one(["adam", "sgd"]), model.parameters(), 3e-3)
    loss = classify(model, Batches(x, y, 64, draw.seed()))
    return Training(model, optimizer, loss, step + 30, _breaks, fault=(str(after), step))


def log_of_zero(draw: Draw) -> Training:
    """The cross-entropy written out, without an ε: it is infinite once a probability underflows."""
    x, y = digits()
    model = mlp([64, 64, 64, 10], draw.one(["relu", "gelu"]), functional=True)
    batches = Batches(x, y, 32, draw.seed())
    optimizer = optimizer_for("adam", model.parameters(), draw.between(0.1, 0.2))

    def loss(step: int) -> Tensor:
        inputs, targets = batches()
        probabilities = torch.softmax((1 + step / 5) * model(inputs), 1)
        return -torch.log(probabilities[torch.arange(len(targets)), targets]).mean()

    return Training(model, optimizer, loss, 200, _breaks)


def root_of_zero(draw: Draw) -> Training:
    """Pairs for a Euclidean distance; at a step one of them is a picture beside itself: the slope of √0 is infinite."""
    x, y = digits()
    step = draw.integer(20, 200)
    model = mlp([64, *[32] * draw.integer(1, 4), 8], draw.one(["relu", "tanh"]), functional=draw.one([True, False]))
    left, right = Batches(x[:900], y[:900], 48, draw.seed()), Batches(x[900:], y[900:], 48, draw.seed())
    optimizer = optimizer_for(draw.one(["momentum", "adamw"]), model.parameters(), 3e-3)

    def loss(number: int) -> Tensor:
        (a, one), (b, other) = left(), right()
        if number == step:
            b = torch.cat([a[:1], b[1:]])
        distance = (model(a) - model(b)).pow(2).sum(1).sqrt()
        same = (one == other).float()
        return (same * distance**2 + (1 - same) * (2 - distance).clamp(min=0) ** 2).mean()

    last = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)][-1]
    return Training(model, optimizer, loss, step + 30, _breaks, fault=(last, step))


def bad_data(draw: Draw) -> Training:
    x, y = digits()
    step = draw.integer(10, 200)
    model = draw.one([ConvNet([8, 8], "relu"), Recurrent("LSTM", 24), mlp([64, 32, 32, 10], "tanh", norm=True)])
    batches = Batches(x, y, 32, draw.seed())
    bad = draw.one([math.nan, math.inf])

    def loss(number: int) -> Tensor:
        inputs, targets = batches()
        if number == step:
            inputs = inputs.clone()
            inputs[3, 20] = bad
        return cross_entropy(model(inputs), targets)

    optimizer = optimizer_for(draw.one(["adam", "sgd", "rmsprop"]), model.parameters(), 2e-3)
    return Training(model, optimizer, loss, step + 20, _breaks, fault=(None, step))


def overflow_of_exp(draw: Draw) -> Training:
    """A softmax over hidden units that does not subtract the largest, as a function between two layers."""
    x, y = digits()
    step, depth = draw.integer(20, 120), draw.integer(1, 4)

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp([64, *[40] * depth, 24], "relu", functional=draw.one([True, False]))
            self.score, self.value, self.head = nn.Linear(24, 16), nn.Linear(24, 16), nn.Linear(16, 10)
            self.calls = 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            hidden = torch.relu(self.body(inputs))
            value = self.value(hidden)
            raised = torch.exp(self.score(hidden).abs() * (1e4 if self.calls >= step else 1.0))
            return self.head(raised / raised.sum(1, keepdim=True) * value)  # type: ignore[no-any-return]

    model = Gated()
    optimizer = optimizer_for(draw.one(["adam", "momentum"]), model.parameters(), 2e-3)
    loss = classify(model, Batches(x, y, 64, draw.seed()))
    return Training(model, optimizer, loss, step + 30, _breaks, fault=("score", step))


class RootMeanSquare(nn.Module):
    """A norm without an ε; a step empties the first row, whose root then has an infinite slope."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step, self.calls = step, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.step:
            x = torch.cat([0 * x[:1], x[1:]])
        return x / (1 + x.pow(2).mean(-1, keepdim=True).sqrt())  # type: ignore[no-any-return]


def clipped(draw: Draw) -> Training:
    """A NaN begins in the backward pass of the middle; clipping by the norm then spreads it to every layer."""
    x, y = digits()
    step, depth = draw.integer(10, 200), draw.integer(2, 5)
    parts = list(initialise(mlp([64, *[40] * depth, 10], "relu"), "he"))
    after = 2 * draw.integer(0, depth - 1)
    model = nn.Sequential(*parts[: after + 1], RootMeanSquare(step), *parts[after + 1 :])
    optimizer = optimizer_for(draw.one(["sgd", "adam"]), model.parameters(), 2e-3)
    loss = classify(model, Batches(x, y, 32, draw.seed()))
    return Training(model, optimizer, loss, step + 20, _breaks, clip=1.0, fault=(str(after), step))


def clipped_transformer(draw: Draw) -> Training:
    x, y = digits()
    step = draw.integer(10, 120)
    model = Transformer(8, 32, 2, 8, classes=10)
    block = draw.integer(0, 1)
    rms = RootMeanSquare(step)
    model.blocks[block].register_forward_hook(lambda module, inputs, output: rms(output))
    optimizer = optimizer_for("adamw", model.parameters(), 1e-3)
    loss = classify(model, Batches(x.view(-1, 8, 8), y, 32, draw.seed()))
    return Training(model, optimizer, loss, step + 20, _breaks, clip=1.0, fault=(f"blocks.{block}.down", step))


def mean_of_nothing(draw: Draw) -> Training:
    """The mean over the masked places of a batch that has none."""
    x, y = digits()
    step = draw.integer(10, 200)
    model = draw.one([mlp([64, 48, 10], "sigmoid"), Recurrent("GRU", 24), ConvNet([8, 8, 8], "elu")])
    batches = Batches(x, y, 64, draw.seed())

    def loss(number: int) -> Tensor:
        inputs, targets = batches()
        kept = targets != 3 if number != step else targets < 0
        each = cross_entropy(model(inputs), targets, reduction="none")
        return (each * kept).sum() / kept.sum()

    optimizer = optimizer_for(draw.one(["adam", "sgd", "rmsprop"]), model.parameters(), 2e-3)
    last = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)][-1]
    return Training(model, optimizer, loss, step + 20, _breaks, fault=(last, step))


NAN = (
    overflow, zero_by_zero, log_of_zero, root_of_zero, bad_data, overflow_of_exp, clipped, clipped_transformer,
    mean_of_nothing, overflow_in_a_residual_net,
)  # fmt: skip


class Oracle:
    """Looks at every module, gradient and parameter of a training in each step; its `look` goes into `Training.run`.

    Attributes:
        found: the layer that ran last before the first NaN or ∞ (None: the input was bad), and the step.
    """

    def __init__(self, model: nn.Module) -> None:
        self.found: tuple[str | None, int] | None = None
        self._model = model
        self._owners = {
            name: module
            for name, module in model.named_modules()
            if next(module.parameters(recurse=False), None) is not None
        }
        self._ran: list[str] = []  # layers, in the order in which they ended
        self._first: tuple[str | None] | None = None  # the layer that had run when the first bad value was seen
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda m, given: self._see(given), prepend=True)
            module.register_forward_hook(lambda m, given, made, name=name: self._end(name, made), prepend=True)

    def _see(self, value: Any) -> None:
        if isinstance(value, (tuple, list)):
            for one in value:
                self._see(one)
        elif isinstance(value, Tensor) and not torch.isfinite(value).all() and self._first is None:
            self._first = (self._ran[-1] if self._ran else None,)

    def _end(self, name: str, made: Any) -> None:
        if name in self._owners:
            self._ran.append(name)
        self._see(made)

    def look(self, step: int, loss: Tensor) -> None:
        """After a backward the gradients, before anything clips them; after a step (negative) the parameters."""
        if self.found is not None:
            return
        if step > 0:
            if not torch.isfinite(loss):
                self.found = self._first[0] if self._first else self._ran[-1], step
            else:
                self._look_at(lambda p: p.grad, step)
        else:
            self._look_at(lambda p: p, -step)
            self._ran.clear()
            self._first = None

    def _look_at(self, tensor_of: Callable[[Tensor], Tensor | None], step: int) -> None:
        order = list(dict.fromkeys(self._ran)) + [name for name in self._owners if name not in self._ran]
        if "" in self._owners and "" in order:  # what a model owns itself comes with what runs first in it
            order.remove("")
            order.insert(0, "")
        ill = [
            name
            for name in order
            for p in self._owners[name].parameters(recurse=False)
            if (t := tensor_of(p)) is not None and not torch.isfinite(t).all()
        ]
        if ill:
            self.found = ill[-1], step
