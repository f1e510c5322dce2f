"""The named experiments: sets of recipes that differ in one thing, and what to look at.

Standard library only. The learning rates were found by `gradtui compare NAME --tune lr` on the validation images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gradtui.errors import UsageError
from gradtui.format import hint
from gradtui.lab.recipe import Recipe


@dataclass(frozen=True)
class Experiment:
    """Recipes by label; the first is the one that the others are compared with."""

    title: str
    hint: str
    recipes: Mapping[str, Recipe]
    target_cost: float | None = None

    @property
    def recipe(self) -> Recipe:
        """The first recipe."""
        return next(iter(self.recipes.values()))


def find(name: str) -> tuple[Experiment, str]:
    """`vanishing` or `vanishing/10`: the experiment and the label of the recipe; raises `UsageError` if it is none."""
    experiment, _, label = name.partition("/")
    if experiment not in EXPERIMENTS:
        raise UsageError(f"there is no experiment {experiment!r}: {hint(experiment, EXPERIMENTS)}")
    recipes = EXPERIMENTS[experiment].recipes
    if label and label not in recipes:
        raise UsageError(f"the experiment {experiment} has no recipe {label!r}: {hint(label, recipes)}")
    return EXPERIMENTS[experiment], label or next(iter(recipes))


# fmt: off
# Of nine rates from 0.0003 to 3 the one that validates best: `gradtui compare NAME --tune lr`. What stays at chance at
# each of them takes _STUCK
_STUCK = 0.1
_RATES: dict[str, dict[str, float]] = {
    "vanishing": {f"depth-{depth}": _STUCK for depth in (1, 2, 3, 4, 6, 8, 10)},
    "activations": {
        "sigmoid": _STUCK, "tanh": 0.01, "softplus": 0.001, "relu": 0.01, "leaky-relu": 0.01, "prelu": 0.03,
        "elu": 0.01, "selu": 0.01, "gelu": 0.03, "silu": 0.01, "maxout": 0.01,
    },
    "initialisation": {
        "xavier": 0.01, "xavier-uniform": 0.03, "uniform": 0.01, "lecun": 0.01, "he": 0.03, "he-uniform": 0.01,
        "orthogonal": 0.03, "lsuv": 0.03, "N(0, 1)": 0.0003, "N(0, 0.01²)": _STUCK,
    },
    "normalisation": {
        "none": _STUCK, "batch-norm": 0.1, "layer-norm": 0.1, "rms-norm": 0.1, "lrn": _STUCK,
        "inputs-symmetric": _STUCK, "inputs-standardised": 0.3,
    },
    "residual": {
        "plain 20": 0.03, "residual 20": 0.1, "plain 56": 0.001, "residual 56": 0.1, "plain 110": 0.1,
        "residual 110": 0.3, "plain 1,000": 0.0003, "residual 1,000": 0.1,
    },
    "memory": {
        "rnn": 0.003, "irnn": 0.003, "lstm": 0.03, "gru": 0.01, "lstm, gate shut": 0.03, "rnn, rows": 0.003,
        "lstm, rows": 0.01, "gru, rows": 0.01,
    },
    "optimizers": {
        "sgd": 3.0, "momentum": 0.3, "nesterov": 0.3, "adagrad": 0.1, "adadelta": 3.0, "rmsprop": 0.03, "adam": 0.01,
        "adamw": 0.01, "momentum, warm-up": 0.3, "momentum, cosine": 0.3, "momentum, step": 0.3,
    },
    "losses": {"quadratic": 3.0, "cross-entropy": 3.0, "softmax-quadratic": 3.0, "softmax": 3.0},
    "regularisation": {
        "none": 0.03, "dropout": 0.03, "early-stopping": 0.03, "narrower": 0.03, "shallower": 0.03, "low-rank": 0.003,
        "l1": 0.03, "l2": 0.01, "weight-decay": 0.1, "max-norm": 0.03, "weight-clip": 0.03,
    },
    "remedies": {
        "nothing": _STUCK, "relu + he": 0.01, "tanh": 0.01, "lsuv": _STUCK, "batch-norm": 0.01, "residual": 0.1,
        "clip-norm": _STUCK, "max-norm": _STUCK, "cross-entropy": _STUCK, "adam": 0.003, "shallower": _STUCK,
        "rbm": 0.03,
    },
    "pretraining": {
        "nothing": _STUCK, "rbm": 0.03, "autoencoder": 0.03, "denoising": 0.1, "supervised": 0.1,
    },
}
# one pass over the digits in batches of 20 is 60 steps; recorded within a share of the time, so that times compare
_SET = Recipe(batch_size=20, epochs=60, every=None, momentum=0.9, cost="softmax")
_TEN = _SET.but(hidden=(30,) * 10, init="xavier")
_EIGHT = _SET.but(hidden=(64,) * 8, epochs=40)
_DEEP = Recipe(
    net="plain", activation="relu", init="he", norm="batch", cost="softmax", momentum=0.9, batch_size=60, every=None
)  # fmt: skip
_ADDING = Recipe(
    data="adding", net="rnn", hidden=(64,), activation="tanh", init="uniform", cost="squared", optimizer="adam",
    clip_norm=1.0, batch_size=50, length=50, epochs=20, every=None,
)  # fmt: skip
_ROWS = _ADDING.but(data="digits", cost="softmax", batch_size=20, epochs=10)
# each time step multiplies the gradient by about σ·√(64/2)
_UNSTABLE = _ADDING.but(
    activation="relu", init="normal", sigma=0.18, optimizer="sgd", learning_rate=0.01, clip_norm=0.0, epochs=10
)  # fmt: skip
_FEW = _SET.but(hidden=(100, 100, 100), activation="relu", init="he", train_size=200, epochs=150)


def _set(base: Recipe, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Recipe]:
    """The base with each set of changes, by label."""
    return {label: base.adapted(changed).but(name=label) for label, changed in changes.items()}


def _with(base: Recipe, remedies: Mapping[str, tuple[str, ...]]) -> dict[str, Recipe]:
    """The base with remedies of the table, by label."""
    return {label: base.with_remedies(*names).but(name=label) for label, names in remedies.items()}


_UNTUNED = {
    "vanishing": Experiment(
        "Vanishing gradient",
        "The same sigmoid net with one to ten hidden layers. Each layer on the way back multiplies the gradient by a "
        "small slope: look at how the first bar shrinks with each layer that is added, and from which depth on the net "
        "stays at chance.",
        _set(_SET, {f"depth-{depth}": {"hidden": (30,) * depth} for depth in (1, 2, 3, 4, 6, 8, 10)}),
        target_cost=0.3,
    ),
    "exploding": Experiment(
        "Exploding gradient",
        "Three ways for a gradient to grow on its way back: a chain of single neurons with weights of 100, 25-fold a "
        "layer (its rate is 0, so that the picture stands still); ReLU layers with weights twice as large as He's; and "
        "a ReLU RNN over 50 time steps. The last two end in NaN.",
        {
            "chain": Recipe(data="point", hidden=(1,) * 6, init="chain", cost="quadratic", learning_rate=0.0,
                            batch_size=0, epochs=3_000, name="chain"),
            "large weights": _EIGHT.but(activation="relu", init="normal", sigma=0.5, learning_rate=0.01,
                                        name="large weights"),
            "he": _EIGHT.but(activation="relu", init="he", learning_rate=0.01, name="he"),
            "rnn": _UNSTABLE.but(name="rnn"),
        },
    ),
    "activations": Experiment(
        "Activations",
        "Eight hidden layers of 64, each activation with the weights that suit it. A slope that stays below 1 leaves "
        "the first layers hardly any gradient; where it is 1 on half of the inputs, all bars are level.",
        _with(_EIGHT, {
            "sigmoid": ("sigmoid", "xavier"), "tanh": ("tanh", "xavier"), "softplus": ("softplus", "he"),
            "relu": ("relu", "he"), "leaky-relu": ("leaky-relu", "he"), "prelu": ("prelu", "he"),
            "elu": ("elu", "he"), "selu": ("selu", "lecun"), "gelu": ("gelu", "he"), "silu": ("silu", "he"),
            "maxout": ("maxout", "xavier"),
        }),
        target_cost=0.3,
    ),
    "initialisation": Experiment(
        "Initialisation",
        "Eight tanh layers of 64 that differ in their first weights alone. Too small, and the gradient vanishes; too "
        "large, and the units saturate; between them lie Xavier, orthogonal and LSUV.",
        _with(_EIGHT.adapted({"activation": "tanh"}), {
            "xavier": ("xavier",), "xavier-uniform": ("xavier-uniform",), "uniform": ("uniform",),
            "lecun": ("lecun",), "he": ("he",), "he-uniform": ("he-uniform",), "orthogonal": ("orthogonal",),
            "lsuv": ("lsuv",), "N(0, 1)": ("normal",),
        }) | {"N(0, 0.01²)": _EIGHT.adapted({"activation": "tanh", "init": "normal", "sigma": 0.01}).but(
            name="N(0, 0.01²)")},
        target_cost=0.3,
    ),
    "normalisation": Experiment(
        "Normalisation",
        "Four sigmoid layers of 64 that stay at chance as they are. Normalised layer by layer, they learn; scaling the "
        "inputs alone helps less.",
        _with(_EIGHT.but(hidden=(64,) * 4, init="xavier"), {
            "none": (), "batch-norm": ("batch-norm",), "layer-norm": ("layer-norm",), "rms-norm": ("rms-norm",),
            "lrn": ("lrn",), "inputs-symmetric": ("inputs-symmetric",), "inputs-standardised": ("inputs-standardised",),
        }),
        target_cost=0.3,
    ),
    "residual": Experiment(
        "Residual nets to 1,000 layers",
        "Twins with the same layers and BatchNorm, with and without shortcuts. Deeper is worse for the plain net, "
        "until it cannot be trained at all; the shortcuts carry the gradient through a thousand layers.",
        {
            f"{net} {depth:,}": _DEEP.but(net=net, hidden=(32,) * depth, epochs=8 if depth == 1000 else 20,
                                          learning_rate=0.01, name=f"{net} {depth:,}")
            for depth in (20, 56, 110, 1000) for net in ("plain", "residual")
        },
        target_cost=0.3,
    ),
    "memory": Experiment(
        "Memory: RNN, LSTM and GRU",
        "The adding problem over 50 time steps, and digits read row by row. Open the gradient through time (t): a "
        "plain RNN forgets what it saw first, gates carry it. An LSTM needs its forget gate open from the start.",
        _with(_ADDING, {"rnn": (), "irnn": ("irnn",), "lstm": ("lstm",), "gru": ("gru",)})
        | {"lstm, gate shut": _ADDING.adapted({"net": "lstm"}).but(name="lstm, gate shut")}
        | {f"{label}, rows": recipe.but(name=f"{label}, rows")
           for label, recipe in _with(_ROWS, {"rnn": (), "lstm": ("lstm",), "gru": ("gru",)}).items()},
        target_cost=0.05,
    ),
    "clipping": Experiment(
        "Clipping",
        "A ReLU RNN over 50 time steps whose gradient explodes, all with the same rate. Unclipped, one step throws its "
        "weights into NaN. Clipping by norm or by value prevents it; AGC does not clip the output layer, and fails.",
        _with(_UNSTABLE, {
            "unclipped": (), "clip-norm": ("clip-norm",), "clip-value": ("clip-value",), "agc": ("agc",),
        }),
        target_cost=0.16,
    ),
    "optimizers": Experiment(
        "Optimizers",
        "Four sigmoid layers of 30, each optimizer with its own best rate. Plain SGD needs a rate of 3 to leave the "
        "plateau where the first layers hardly move; optimizers that normalise by recent gradient size "
        "move all layers equally.",
        _with(_SET.but(hidden=(30,) * 4, init="xavier", momentum=0.0), {
            "sgd": ("sgd",), "momentum": ("momentum",), "nesterov": ("nesterov",), "adagrad": ("adagrad",),
            "adadelta": ("adadelta",), "rmsprop": ("rmsprop",), "adam": ("adam",), "adamw": ("adamw",),
            "momentum, warm-up": ("momentum", "warm-up"), "momentum, cosine": ("momentum", "cosine"),
            "momentum, step": ("momentum", "step-decay"),
        }),
        target_cost=0.3,
    ),
    "losses": Experiment(
        "Losses",
        "Two hidden layers of 30 with weights N(0, 2²), whose outputs start saturated, many of them wrongly. With a "
        "squared error their slope stands in the gradient, and they learn slowly; cross-entropy cancels it.",
        _with(_SET.but(hidden=(30, 30), init="normal", sigma=2.0, momentum=0.0), {
            "quadratic": ("quadratic",), "cross-entropy": ("cross-entropy",),
            "softmax-quadratic": ("softmax-quadratic",), "softmax": ("softmax",),
        }),
    ),
    "regularisation": Experiment(
        "Regularisation",
        "Three ReLU layers of 100 and only 200 training images: the net learns each of them. What bounds it, or stops "
        "it early, may do better on the test; what it does to gradients stands in the bars.",
        _with(_FEW, {
            "none": (), "dropout": ("dropout",), "early-stopping": ("early-stopping",), "narrower": ("narrower",),
            "shallower": ("shallower",), "low-rank": ("low-rank",), "l1": ("l1",), "l2": ("l2",),
            "weight-decay": ("weight-decay",), "max-norm": ("max-norm",), "weight-clip": ("weight-clip",),
        }),
    ),
    "pretraining": Experiment(
        "Pretraining, layer by layer",
        "Ten sigmoid layers of 30, which stay at chance. Trained one layer at a time first, to restore its input or to "
        "tell the classes, they start where features are in place, and the whole net learns.",
        _with(_TEN, {
            "nothing": (), "rbm": ("rbm",), "autoencoder": ("autoencoder",), "denoising": ("denoising",),
            "supervised": ("supervised",),
        }),
        target_cost=0.3,
    ),
    "remedies": Experiment(
        "Remedies, one of each family",
        "Ten sigmoid layers of 30, which stay at chance, and one change at a time. Some fix the vanishing gradient, "
        "some do not: the table says which.",
        _with(_TEN, {
            "nothing": (), "relu + he": ("relu", "he"), "tanh": ("tanh",), "lsuv": ("lsuv",),
            "batch-norm": ("batch-norm",), "residual": ("residual",), "clip-norm": ("clip-norm",),
            "max-norm": ("max-norm",), "cross-entropy": ("cross-entropy",), "adam": ("adam",),
            "shallower": ("shallower",), "rbm": ("rbm",),
        }),
        target_cost=0.3,
    ),
    "nielsen": Experiment(
        "The book's measurement",
        "Chapter 5 of Nielsen's book: 1,000 images of MNIST, full-batch descent, every layer's speed over 500 epochs. "
        "Each layer starts about five times slower than the next. Needs MNIST.",
        {"nielsen": Recipe(data="mnist", train_size=1000, hidden=(30, 30), learning_rate=0.1, l2=5.0, batch_size=0,
                           epochs=500, name="nielsen")},
    ),
    "mnist": Experiment(
        "The book's training",
        "Chapter 5 again, trained for real: 50,000 images, batches of 10, 30 epochs. A deeper net does no better: "
        "its first layers have hardly learnt. Needs MNIST.",
        {"mnist": Recipe(data="mnist", hidden=(30, 30, 30), learning_rate=0.1, l2=5.0, epochs=30, name="mnist")},
    ),
}
# fmt: on
EXPERIMENTS = {
    name: replace(
        experiment,
        recipes={
            label: recipe.but(learning_rate=_RATES.get(name, {}).get(label, recipe.learning_rate))
            for label, recipe in experiment.recipes.items()
        },
    )
    for name, experiment in _UNTUNED.items()
}
