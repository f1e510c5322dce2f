"""Nets that learn, in twenty ways that fixed thresholds could take for ill; each says what it has to reach."""

from __future__ import annotations

import math
from collections.abc import Callable

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
    accuracy,
    classify,
    digits,
    end,
    initialise,
    mlp,
    optimizer_for,
)  # fmt: skip


def _classifier(
    draw: Draw, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, batch: int, reaches: float,
    scheduler: object = None,
) -> Training:  # fmt: skip
    x, y = digits()
    return Training(
        model, optimizer, classify(model, Batches(x, y, batch, draw.seed())), steps,
        lambda losses: accuracy(model, x, y) >= reaches, scheduler,
    )  # fmt: skip


def _best(draw: Draw, rates: dict[str, float]) -> tuple[str, float]:
    """One of some optimizers, at about the rate that suits it."""
    name = draw.one(list(rates))
    return name, rates[name] * draw.between(0.7, 1.4)


def sigmoid(draw: Draw) -> Training:
    depth, width = draw.integer(1, 3), draw.one([30, 64])
    model = initialise(mlp([64, *[width] * depth, 10], "sigmoid", functional=draw.one([True, False])), "xavier")
    name, rate = _best(draw, {"adam": 1e-2, "rmsprop": 5e-3, "momentum": 0.5})
    return _classifier(draw, model, optimizer_for(name, model.parameters(), rate), 400, draw.one([32, 64]), 0.8)


def deep_relu(draw: Draw) -> Training:
    depth, width = draw.integer(6, 10), draw.one([48, 64, 100])
    model = initialise(mlp([64, *[width] * depth, 10], "relu", functional=draw.one([True, False])), "he")
    name, rate = _best(draw, {"adam": 1e-3, "sgd": 0.03, "momentum": 5e-3})
    return _classifier(draw, model, optimizer_for(name, model.parameters(), rate), 300, 64, 0.85)


def deep_tanh(draw: Draw) -> Training:
    depth = draw.integer(5, 12)
    model = initialise(mlp([64, *[64] * depth, 10], "tanh", functional=draw.one([True, False])), "xavier")
    name, rate = _best(draw, {"adam": 1e-3, "momentum": 1e-2, "sgd": 0.05})
    return _classifier(draw, model, optimizer_for(name, model.parameters(), rate), 300, 64, 0.85)


def batch_norm(draw: Draw) -> Training:
    activation = draw.one(["relu", "sigmoid", "leaky", "tanh"])
    model = mlp([64, *[64] * draw.integer(3, 8), 10], activation, norm=True)
    name, rate = _best(draw, {"adam": 3e-3, "momentum": 0.05, "sgd": 0.2})
    return _classifier(draw, model, optimizer_for(name, model.parameters(), rate), 300, 64, 0.85)


def residual(draw: Draw) -> Training:
    model = Residual(48, 20, draw.one(["relu", "gelu", "tanh"]), norm=draw.one([True, False]))
    name, rate = _best(draw, {"adam": 1e-3, "adamw": 1e-3, "sgd": 0.1})
    return _classifier(draw, model, optimizer_for(name, model.parameters(), rate), 250, 64, 0.85)


def recurrent(draw: Draw) -> Training:
    model = Recurrent(draw.one(["LSTM", "GRU"]), draw.one([32, 64]), draw.integer(1, 2))
    name, rate = _best(draw, {"adam": 5e-3, "rmsprop": 3e-3})
    return _classifier(draw, model, optimizer_for(name, model.parameters(), rate), 300, 64, 0.8)


def warm_up(draw: Draw) -> Training:
    model = Transformer(8, 32, draw.integer(2, 3), 8, classes=10)
    optimizer = optimizer_for("adamw", model.parameters(), draw.between(1e-3, 5e-3), weight_decay=0.01)
    ramp = draw.integer(50, 120)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / ramp))
    x, y = digits()
    x = x.view(-1, 8, 8)
    return Training(
        model, optimizer, classify(model, Batches(x, y, 64, draw.seed())), 350,
        lambda losses: accuracy(model, x, y) >= 0.8, scheduler,
    )  # fmt: skip


def convolution(draw: Draw) -> Training:
    model = ConvNet([16] * draw.integer(2, 4), draw.one(["relu", "leaky", "elu"]))
    name, rate = _best(draw, {"adam": 2e-3, "momentum": 0.03, "rmsprop": 1e-3})
    return _classifier(draw, model, optimizer_for(name, model.parameters(), rate), 200, 64, 0.85)


def noisy_regression(draw: Draw) -> Training:
    """The noise is as large as what can be learnt: half of the loss stays, in units of thousands."""
    torch.manual_seed(draw.seed())
    x = torch.randn(3000, 5)
    clean = 30 * (torch.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3])
    y = clean + 30 * torch.randn(3000, 1)
    model = mlp([5, 64, 64, 1], draw.one(["relu", "tanh", "gelu"]))
    batches = Batches(x, y, draw.one([32, 128]), draw.seed())
    optimizer = optimizer_for("adam", model.parameters(), draw.between(0.01, 0.02))

    def loss(step: int) -> Tensor:
        inputs, targets = batches()
        return nn.functional.mse_loss(model(inputs), targets)

    def is_fair(losses: Losses) -> bool:
        with torch.no_grad():
            explained = 1 - float(((model(x) - clean) ** 2).mean() / clean.var())
        return explained > 0.5

    return Training(model, optimizer, loss, 500, is_fair)


def label_noise(draw: Draw) -> Training:
    x, y = digits()
    wrong = torch.rand(len(y), generator=torch.Generator().manual_seed(draw.seed())) < draw.one([0.3, 0.4])
    noisy = torch.where(wrong, (y + 3) % 10, y)
    model = mlp([64, 64, 64, 10], draw.one(["relu", "tanh"]))
    name, rate = _best(draw, {"adam": 2e-3, "momentum": 0.05})
    optimizer = optimizer_for(name, model.parameters(), rate)
    return Training(
        model, optimizer, classify(model, Batches(x, noisy, 64, draw.seed())), 300,
        lambda losses: accuracy(model, x, y) >= 0.75,
    )  # fmt: skip


def converged(draw: Draw) -> Training:
    """Ten times longer than it needs; in the end the loss stands still at its floor."""
    torch.manual_seed(draw.seed())
    x = torch.randn(500, 10)
    y = x @ torch.randn(10, 1) + draw.one([0.05, 0.3]) * torch.randn(500, 1)
    model = mlp([10, 20, 20, 1], draw.one(["relu", "tanh"]))
    optimizer = optimizer_for("adam", model.parameters(), draw.between(5e-3, 1e-2))
    batches = Batches(x, y, draw.one([50, 200]), draw.seed())

    def loss(step: int) -> Tensor:
        inputs, targets = batches()
        return nn.functional.mse_loss(model(inputs), targets)

    return Training(model, optimizer, loss, 600, lambda losses: end(losses) < 0.1 * losses[0])


def cosine(draw: Draw) -> Training:
    model = mlp([64, 64, 64, 64, 10], draw.one(["relu", "tanh", "elu"]))
    name, rate = _best(draw, {"adam": 5e-3, "momentum": 0.1})
    optimizer = optimizer_for(name, model.parameters(), rate)
    steps = draw.integer(250, 450)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return _classifier(draw, model, optimizer, steps, 64, 0.9, scheduler)


def dropout(draw: Draw) -> Training:
    kind = draw.one([nn.ReLU, nn.Tanh])
    share = draw.one([0.3, 0.5])
    model = nn.Sequential(
        nn.Linear(64, 128), kind(), nn.Dropout(share), nn.Linear(128, 64), kind(), nn.Dropout(share), nn.Linear(64, 10)
    )
    name, rate = _best(draw, {"adam": 3e-3, "momentum": 0.05})
    return _classifier(draw, model, optimizer_for(name, model.parameters(), rate), 300, 64, 0.85)


def weight_decay(draw: Draw) -> Training:
    model = mlp([64, 80, 80, 80, 10], draw.one(["relu", "tanh", "leaky"]))
    name = draw.one(["adamw", "momentum"])
    rate, decay = (3e-3, 0.1) if name == "adamw" else (0.05, 5e-3)
    return _classifier(
        draw, model, optimizer_for(name, model.parameters(), rate, weight_decay=decay), 350, 64, 0.85
    )  # fmt: skip


def fine_tuning(draw: Draw) -> Training:
    """A trunk that has learnt five of the digits learns the others, slowly or not at all; the head is new."""
    torch.manual_seed(draw.seed())
    x, y = digits()
    model = mlp([64, 64, 48, 10], draw.one(["relu", "tanh"]))
    few = y < 5
    optimizer = optimizer_for("adam", model.parameters(), 3e-3)
    loss = classify(model, Batches(x[few], y[few], 64, draw.seed()))
    for step in range(150):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    trunk, head = list(model.children())[:-1], list(model.children())[-1]
    head.reset_parameters()
    if draw.one([True, False]):
        trunk[0].weight.requires_grad_(False)
        trunk[0].bias.requires_grad_(False)
    groups = [
        {"params": [p for part in trunk for p in part.parameters() if p.requires_grad], "lr": draw.between(3e-5, 2e-4)},
        {"params": head.parameters(), "lr": draw.between(3e-3, 6e-3)},
    ]
    return _classifier(draw, model, optimizer_for("adam", groups, 1e-3), 400, 64, 0.75)


class GAN(Training):
    """Both players step in turns."""

    def run(self, look: Callable[[int, Tensor], None] = lambda step, loss: None) -> Losses:
        generator, critic = self.model.generator, self.model.critic
        bce = nn.functional.binary_cross_entropy_with_logits
        for step in range(1, self.steps + 1):
            real = self.loss(step)
            fake = generator(torch.randn(len(real), 4))
            score, answer = critic(real), critic(fake.detach())
            self.optimizers[0].zero_grad()
            (bce(score, torch.ones_like(score)) + bce(answer, torch.zeros_like(answer))).backward()
            self.optimizers[0].step()
            self.optimizers[1].zero_grad()
            answer = critic(fake)
            bce(answer, torch.ones_like(answer)).backward()
            self.optimizers[1].step()
        return torch.zeros(1).numpy()


def gan(draw: Draw) -> Training:
    """The generator has to find where the points of a ring lie."""
    torch.manual_seed(draw.seed())
    radius = draw.between(2, 3)
    model = nn.Module()
    activation = draw.one(["leaky", "relu"])
    model.generator, model.critic = mlp([4, 32, 32, 2], "relu"), mlp([2, 32, 32, 1], activation)
    rate = draw.between(1e-3, 2e-3)
    players = [torch.optim.Adam(m.parameters(), rate, (0.5, 0.99)) for m in (model.critic, model.generator)]

    def ring(step: int) -> Tensor:
        angle = 2 * math.pi * torch.rand(128, 1)
        return radius * torch.cat([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(128, 2)

    def is_fair(losses: Losses) -> bool:
        with torch.no_grad():
            distances = model.generator(torch.randn(1000, 4)).norm(dim=1)
        return bool((distances - radius).abs().median() < 0.3 * radius)

    watched = {"critic": model.critic, "generator": model.generator}
    return GAN(model, players[0], ring, 500, is_fair, watched=watched, optimizers=players)


def language(draw: Draw) -> Training:
    """Thirty symbols of a Markov chain whose entropy is 2.1: the loss falls from 3.4 to about 2.2."""
    generator = torch.Generator().manual_seed(draw.seed())
    chain = torch.softmax(1.9 * torch.randn(30, 30, generator=generator), 1)
    text = [0]
    cumulated = chain.cumsum(1)
    for chance in torch.rand(8000, generator=generator).tolist():
        text.append(min(29, int(torch.searchsorted(cumulated[text[-1]], chance))))
    symbols = torch.tensor(text)
    model: nn.Module = Transformer(30, 32, 2, 16)
    optimizer = optimizer_for("adamw", model.parameters(), draw.between(2e-3, 5e-3))
    batch = draw.one([16, 32])

    def loss(step: int) -> Tensor:
        starts = torch.randint(len(symbols) - 17, (batch, 1), generator=generator)
        windows = symbols[starts + torch.arange(17)]
        return nn.functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())

    return Training(model, optimizer, loss, 400, lambda losses: end(losses) < 2.6 < 3.3 < losses[0])


def small_batches(draw: Draw) -> Training:
    model = mlp([64, 64, 64, 10], draw.one(["relu", "tanh", "gelu"]))
    name, rate = _best(draw, {"adam": 1e-3, "sgd": 0.05, "momentum": 0.01})
    return _classifier(draw, model, optimizer_for(name, model.parameters(), rate), 600, draw.one([4, 8]), 0.75)


def large_batches(draw: Draw) -> Training:
    """The smallest rate that is usual, so that the loss falls slowly and evenly."""
    model = mlp([64, 128, 128, 10], draw.one(["relu", "gelu"]))
    optimizer = optimizer_for(draw.one(["adam", "adamw"]), model.parameters(), draw.between(1e-4, 2e-4))
    return _classifier(draw, model, optimizer, 300, draw.one([500, 1000]), 0.75)


def autoencoder(draw: Draw) -> Training:
    x, _ = digits()
    inner = draw.one(["relu", "tanh", "elu"])
    model = nn.Sequential(mlp([64, 48, 24], inner), nn.ReLU(), mlp([24, 48, 64], inner), nn.Sigmoid())
    batches = Batches(x, x, 64, draw.seed())
    optimizer = optimizer_for("adam", model.parameters(), draw.between(2e-3, 5e-3))

    def loss(step: int) -> Tensor:
        inputs, _ = batches()
        return nn.functional.mse_loss(model(inputs), inputs)

    return Training(model, optimizer, loss, 500, lambda losses: end(losses) < 0.4 * losses[0])


HEALTHY: tuple[Callable[[Draw], Training], ...] = (
    sigmoid, deep_relu, deep_tanh, batch_norm, residual, recurrent, warm_up, convolution, noisy_regression, label_noise,
    converged, cosine, dropout, weight_decay, fine_tuning, gan, language, small_batches, large_batches, autoencoder,
)  # fmt: skip
