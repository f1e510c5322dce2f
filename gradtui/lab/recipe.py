"""Recipes: everything that defines a built-in training.

Standard library only: the command line and the terminal UI read this without loading torch. What the choices are and
where they come from stands in `remedies`, what goes with what in `recipe_checks`, the named recipes in `experiments`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from gradtui.errors import UsageError
from gradtui.lab import recipe_checks, size
from gradtui.remedies import find

# η at which four hidden layers of 30 learn the digits without momentum; sigmoid's is the book's, and shows the plateau
# that vanishing gradients make before the net gets going
_RATES = {"sigmoid": 0.1, "tanh": 0.05}
_OTHER_RATE = 0.02
_ADAPTIVE_RATES = {"adagrad": 0.01, "adadelta": 1.0, "rmsprop": 0.001, "adam": 0.001, "adamw": 0.001}
_RECURRENT_RATE = 0.1
# what a field of a recipe may hold, by the words of its annotation
_KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str, "int": int, "float": (int, float), "tuple[int, ...]": (tuple, list), "None": type(None),
}  # fmt: skip
_LABELS = ("name",)  # fields that change nothing in the training


@dataclass(frozen=True)
class Recipe:
    """A training. Raises `UsageError` for values that do not exist or do not fit together.

    Choices (`activation`, `init`, `net`, `cost`, `optimizer`, …) are named in `remedies`; data in `recipe_checks.DATA`.

    Attributes:
        data: `data_dir` holds MNIST's files (None: `$GRADTUI_DATA`).
        train_size: training images taken, from the first; sequences an epoch for `adding`; None takes all.
        input_scale: what the pixels are scaled to.
        length: T, the steps of a sequence of the data set `adding`.
        point: the input of the data set `point`.
        hidden: units of each hidden layer.
        slope: of leaky-relu, or what prelu starts from; None takes their papers'.
        sigma: σ of the initialisation `normal`; None is 1.
        norm: normalisation in each hidden layer; `none` without.
        forget_bias: what an LSTM's forget gates start with; None is 0.
        rank: of low-rank hidden layers; 0 leaves them whole.
        dropout: share of the hidden units that is left out.
        learning_rate: η; None takes the recipe's own, see `rate`.
        warmup: steps over which the rate grows from 0.
        l1, l2: λ/n of the book, n training images: added to the gradient of the weights; biases do not decay.
        decay: weights shrink by 1 − η·decay each step, whatever the optimizer.
        clip_norm, clip_value, agc, max_norm, weight_clip: bounds; 0 is none.
        patience: evaluations without a better validation after which training stops; 0 never stops early.
        pretrain: how the layers are pretrained, `pretrain_epochs` each; `none` without.
        batch_size: images a step; 0 takes all of them (full-batch descent).
        every: record each so many steps; None keeps within `budget`, a share of the time.
        threads: of torch. One gives the same run, bit for bit, on any number of cores.
    """

    data: str = "digits"
    data_dir: str | None = None
    train_size: int | None = None
    input_scale: str = "unit"
    length: int = 50
    point: float = 0.5
    net: str = "plain"
    hidden: tuple[int, ...] = (30, 30, 30, 30)
    activation: str = "sigmoid"
    slope: float | None = None
    init: str = "scaled"
    sigma: float | None = None
    norm: str = "none"
    forget_bias: float | None = None
    rank: int = 0
    dropout: float = 0.0
    cost: str = "cross-entropy"
    optimizer: str = "sgd"
    learning_rate: float | None = None
    momentum: float = 0.0
    schedule: str = "constant"
    warmup: int = 0
    l1: float = 0.0
    l2: float = 0.0
    decay: float = 0.0
    clip_norm: float = 0.0
    clip_value: float = 0.0
    agc: float = 0.0
    max_norm: float = 0.0
    weight_clip: float = 0.0
    patience: int = 0
    pretrain: str = "none"
    pretrain_epochs: int = 30
    batch_size: int = 10
    epochs: int = 300
    seed: int = 0
    dtype: str = "float32"
    every: int | None = 1
    budget: float = 0.01
    threads: int = 1
    name: str | None = None

    def __post_init__(self) -> None:
        recipe_checks.check(self)

    @property
    def rate(self) -> float:
        """η: the given one, or what suits the optimizer, the activation and the momentum."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.optimizer in _ADAPTIVE_RATES:
            return _ADAPTIVE_RATES[self.optimizer]
        rate = _RECURRENT_RATE if self.recurrent else _RATES.get(self.activation, _OTHER_RATE)
        # steps add up to 1/(1 − μ) of one
        return round(rate * (1 - self.momentum), 12)

    @property
    def recurrent(self) -> bool:
        """Whether the net reads a sequence."""
        return self.net in recipe_checks.RECURRENT

    @property
    def inputs(self) -> int:
        """Numbers that go in; of a recurrent net, at each time step: an image is read row by row."""
        pixels = recipe_checks.DATA[self.data].inputs
        return recipe_checks.DATA[self.data].columns if self.recurrent else pixels

    @property
    def time_steps(self) -> int:
        """Time steps of a recurrent net."""
        return (
            self.length
            if self.data == "adding"
            else recipe_checks.DATA[self.data].inputs // recipe_checks.DATA[self.data].columns
        )

    @property
    def outputs(self) -> int:
        """Numbers that come out."""
        return recipe_checks.DATA[self.data].outputs

    @property
    def images(self) -> int:
        """Training images, or sequences an epoch."""
        return self.train_size or recipe_checks.DATA[self.data].images

    @property
    def steps_an_epoch(self) -> int:
        """Steps of the optimizer in an epoch."""
        return -(-self.images // (self.batch_size or self.images))

    @property
    def pretraining_steps(self) -> int:
        """Steps of the optimizers that pretrain the layers, one after the other."""
        return 0 if self.pretrain == "none" else self.steps_an_epoch * self.pretrain_epochs * len(self.hidden)

    @property
    def total_steps(self) -> int:
        """Steps of all optimizers, from the first to the last."""
        return self.pretraining_steps + self.steps_an_epoch * self.epochs

    @property
    def parameters(self) -> int:
        """Numbers that the net learns."""
        return size.parameters(self)

    @property
    def title(self) -> str:
        """A short name, e.g. `digits-sigmoid-4`, `digits-residual-relu-20`, `adding-lstm-1`."""
        if self.name:
            return self.name
        kind = self.net if self.net in ("lstm", "gru") else f"{self.net}-{self.activation}".removeprefix("plain-")
        return f"{self.data}-{kind}-{len(self.hidden)}"

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
        default = {field.name: field.default for field in fields(Recipe)}
        told = ("data", "hidden", "activation", "init", "cost", "learning_rate", "batch_size", "epochs", "seed", "name")
        untold = {*told, "data_dir", "dtype", "every", "budget", "threads", "train_size", "point", "length", "net"}
        extras = [
            f"{field.name.replace('_', ' ')} {_short(getattr(self, field.name))}"
            for field in fields(self)
            if field.name not in untold and getattr(self, field.name) != default[field.name]
        ]
        net = self.net if self.net in ("lstm", "gru") else f"{self.net} {self.activation}".removeprefix("plain ")
        batch = f"batch {self.batch_size}" if self.batch_size else "full batch"
        of = f"{self.time_steps} time steps of {self.data}" if self.recurrent else self.data
        parts = [f"{self.shape} {net}", f"{self.init} weights", self.cost, f"η {self.rate:g}", *extras, batch]
        return ", ".join(parts) + f", {self.epochs:,} epochs on {of}"

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

    def same_training(self) -> str:
        """A text that two recipes share exactly if they train the same net in the same way and are recorded alike."""
        return json.dumps({k: v for k, v in sorted(self.to_json().items()) if k not in _LABELS})

    def but(self, **changes: Any) -> Recipe:
        """The same with some things changed."""
        return replace(self, **changes)

    def with_remedies(self, *names: str) -> Recipe:
        """The same with remedies of the table, e.g. `recipe.with_remedies("relu", "he")`.

        What would then be left over of the choices before goes: Xavier's weights do not need a σ. Raises `UsageError`
        for a name that is not in the table.
        """
        changes: dict[str, Any] = {}
        times = 1.0
        for name in names:
            remedy = find(name)
            if not remedy.is_for_recipes:
                raise UsageError(f"the remedy {name} is for training code of your own: no recipe can take it")
            unknown = set(remedy.changes) - {field.name for field in fields(Recipe)}
            unknown |= set(remedy.scales) - {"learning_rate", "width", "depth"}
            if unknown:
                raise UsageError(f"the remedy {name} changes {', '.join(sorted(unknown))}, which no recipe has")
            changes |= remedy.changes
            hidden = changes.get("hidden", self.hidden)
            if "width" in remedy.scales:
                changes["hidden"] = tuple(max(1, int(units * remedy.scales["width"])) for units in hidden)
            if "depth" in remedy.scales:
                changes["hidden"] = hidden[: max(1, int(len(hidden) * remedy.scales["depth"]))]
            times *= remedy.scales.get("learning_rate", 1.0)
        recipe = self.adapted(changes)
        return recipe if times == 1 else recipe.but(learning_rate=float(f"{recipe.rate * times:.6g}"))

    def adapted(self, changes: Mapping[str, Any]) -> Recipe:
        """As `but`; whatever only belonged to a choice that goes (a slope, a σ, a rate of its own) goes with it."""
        return self.but(**{**recipe_checks.left_over(self, changes), **changes})


def safe(label: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[^\w.+-]+", "-", label).strip("-.")[:60] or "recipe"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
