"""Recipes: everything that defines a built-in training, the choices there are, and the named experiments.

Standard library only: the command line and the terminal UI read this without loading torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any

from gradtui.errors import UsageError


@dataclass(frozen=True)
class Choice:
    """One value of a flag: what it is, why one would take it, and where it comes from."""

    what: str
    why: str
    source: str


DATA = {
    "digits": Choice("1,797 images of 8×8 pixels, bundled", "trains in seconds", "Alpaydin & Kaynak 1998 (UCI)"),
    "mnist": Choice("70,000 images of 28×28 pixels, from IDX files", "the book's own data", "LeCun et al. 1998"),
    "point": Choice("one input of one number", "for chains of single neurons", "Nielsen 2015, ch. 5"),
}
ACTIVATIONS = {
    "sigmoid": Choice("1/(1+e^-z)", "its slope is at most 1/4, so gradients shrink layer by layer", "Nielsen 2015"),
    "tanh": Choice("tanh z", "its slope reaches 1, so gradients shrink less", "LeCun et al. 1998"),
    "relu": Choice("max(0, z)", "its slope is 1 where it is on: nothing shrinks", "Nair & Hinton 2010"),
}
INITIALISATIONS = {
    "normal": Choice("weights and biases N(0, 1)", "the naive choice: wide layers saturate", "Nielsen 2015, ch. 1"),
    "scaled": Choice(
        "weights N(0, 1/fan_in), biases N(0, 1)", "keeps sums of many inputs small", "Nielsen 2015, ch. 3"
    ),
    "xavier": Choice(
        "weights N(0, 2/(fan_in+fan_out)), biases 0", "keeps variances even both ways", "Glorot & Bengio 2010"
    ),
    "he": Choice(
        "weights N(0, 2/fan_in), biases 0", "as Xavier, for units that are off half the time", "He et al. 2015"
    ),
    "chain": Choice(
        "weights 100, biases −100·input", "every z is 0 and every factor w·σ′(z) is 25", "Nielsen 2015, ch. 5"
    ),
}
COSTS = {
    "cross-entropy": Choice("cross-entropy summed over sigmoid outputs", "the book's cost", "Nielsen 2015, ch. 3"),
    "softmax": Choice("cross-entropy of softmax outputs", "the usual cost of a classifier", "Bridle 1990"),
    "quadratic": Choice(
        "half the squared error of sigmoid outputs", "saturated outputs learn slowly", "Nielsen, ch. 1"
    ),
}
# Rates without momentum at which four hidden layers of 30 learn the digits; sigmoid's is the book's, and shows the
# plateau that vanishing gradients make before the net gets going
LEARNING_RATES = {"sigmoid": 0.1, "tanh": 0.05, "relu": 0.02}
DTYPES = ("float32", "float64")
MOST_UNITS = 1_000_000
MOST_PARAMETERS = 200_000_000  # 0.8 GB of weights and as much of gradients: more than a lesson on a CPU needs
TRAINING_IMAGES = {"digits": 1_200, "mnist": 50_000}
# what a field of a recipe may hold, by the words of its annotation
_KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str, "int": int, "float": (int, float), "tuple[int, ...]": (tuple, list), "None": type(None),
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A training. Raises `UsageError` for values that do not exist or do not fit together.

    Attributes:
        data: see `DATA`; `data_dir` holds MNIST's files (None: `$GRADTUI_DATA`).
        train_size: training images taken, from the first, at most as many as there are; None takes all.
        hidden: units of each hidden layer.
        activation, init, cost: see `ACTIVATIONS`, `INITIALISATIONS`, `COSTS`.
        learning_rate: η; None takes the activation's own (`LEARNING_RATES`).
        l2: λ of the book: W ← (1 − ηλ/n)W − η∂C/∂W with n training images; biases do not decay.
        batch_size: images a step; 0 takes all of them (full-batch descent).
        every: record each so many steps; None keeps within `budget`, a share of the time.
        threads: of torch; 0 chooses by the size of the net.
        point: the input of the data set `point`.
    """

    data: str = "digits"
    data_dir: str | None = None
    train_size: int | None = None
    hidden: tuple[int, ...] = (30, 30, 30, 30)
    activation: str = "sigmoid"
    init: str = "scaled"
    cost: str = "cross-entropy"
    learning_rate: float | None = None
    momentum: float = 0.0
    l2: float = 0.0
    batch_size: int = 10
    epochs: int = 300
    seed: int = 0
    dtype: str = "float32"
    every: int | None = 1
    budget: float = 0.01
    threads: int = 0
    point: float = 0.5
    name: str | None = None

    def __post_init__(self) -> None:
        for flag, value, choices in (
            ("--data", self.data, DATA),
            ("--activation", self.activation, ACTIVATIONS),
            ("--init", self.init, INITIALISATIONS),
            ("--cost", self.cost, COSTS),
            ("--dtype", self.dtype, DTYPES),
        ):
            if value not in choices:
                raise UsageError(f"{flag} {value!r}: choose one of {', '.join(choices)}")
        if any(units < 1 for units in self.hidden) or sum(self.hidden) > MOST_UNITS:
            raise UsageError(f"--hidden: each layer needs at least one unit, all together at most {MOST_UNITS:,}")
        for flag, number, least, most in (
            ("--learning-rate", self.rate, 0.0, math.inf),
            ("--momentum", self.momentum, 0.0, 0.999999),
            ("--l2", self.l2, 0.0, math.inf),
            ("--batch-size", self.batch_size, 0, math.inf),
            ("--epochs", self.epochs, 1, 10**9),
            ("--seed", self.seed, 0, 2**63 - 1),
            ("--every", 1 if self.every is None else self.every, 1, math.inf),
            ("--budget", self.budget, 1e-6, 1.0),
            ("--threads", self.threads, 0, 1024),
            ("--train-size", 1 if self.train_size is None else self.train_size, 1, math.inf),
            ("--point", self.point, -1e6, 1e6),
        ):
            if not least <= number <= most or math.isinf(number):
                limits = f"from {least:g} to {most:g}" if math.isfinite(most) else f"a finite number from {least:g} on"
                raise UsageError(f"{flag} {number:g}: give {limits}")
        if self.parameters > MOST_PARAMETERS:
            raise UsageError(f"--hidden: {self.parameters:,} weights and biases, at most {MOST_PARAMETERS:,} are taken")
        available = TRAINING_IMAGES.get(self.data)
        if self.train_size is not None and available is not None and self.train_size > available:
            raise UsageError(f"--train-size {self.train_size:,}: {self.data} has {available:,} training images")
        if self.init == "chain" and (self.data != "point" or set(self.hidden) - {1} or self.activation != "sigmoid"):
            raise UsageError(
                "--init chain is for sigmoid neurons one a layer: take --data point and --hidden 1x5 with it"
            )
        if self.data == "point" and self.cost == "softmax":
            raise UsageError("--cost softmax needs several classes: --data point has one output")

    @property
    def rate(self) -> float:
        """η, the given one or the activation's own."""
        return LEARNING_RATES[self.activation] if self.learning_rate is None else self.learning_rate

    @property
    def inputs(self) -> int:
        """Numbers that go in."""
        return {"digits": 64, "mnist": 784, "point": 1}[self.data]

    @property
    def outputs(self) -> int:
        """Numbers that come out."""
        return 1 if self.data == "point" else 10

    @property
    def parameters(self) -> int:
        """Weights and biases of the net."""
        sizes = (self.inputs, *self.hidden, self.outputs)
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))

    @property
    def title(self) -> str:
        """A short name, e.g. `digits-sigmoid-4`."""
        return self.name or f"{self.data}-{self.activation}-{len(self.hidden)}"

    @property
    def shape(self) -> str:
        """The net in a few characters, e.g. `64-30×4-10`."""
        groups: list[tuple[int, int]] = []
        for units in self.hidden:
            if groups and groups[-1][0] == units:
                groups[-1] = (units, groups[-1][1] + 1)
            else:
                groups.append((units, 1))
        middle = [f"{units}×{times}" if times > 1 else str(units) for units, times in groups]
        return "-".join([str(self.inputs), *middle, str(self.outputs)])

    @property
    def summary(self) -> str:
        """The recipe in one line."""
        batch = f"batch {self.batch_size}" if self.batch_size else "full batch"
        decay = f", λ {self.l2:g}" if self.l2 else ""
        return (
            f"{self.shape} {self.activation}, {self.init} weights, {self.cost}, η {self.rate:g}{decay}, {batch}, "
            f"{self.epochs} epochs on {self.data}"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "hidden": list(self.hidden)}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_json` gave; raises `UsageError` for what it does not know."""
        unknown = set(facts) - {field.name for field in fields(cls)}
        if unknown:
            raise UsageError(f"a recipe has no {', '.join(sorted(map(repr, unknown)))}: is it from a newer gradtui?")
        for field in fields(cls):
            value = facts.get(field.name, field.default)
            units = value if isinstance(value, (tuple, list)) else ()
            fits = any(isinstance(value, _KINDS[kind]) for kind in str(field.type).split(" | "))
            if not fits or isinstance(value, bool) or any(type(unit) is not int for unit in units):
                raise UsageError(f"a recipe cannot have {value!r} as its {field.name}: {field.type} is wanted")
        try:
            return cls(**{**facts, "hidden": tuple(facts.get("hidden", cls.hidden))})
        except OverflowError as error:  # JSON's whole numbers have no limit, floats have
            raise UsageError(f"a recipe holds a number that is too large: {error}") from error

    def but(self, **changes: Any) -> Recipe:
        """The same with some things changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Experiment:
    """A recipe with a name, and what to look at in it."""

    title: str
    look: str
    recipe: Recipe


_DEEP = Recipe(hidden=(30,) * 8, epochs=1000)
EXPERIMENTS = {
    "vanishing": Experiment(
        "Vanishing gradient",
        "Eight hidden layers of sigmoids on digits. Each layer on the way back multiplies the gradient by a small "
        "slope, so the first layer learns tens of thousands of times slower than the last: its bar hardly shows.",
        _DEEP.but(name="vanishing"),
    ),
    "tanh": Experiment(
        "The same with tanh",
        "The same net with tanh, Xavier's weights and a rate of its own. The slope of tanh reaches 1: the bars "
        "level out, and the net learns.",
        _DEEP.but(activation="tanh", init="xavier", cost="softmax", learning_rate=0.02, momentum=0.9, name="tanh"),
    ),
    "relu": Experiment(
        "The same with ReLU",
        "The same net with ReLU and He's weights. Where a unit is on, the gradient passes unchanged: all layers learn "
        "at about the same speed.",
        _DEEP.but(activation="relu", init="he", cost="softmax", learning_rate=0.01, momentum=0.9, name="relu"),
    ),
    "exploding": Experiment(
        "Exploding gradient",
        "A chain of single neurons with weights of 100, biased so that each sits where the sigmoid is steepest: the "
        "gradient grows 25-fold with each layer towards the input. The rate is 0 so that the picture stands still; "
        "--learning-rate 1e-6 lets it blow up.",
        Recipe(
            data="point", hidden=(1,) * 6, init="chain", cost="quadratic", learning_rate=0.0,
            batch_size=0, epochs=100_000, every=1, name="exploding",
        ),
    ),
    "nielsen": Experiment(
        "The book's measurement",
        "Chapter 5 of Nielsen's book: 1,000 images of MNIST, full-batch descent, every layer's speed over 500 epochs. "
        "Each layer starts about five times slower than the next. Needs MNIST.",
        Recipe(
            data="mnist", train_size=1000, hidden=(30, 30), learning_rate=0.1, l2=5.0, batch_size=0, epochs=500,
            name="nielsen",
        ),
    ),
    "mnist": Experiment(
        "The book's training",
        "Chapter 5 again, trained for real: 50,000 images, batches of 10, 30 epochs. A deeper net does no better: "
        "its first layers have hardly learnt. Needs MNIST.",
        Recipe(data="mnist", hidden=(30, 30, 30), learning_rate=0.1, l2=5.0, epochs=30, name="mnist"),
    ),
}  # fmt: skip
