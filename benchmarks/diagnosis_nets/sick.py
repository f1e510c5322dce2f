"""Nets that do not learn, by what is wrong with them; each says how that shows without a recorder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diagnosis_nets.broken import NAN
from diagnosis_nets.training import (
    Batches,
    ConvNet,
    Draw,
    Functional,
    Losses,
    Recurrent,
    Residual,
    Training,
    accuracy,
    classify,
    digits,
    end,
    initialise,
    mlp,
    optimizer_for,
)  # fmt: skip

STEPS = (250, 400, 600)
Make = Callable[[Draw], Training]


def _on_digits(
    draw: Draw, model: nn.Module, optimizer: torch.optim.Optimizer, is_fair: Callable[[Losses], bool] | None = None,
    scale: float = 1.0, batch: int | None = None,
) -> Training:  # fmt: skip
    """A classifier of digits; by default it is ill if it does not reach half of what is possible."""
    x, y = digits()
    x = scale * x
    batches = Batches(x, y, batch or draw.one([16, 32, 64, 128]), draw.seed())
    fair = is_fair or (lambda losses: accuracy(model, x, y) < 0.5)
    return Training(model, optimizer, classify(model, batches), draw.one(STEPS), fair)


def _outputs(model: nn.Module, kinds: tuple[type[nn.Module], ...], x: Tensor) -> list[Tensor]:
    """What each module of these kinds puts out."""
    found: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda m, i, output: found.append(output.detach()))
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


# -- vanishing --------------------------------------------------------------------------------------------------------


def _first_layer_is_slow(model: nn.Module, times: float = 1e-3) -> Callable[[Losses], bool]:
    """The learning speed of the first layer is a thousandth of the last one's, by autograd on all digits."""

    def is_fair(losses: Losses) -> bool:
        x, y = digits()
        loss = nn.functional.cross_entropy(model(x), y)
        biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
        first, *_, last = torch.autograd.grad(loss, biases)
        return accuracy(model, x, y) < 0.5 and bool(first.norm() < times * last.norm())

    return is_fair


def deep_sigmoid(draw: Draw) -> Training:
    width, depth = draw.one([20, 30, 64]), draw.integer(6, 12)
    model = mlp([64, *[width] * depth, 10], "sigmoid", functional=draw.one([True, False]))
    initialise(model, draw.one(["xavier", 0.5, 1.0]))
    name = draw.one(["sgd", "momentum"])
    optimizer = optimizer_for(name, model.parameters(), draw.between(0.05, 0.3) if name == "sgd" else 0.03)
    return _on_digits(draw, model, optimizer, _first_layer_is_slow(model))


def small_tanh(draw: Draw) -> Training:
    model = mlp([64, *[48] * draw.integer(7, 12), 10], draw.one(["tanh", "gelu", "leaky"]))
    initialise(model, draw.between(0.15, 0.35))
    return _on_digits(
        draw, model, optimizer_for("sgd", model.parameters(), draw.between(0.02, 0.1)), _first_layer_is_slow(model)
    )


def deep_sigmoid_adaptive(draw: Draw) -> Training:
    model = initialise(mlp([64, *[30] * draw.integer(10, 14), 10], "sigmoid"), draw.one([0.3, 0.6]))
    name = draw.one(["rmsprop", "adam", "adamw"])
    return _on_digits(
        draw, model, optimizer_for(name, model.parameters(), draw.between(1e-4, 1e-3)), _first_layer_is_slow(model)
    )


def deep_convolution(draw: Draw) -> Training:
    model = initialise(ConvNet([8] * draw.integer(6, 9), "sigmoid"), draw.one([0.7, 1.0]))
    return _on_digits(
        draw, model, optimizer_for("momentum", model.parameters(), draw.between(0.01, 0.05)),
        _first_layer_is_slow(model), batch=32,
    )  # fmt: skip


# -- exploding --------------------------------------------------------------------------------------------------------


def grows_backwards(draw: Draw) -> Training:
    """Far beyond the edge of chaos, each layer on the way back multiplies the gradient."""
    model = initialise(mlp([64, *[100] * draw.integer(14, 20), 10], "tanh"), draw.between(3.0, 4.0))

    def is_fair(losses: Losses) -> bool:
        x, y = digits()
        loss = nn.functional.cross_entropy(model(x), y)
        parameters = list(model.parameters())
        first, *_, last = torch.autograd.grad(loss, [p for p in parameters if p.dim() == 1])
        return accuracy(model, x, y) < 0.5 and bool(first.norm() > 300 * last.norm())

    return _on_digits(draw, model, optimizer_for("sgd", model.parameters(), draw.between(1e-5, 1e-4)), is_fair)


def without_floor(draw: Draw) -> Training:
    """An objective without a floor, as of a critic without a bound: outputs and gradients grow for ever."""
    torch.manual_seed(draw.seed())
    x = torch.randn(400, 8)
    y = torch.sin(x[:, :1])
    model = mlp([8, 16, 16, 1], draw.one(["leaky", "relu"]))
    batches = Batches(x, y, 100, draw.seed())
    optimizer = optimizer_for("adam", model.parameters(), draw.between(0.02, 0.04))

    def loss(step: int) -> Tensor:
        inputs, targets = batches()
        outputs = model(inputs)
        return nn.functional.mse_loss(outputs, targets) - 2.0 * outputs.square().mean()

    return Training(model, optimizer, loss, 250, lambda losses: bool(abs(losses[-1]) > 100 * abs(losses[0])))


def unstable_rate(draw: Draw) -> Training:
    """Regression; the rate is a little too large for the curvature, so that the loss grows from step to step."""
    torch.manual_seed(draw.seed())
    x = 2 * torch.randn(300, 10)
    y = x @ torch.randn(10, 1)
    last = nn.Linear(10, 1)
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10), last)
    for part in list(model)[:-1]:
        nn.init.orthogonal_(part.weight)
        for p in part.parameters():
            p.requires_grad_(False)
    top = float(torch.linalg.eigvalsh(2 * x.T @ x / len(x)).max())
    batches = Batches(x, y, 300, draw.seed())
    optimizer = optimizer_for("sgd", last.parameters(), draw.between(2.02, 2.05) / top)

    def loss(step: int) -> Tensor:
        inputs, targets = batches()
        return nn.functional.mse_loss(model(inputs), targets)

    return Training(model, optimizer, loss, 250, lambda losses: bool(losses[-1] > 100 * losses[0]))


def growing_recurrence(draw: Draw) -> Training:
    """A recurrence of ReLUs, and a penalty with the wrong sign: each step through time makes more of its states."""
    model = Recurrent("RNN", 24)
    model.rnn.nonlinearity, model.rnn.mode = "relu", "RNN_RELU"
    x, y = digits()
    batches = Batches(x, y, 64, draw.seed())
    optimizer = optimizer_for("adam", model.parameters(), draw.between(5e-3, 1e-2))

    def loss(step: int) -> Tensor:
        inputs, targets = batches()
        outputs = model(inputs)
        return nn.functional.cross_entropy(outputs, targets) - 0.1 * outputs.square().mean()

    return Training(model, optimizer, loss, 150, lambda losses: bool(abs(losses[-1]) > 100 * abs(losses[0])))


# -- dead -------------------------------------------------------------------------------------------------------------


def _is_dead(model: nn.Module) -> Callable[[Losses], bool]:
    """Some layer has most of its units at zero on all digits."""

    def is_fair(losses: Losses) -> bool:
        x, _ = digits()
        units = [out.transpose(1, -1) if out.dim() == 4 else out for out in _outputs(model, (nn.ReLU,), x)]
        return any(float((out == 0).flatten(0, -2).all(0).float().mean()) >= 0.7 for out in units)

    return is_fair


def negative_biases(draw: Draw) -> Training:
    width, depth = draw.one([40, 64]), draw.integer(2, 5)
    model = mlp([64, *[width] * depth, 10], "relu")
    layer = [part for part in model if isinstance(part, nn.Linear)][draw.integer(0, depth - 1)]
    alive = draw.integer(2, 6)
    with torch.no_grad():
        layer.bias[alive:] = -draw.between(5, 20)
    name = draw.one(["sgd", "momentum", "adam"])
    rate = {"sgd": 0.05, "momentum": 0.02, "adam": 1e-3}[name]
    return _on_digits(draw, model, optimizer_for(name, model.parameters(), rate), _is_dead(model))


def killed_by_the_rate(draw: Draw) -> Training:
    """The first steps are so large that they throw the units where they never fire again."""
    model = mlp([64, *[48] * draw.integer(2, 4), 10], "relu")
    name, rate = draw.one([("sgd", 8.0), ("adam", 0.3), ("momentum", 3.0)])
    return _on_digits(draw, model, optimizer_for(name, model.parameters(), rate), _is_dead(model))


def dead_convolution(draw: Draw) -> Training:
    model = ConvNet([16] * draw.integer(2, 4), "relu")
    with torch.no_grad():
        model.convolutions[1].bias[draw.integer(1, 4) :] = -draw.between(3, 10)
    return _on_digits(
        draw, model, optimizer_for("adam", model.parameters(), draw.between(5e-4, 2e-3)), _is_dead(model), batch=64
    )


def dead_residual(draw: Draw) -> Training:
    model = Residual(48, draw.integer(4, 8), "relu")
    with torch.no_grad():
        model.blocks[draw.integer(0, 3)].bias -= draw.between(10, 30)
    return _on_digits(draw, model, optimizer_for("sgd", model.parameters(), 0.05), _is_dead(model))


# -- saturated --------------------------------------------------------------------------------------------------------


def _is_saturated(model: nn.Module, scale: float = 1.0) -> Callable[[Losses], bool]:
    """Some layer has most of its outputs where the derivative is under 5 % of its maximum, and the net is bad."""

    def is_fair(losses: Losses) -> bool:
        x, y = digits()
        sigmoid = any(isinstance(module, nn.Sigmoid) for module in model.modules())
        outputs = _outputs(model, (nn.Sigmoid, nn.Tanh), scale * x)
        slopes = [4 * out * (1 - out) if sigmoid else 1 - out**2 for out in outputs]
        flat = max(float((slope < 0.05).float().mean()) for slope in slopes)
        return flat > 0.6 and accuracy(model, scale * x, y) < 0.6

    return is_fair


def large_weights(draw: Draw) -> Training:
    activation = draw.one(["sigmoid", "tanh"])
    model = mlp([64, *[64] * draw.integer(3, 6), 10], activation)
    initialise(model, draw.between(20, 40) if activation == "sigmoid" else draw.between(8, 20))
    return _on_digits(
        draw, model, optimizer_for("sgd", model.parameters(), draw.between(1e-3, 3e-3)), _is_saturated(model)
    )


def unscaled_inputs(draw: Draw) -> Training:
    scale = draw.between(200, 1000)
    model = mlp([64, *[48] * draw.integer(2, 4), 10], "tanh")
    initialise(model, 1.0)
    with torch.no_grad():
        next(iter(model)).weight.abs_()  # every unit of the first layer says the same of every input
    return _on_digits(
        draw, model, optimizer_for(draw.one(["sgd", "momentum"]), model.parameters(), draw.between(5e-4, 3e-3)),
        _is_saturated(model, scale), scale=scale,
    )  # fmt: skip


def driven_to_the_edge(draw: Draw) -> Training:
    """Steps that are too large for a tanh net drive its units to ±1, and there they stay."""
    model = mlp([64, *[48] * draw.integer(3, 5), 10], "tanh")
    name, rate = draw.one([("adam", 0.3), ("momentum", 2.0), ("sgd", 8.0)])
    return _on_digits(
        draw, model, optimizer_for(name, model.parameters(), rate * draw.between(0.8, 1.3)), _is_saturated(model)
    )


def wrong_at_the_output(draw: Draw) -> Training:
    """The quadratic cost and outputs that begin near 1: the book's slow start (Nielsen, ch. 3), too slow to end."""
    x, y = digits()
    targets = nn.functional.one_hot(y, 10).float()
    model = nn.Sequential(mlp([64, 40, 10], "sigmoid"), nn.Sigmoid())
    with torch.no_grad():
        list(model[0])[-1].bias += draw.between(8, 12)
    batches = Batches(x, targets, 32, draw.seed())

    def loss(step: int) -> Tensor:
        inputs, wanted = batches()
        return nn.functional.mse_loss(model(inputs), wanted)

    def is_fair(losses: Losses) -> bool:
        return float(losses[-10:].mean()) > 0.8 * float(losses[:10].mean()) and accuracy(model, x, y) < 0.6

    return Training(model, optimizer_for("sgd", model.parameters(), draw.between(0.1, 0.5)), loss, 250, is_fair)


# -- too large, too small, plateau ------------------------------------------------------------------------------------


def too_large(draw: Draw) -> Training:
    """A hundred times the rate that suits the optimizer."""
    kind = draw.one(["mlp", "conv", "lstm"])
    model: nn.Module
    if kind == "mlp":
        model = mlp([64, *[64] * draw.integer(1, 4), 10], draw.one(["tanh", "sigmoid"]))
    elif kind == "conv":
        model = ConvNet([12] * draw.integer(2, 3), "tanh")
    else:
        model = Recurrent("LSTM", 32)
    name = draw.one(["sgd", "adam", "rmsprop", "momentum", "adamw"])
    rate = {"sgd": 20.0, "momentum": 5.0, "adam": 1.0, "adamw": 1.0, "rmsprop": 0.5}[name] * draw.between(0.7, 2)
    optimizer = optimizer_for(name, model.parameters(), rate)

    def is_fair(losses: Losses) -> bool:
        last = losses[-len(losses) // 4 :]
        return bool(torch.isfinite(torch.tensor(losses)).all()) and float(last.mean()) > 0.9 * float(losses[0])

    return _on_digits(draw, model, optimizer, is_fair)


def too_small(draw: Draw) -> Training:
    """A thousandth or less of the rate that suits the optimizer."""
    kind = draw.one(["mlp", "conv", "lstm", "residual"])
    model: nn.Module
    if kind == "mlp":
        model = mlp([64, *[64] * draw.integer(1, 5), 10], draw.one(["tanh", "relu", "gelu"]))
    elif kind == "conv":
        model = ConvNet([12] * draw.integer(2, 3), "relu")
    elif kind == "lstm":
        model = Recurrent("LSTM", 32)
    else:
        model = Residual(32, 8, "relu", norm=True)
    name = draw.one(["sgd", "adam", "rmsprop", "momentum"])
    rate = {"sgd": 1e-4, "momentum": 1e-5, "adam": 3e-7, "rmsprop": 3e-7}[name] * draw.between(0.1, 1)

    def is_fair(losses: Losses) -> bool:
        return float(losses[-20:].mean()) > 0.97 * float(losses[:20].mean())

    return _on_digits(draw, model, optimizer_for(name, model.parameters(), rate), is_fair)


def plateau(draw: Draw) -> Training:
    """Nothing is wrong with the net: the labels have nothing to do with the inputs, and are new at each step."""
    x, _ = digits()
    model = mlp([64, *[48] * draw.integer(1, 3), 10], draw.one(["relu", "tanh"]))
    generator = torch.Generator().manual_seed(draw.seed())
    batch = draw.one([64, 128])

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(x), (batch,), generator=generator)
        labels = torch.randint(10, (batch,), generator=generator)
        return nn.functional.cross_entropy(model(x[chosen]), labels)

    name = draw.one(["adam", "sgd", "momentum"])
    rate = {"adam": 1e-3, "sgd": 0.03, "momentum": 0.01}[name]
    optimizer = optimizer_for(name, model.parameters(), rate)
    return Training(model, optimizer, loss, draw.one(STEPS), lambda losses: end(losses) > 0.9 * losses[0])


# -- still ------------------------------------------------------------------------------------------------------------


class Cut(Functional):
    """An MLP in which one layer is cut off from the loss."""

    def __init__(self, sizes: list[int], activation: str, cut: int, way: str) -> None:
        super().__init__(sizes, activation)
        self.cut, self.way = cut, way

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers[:-1]):
            if i != self.cut:
                x = self.activation(layer(x))
            elif self.way == "no_grad":
                with torch.no_grad():
                    made = self.activation(layer(x))
                x = x + made
            elif self.way == "detached":
                x = x + self.activation(layer(x)).detach()
        return self.layers[-1](x)  # type: ignore[no-any-return]


def cut_off(draw: Draw) -> Training:
    model = Cut([64, *[64] * draw.integer(2, 4), 10], draw.one(["relu", "tanh"]), 1, draw.one(["no_grad", "detached"]))
    before = model.layers[1].weight.detach().clone()
    return _on_digits(
        draw, model, optimizer_for(draw.one(["adam", "rmsprop"]), model.parameters(), 1e-3),
        lambda losses: torch.equal(before, model.layers[1].weight),
    )  # fmt: skip


def forgotten(draw: Draw) -> Training:
    """The optimizer does not have one layer, or has it at a rate of 0."""
    model: nn.Module = draw.one(
        [Residual(40, 4, "relu"), mlp([64, 40, 40, 40, 10], "tanh"), ConvNet([8, 8, 8], "relu")]
    )
    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    lost = layers[draw.integer(0, len(layers) - 2)]
    own = {id(p) for p in lost.parameters()}
    groups = [{"params": [p for p in model.parameters() if id(p) not in own]}]
    if draw.one([True, False]):
        groups.append({"params": list(lost.parameters()), "lr": 0.0})  # type: ignore[dict-item]
    before = lost.weight.detach().clone()
    name, rate = draw.one([("momentum", 0.02), ("adam", 1e-3), ("sgd", 0.1)])
    return _on_digits(
        draw, model, optimizer_for(name, groups, rate), lambda losses: torch.equal(before, lost.weight)
    )  # fmt: skip


SICK: dict[str, tuple[Make, ...]] = {
    "nan": NAN,
    "vanishing": (deep_sigmoid, deep_sigmoid_adaptive, small_tanh, deep_convolution),
    "exploding": (grows_backwards, without_floor, unstable_rate, growing_recurrence),
    "dead": (negative_biases, killed_by_the_rate, dead_convolution, dead_residual),
    "saturated": (large_weights, unscaled_inputs, driven_to_the_edge, wrong_at_the_output),
    "update-too-large": (too_large,) * 4,
    "update-too-small": (too_small,) * 4,
    "plateau": (plateau,) * 2,
    "not-updating": (cut_off, forgotten, forgotten, cut_off),
}  # fmt: skip
