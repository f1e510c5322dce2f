"""The fields of a recipe, in the one table that flags, form, checks, JSON and summary are made of.

Standard library only. A remedy that is a number stands beside its field; one that is a choice stands in
`gradtui.remedies`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradtui.lab.data_sets import DATA
from gradtui.lab.field import choice, number, remedies_of
from gradtui.lab.layer_kinds import pretraining_kinds
from gradtui.remedies import Remedy

# the titles of the groups of flags
GROUPS = {
    "data": "data",
    "net": "net",
    "descent": "gradient descent",
    "bounds": "bounds and decay",
    "recording": "recording",
}
RECURRENT = ("rnn", "lstm", "gru")
MOST_UNITS = 1_000_000
# η at which four hidden layers of 30 learn the digits without momentum; sigmoid's is the book's, and shows the plateau
# that vanishing gradients make before the net gets going
_RATES = {"sigmoid": 0.1, "tanh": 0.05}
_OTHER_RATE = 0.02
_ADAPTIVE_RATES = {"adagrad": 0.01, "adadelta": 1.0, "rmsprop": 0.001, "adam": 0.001, "adamw": 0.001}
_RECURRENT_RATE = 0.1


# fmt: off
@dataclass(frozen=True)
class RecipeFields:
    """What defines a training, and what follows from it; `Recipe` checks it."""

    data: str = choice("digits", "data", lambda: DATA, is_extra=False)
    data_dir: str | None = number(
        None, "data", "the folder with MNIST's IDX files, plain or .gz", default_words="$GRADTUI_DATA",
        metavar="FOLDER", is_extra=False)
    train_size: int | None = number(
        None, "data", "use only the first N training images", least=1, most=10**9, is_extra=False)
    input_scale: str = choice("unit", "data", remedies_of("input_scale"))
    length: int = number(
        50, "data", "time steps of the adding problem", least=2, most=10_000, metavar="T",
        offered=("10", "20", "50", "100", "200"), is_extra=False)
    point: float = number(0.5, "data", "the input of --data point", least=-1e6, most=1e6, is_extra=False)

    net: str = choice("plain", "net", remedies_of("net"), is_extra=False)
    hidden: tuple[int, ...] = number(
        (30, 30, 30, 30), "net", "units of each hidden layer, e.g. 30,30,30,30 or 30x4",  # type: ignore[arg-type]
        Remedy("narrower", "regularisation", "half as many units in each hidden layer",
               "fewer weights to fit noise with; the depth, and its gradient, stay", "—", scales={"width": 0.5}),
        Remedy("shallower", "regularisation", "half as many hidden layers", "the gradient has half the way to go", "—",
               scales={"depth": 0.5}),
        default_words="30x4", metavar="UNITS", offered=("30x2", "30x4", "30x8", "30x10", "64x8", "100x3"),
        is_extra=False)
    activation: str = choice("sigmoid", "net", remedies_of("activation"), is_extra=False)
    slope: float | None = number(
        None, "net", "of leaky-relu, or what prelu starts from", default_words="their papers', 0.01 and 0.25",
        metavar="A", least=-1.0, most=1.0, offered=("", "0.01", "0.1", "0.25"),
        only_with=("activation", ("leaky-relu", "prelu")))
    init: str = choice("scaled", "net", remedies_of("init"), is_extra=False)
    sigma: float | None = number(
        None, "net", "σ of --init normal", default_words="1", metavar="σ", least=0.0, most=1e6,
        offered=("", "0.01", "0.1", "1", "2"), only_with=("init", ("normal",)))
    norm: str = choice("none", "net", remedies_of("norm", none=True))
    dropout: float = number(
        0.0, "net", "share of hidden units left out while training",
        Remedy("dropout", "regularisation", "units left out at random while training",
               "no unit can lean on another; it does not help a gradient", "Srivastava et al. 2014", {"dropout": 0.2}),
        metavar="P", least=0.0, most=0.95, offered=("0", "0.1", "0.2", "0.5"))
    rank: int = number(
        0, "net", "rank of factorised hidden layers; 0: none is factorised",
        Remedy("low-rank", "regularisation", "each weight matrix a product of two thin ones",
               "fewer weights at the same width", "Sainath et al. 2013", {"rank": 8}),
        metavar="R", least=0, most=MOST_UNITS, offered=("0", "4", "8", "16"))
    forget_bias: float | None = number(
        None, "net", "first bias of the forget gates of --net lstm", default_words="0", metavar="B", least=-100.0,
        most=100.0, offered=("", "1", "3", "5"), only_with=("net", ("lstm",)))
    pretrain: str = choice("none", "net", pretraining_kinds)
    pretrain_epochs: int = number(
        30, "net", "epochs of pretraining for each layer", least=1, most=10**6, offered=("5", "10", "30", "100"))
    dtype: str = choice(
        "float32", "net", lambda: {"float32": None, "float64": None}, help="number format", is_in_form=False,
        is_extra=False)

    cost: str = choice("cross-entropy", "descent", remedies_of("cost"), is_extra=False)
    label_smoothing: float = number(
        0.0, "descent", "share of each label spread evenly over the classes, of --cost softmax",
        Remedy("label-smoothing", "loss", "a share of each label spread evenly over the classes",
               "the logits of the right class need not grow without end", "Szegedy et al. 2016, sec. 7",
               {"label_smoothing": 0.1, "cost": "softmax"}),
        metavar="ε", least=0.0, most=0.99, offered=("0", "0.05", "0.1", "0.2"), only_with=("cost", ("softmax",)),
        is_later=True)
    optimizer: str = choice("sgd", "descent", remedies_of("optimizer"))
    learning_rate: float | None = number(
        None, "descent", "η",
        default_words="0.1 for sigmoid and recurrent nets, 0.05 for tanh, 0.02 for others, times 1 − momentum; 0.001"
        " for adam, adamw and rmsprop, 0.01 for adagrad, 1 for adadelta",
        aliases=("--lr",), metavar="η", least=0.0,
        offered=("", *(f"{digit * 10.0**power:g}" for power in range(-4, 1) for digit in (1, 3))), is_extra=False)
    momentum: float = number(
        0.0, "descent", "share of the last step that is kept",
        Remedy("momentum", "optimizer", "SGD that keeps a share of its last step",
               "steps add up along a slope that stays", "Polyak 1964", {"momentum": 0.9, "optimizer": "sgd"}),
        metavar="μ", least=0.0, most=0.999999, offered=("0", "0.5", "0.9", "0.99"))
    schedule: str = choice("constant", "descent", remedies_of("schedule"))
    warmup: int = number(
        0, "descent", "steps over which the rate grows from 0",
        Remedy("warm-up", "optimizer", "a rate that grows from 0 over the first steps",
               "keeps the first, largest gradients from doing harm", "Goyal et al. 2017", {"warmup": 100}),
        least=0, most=10**9, offered=("0", "100", "500"))
    batch_size: int = number(
        10, "descent", "images a step; 0: all at once", least=0, offered=("0", "10", "20", "50", "100"),
        is_extra=False)
    epochs: int = number(
        300, "descent", "passes over the training images", default_words="300; 8 on MNIST", least=1, most=10**9,
        offered=("10", "30", "60", "100", "300", "1000"), is_extra=False)
    patience: int = number(
        0, "descent", "evaluations without a better validation before training stops; 0: never",
        Remedy("early-stopping", "regularisation", "stop when the validation has not improved for so long",
               "keeps the weights of the best epoch", "Prechelt 1998", {"patience": 10}),
        least=0, most=10**9, offered=("0", "5", "10", "20"))
    seed: int = number(
        0, "descent", "of weights and shuffling: the same seed gives the same run", least=0, most=2**63 - 1,
        offered=("0", "1", "2", "3", "4"), is_extra=False)

    clip_norm: float = number(
        0.0, "bounds", "largest length of the gradient, which is scaled down to it; 0: off",
        Remedy("clip-norm", "gradient", "the whole gradient scaled down to a length",
               "a cliff cannot throw the weights far away", "Pascanu et al. 2013", {"clip_norm": 1.0}),
        metavar="C", least=0.0, offered=("0", "0.1", "1", "10"))
    clip_value: float = number(
        0.0, "bounds", "bound on each component of the gradient; 0: off",
        Remedy("clip-value", "gradient", "each component of the gradient bounded",
               "as clipping the norm, but changes the direction", "Mikolov 2012", {"clip_value": 0.1}),
        metavar="C", least=0.0, offered=("0", "0.01", "0.1", "1"))
    agc: float = number(
        0.0, "bounds", "bound on a unit's gradient, as a share of its weights' length, e.g. 0.01; 0: off",
        Remedy("agc", "gradient", "a unit's gradient bounded by a share of its weights' length",
               "each unit's step stays in proportion, without BatchNorm", "Brock et al. 2021", {"agc": 0.01}),
        metavar="λ", least=0.0, offered=("0", "0.01", "0.1"))
    l1: float = number(
        0.0, "bounds", "λ of a penalty λ/n·|w|, n training images; 0: off",
        Remedy("l1", "weights", "a penalty λ/n·|w|", "drives weights that are not needed to 0", "Tibshirani 1996",
               {"l1": 0.1}),
        metavar="λ", least=0.0, offered=("0", "0.01", "0.1", "1"))
    l2: float = number(
        0.0, "bounds", "λ of a penalty λ/2n·w² in the gradient, n training images; 0: off",
        Remedy("l2", "weights", "a penalty λ/2n·w², in the gradient", "small weights keep units out of saturation",
               "Nielsen 2015, ch. 3", {"l2": 1.0}),
        metavar="λ", least=0.0, offered=("0", "0.1", "1", "5"))
    decay: float = number(
        0.0, "bounds", "λ: weights shrink by 1 − ηλ a step, outside of the gradient, as AdamW's; 0: off",
        Remedy("weight-decay", "weights", "weights shrink by 1 − ηλ a step, outside of the gradient",
               "decays alike under any optimizer", "Loshchilov & Hutter 2019", {"decay": 0.01}),
        metavar="λ", least=0.0, offered=("0", "0.001", "0.01", "0.1"))
    max_norm: float = number(
        0.0, "bounds", "largest length of a unit's incoming weights, e.g. 3; 0: off",
        Remedy("max-norm", "weights", "the length of a unit's incoming weights bounded",
               "lets large learning rates explore without blowing up", "Srivastava et al. 2014", {"max_norm": 3.0}),
        metavar="C", least=0.0, offered=("0", "1", "3", "4"))
    weight_clip: float = number(
        0.0, "bounds", "each weight is kept within ± this; 0: off",
        Remedy("weight-clip", "weights", "each weight bounded after each step",
               "bounds how much a layer can amplify, gradients included", "Arjovsky et al. 2017", {"weight_clip": 0.5}),
        metavar="C", least=0.0, offered=("0", "0.01", "0.1", "0.5"))

    every: int | None = number(1, "recording", "record each N steps", least=1, is_extra=False)
    budget: float = number(
        0.01, "recording", "record within this share of the time instead of by --every", metavar="SHARE",
        least=1e-6, most=1.0, is_extra=False)
    threads: int = number(
        1, "recording", "threads of torch; 1 is fastest for small nets, and gives the same run on any number of cores",
        least=1, most=1024, is_extra=False)
    name: str | None = number(
        None, "", "what the run is called", default_words="from data, activation and depth", is_extra=False)
    # fmt: on

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
        return self.net in RECURRENT

    @property
    def inputs(self) -> int:
        """Numbers that go in; of a recurrent net, at each time step: an image is read row by row."""
        return DATA[self.data].columns if self.recurrent else DATA[self.data].inputs

    @property
    def time_steps(self) -> int:
        """Time steps of a recurrent net."""
        return self.length if self.data == "adding" else DATA[self.data].inputs // DATA[self.data].columns

    @property
    def outputs(self) -> int:
        """Numbers that come out."""
        return DATA[self.data].outputs

    @property
    def images(self) -> int:
        """Training images, or sequences an epoch."""
        return self.train_size or DATA[self.data].images

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
