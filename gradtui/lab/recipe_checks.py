"""What a recipe may hold, and what goes with what: each combination is built sensibly or refused in one line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradtui.errors import UsageError
from gradtui.remedies import choices

if TYPE_CHECKING:
    from gradtui.lab.recipe import Recipe


@dataclass(frozen=True)
class Data:
    """A data set: `inputs` numbers an image, in rows of `columns`; `images` are there for training."""

    what: str
    why: str
    source: str
    inputs: int
    columns: int
    outputs: int
    images: int


DATA = {
    "digits": Data("1,797 images of 8×8 pixels, bundled", "trains in seconds", "Alpaydin & Kaynak 1998 (UCI)",
                   64, 8, 10, 1_200),
    "mnist": Data("70,000 images of 28×28 pixels, from IDX files", "the book's own data", "LeCun et al. 1998",
                  784, 28, 10, 50_000),
    "point": Data("one input of one number", "for chains of single neurons", "Nielsen 2015, ch. 5", 1, 1, 1, 1),
    "adding": Data("two marked numbers of a sequence of --length, to be added", "asks for memory",
                   "Hochreiter & Schmidhuber 1997, sec. 5.4", 2, 2, 1, 2_000),
}  # fmt: skip
DTYPES = ("float32", "float64")
RECURRENT = ("rnn", "lstm", "gru")
MOST_UNITS = 1_000_000
MOST_PARAMETERS = 200_000_000  # 0.8 GB of weights and as much of gradients: more than a lesson on a CPU needs
_WITH_MOMENTUM = ("sgd", "nesterov", "rmsprop")
_NONE = ("none",)
_ENCODERS = ("sigmoid", "tanh", "relu")


def check(recipe: Recipe) -> None:
    """Raise `UsageError`, one line, for the first thing that is out of range or makes no sense."""
    _check_choices(recipe)
    _check_numbers(recipe)
    problem = next(_clashes(recipe), None)
    if problem is not None:
        raise UsageError(problem)
    if recipe.parameters > MOST_PARAMETERS:
        raise UsageError(f"--hidden: {recipe.parameters:,} weights and biases, at most {MOST_PARAMETERS:,} are taken")


def left_over(recipe: Recipe, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes that belong to `changes`: what only made sense with the choice that goes."""
    after: dict[str, Any] = {}

    def changed(field: str) -> bool:
        return field in changes and changes[field] != getattr(recipe, field)

    if changed("activation"):
        after |= {"slope": None}
    if changed("init"):
        after |= {"sigma": None}
    if changed("net"):
        after |= {"forget_bias": None}
        if changes["net"] in ("lstm", "gru"):
            after |= {"activation": "tanh"}
    if changed("optimizer") and changes["optimizer"] not in _WITH_MOMENTUM:
        after |= {"momentum": 0.0}
    if any(changed(field) for field in ("activation", "optimizer", "momentum", "net")):
        after |= {"learning_rate": None}
    return after


def _check_choices(recipe: Recipe) -> None:
    for flag, value, offered in (
        ("--data", recipe.data, DATA),
        ("--net", recipe.net, choices("net")),
        ("--activation", recipe.activation, choices("activation")),
        ("--init", recipe.init, choices("init")),
        ("--norm", recipe.norm, (*_NONE, *choices("norm"))),
        ("--input-scale", recipe.input_scale, choices("input_scale")),
        ("--cost", recipe.cost, choices("cost")),
        ("--optimizer", recipe.optimizer, choices("optimizer")),
        ("--schedule", recipe.schedule, choices("schedule")),
        ("--pretrain", recipe.pretrain, (*_NONE, *choices("pretrain"))),
        ("--dtype", recipe.dtype, DTYPES),
    ):
        if value not in offered:
            raise UsageError(f"{flag} {value!r}: choose one of {', '.join(offered)}")


def _check_numbers(recipe: Recipe) -> None:
    if any(units < 1 for units in recipe.hidden) or sum(recipe.hidden) > MOST_UNITS:
        raise UsageError(f"--hidden: each layer needs at least one unit, all together at most {MOST_UNITS:,}")
    for flag, number, least, most in (
        ("--learning-rate", recipe.rate, 0.0, math.inf),
        ("--momentum", recipe.momentum, 0.0, 0.999999),
        ("--warmup", recipe.warmup, 0, 10**9),
        ("--l1", recipe.l1, 0.0, math.inf),
        ("--l2", recipe.l2, 0.0, math.inf),
        ("--decay", recipe.decay, 0.0, math.inf),
        ("--clip-norm", recipe.clip_norm, 0.0, math.inf),
        ("--clip-value", recipe.clip_value, 0.0, math.inf),
        ("--agc", recipe.agc, 0.0, math.inf),
        ("--max-norm", recipe.max_norm, 0.0, math.inf),
        ("--weight-clip", recipe.weight_clip, 0.0, math.inf),
        ("--dropout", recipe.dropout, 0.0, 0.95),
        ("--rank", recipe.rank, 0, MOST_UNITS),
        ("--patience", recipe.patience, 0, 10**9),
        ("--pretrain-epochs", recipe.pretrain_epochs, 1, 10**6),
        ("--slope", recipe.slope or 0.0, -1.0, 1.0),
        ("--sigma", 1.0 if recipe.sigma is None else recipe.sigma, 0.0, 1e6),
        ("--forget-bias", recipe.forget_bias or 0.0, -100.0, 100.0),
        ("--length", recipe.length, 2, 10_000),
        ("--batch-size", recipe.batch_size, 0, math.inf),
        ("--epochs", recipe.epochs, 1, 10**9),
        ("--seed", recipe.seed, 0, 2**63 - 1),
        ("--every", 1 if recipe.every is None else recipe.every, 1, math.inf),
        ("--budget", recipe.budget, 1e-6, 1.0),
        ("--threads", recipe.threads, 1, 1024),
        ("--train-size", 1 if recipe.train_size is None else recipe.train_size, 1, 10**9),
        ("--point", recipe.point, -1e6, 1e6),
    ):
        if not least <= number <= most or math.isinf(number):
            limits = f"from {least:g} to {most:g}" if math.isfinite(most) else f"a finite number from {least:g} on"
            raise UsageError(f"{flag} {number:g}: give {limits}")


def _clashes(r: Recipe) -> Iterator[str]:
    """One line for each thing that does not go together."""
    yield from _clashes_of_data(r)
    yield from _clashes_of_net(r)
    yield from _clashes_of_descent(r)


def _clashes_of_data(r: Recipe) -> Iterator[str]:
    available = DATA[r.data].images
    if r.train_size is not None and r.data != "adding" and r.train_size > available:
        yield f"--train-size {r.train_size:,}: {r.data} has {available:,} training images"
    if r.data == "adding" and not r.recurrent:
        yield f"--data adding is a sequence: take --net rnn, lstm or gru with it, not {r.net}"
    if r.data == "adding" and r.cost != "squared":
        yield f"--data adding asks for a number, not a class: take --cost squared with it, not {r.cost}"
    if r.data != "adding" and r.cost == "squared":
        yield f"--cost squared is for numbers: {r.data} has classes, take --cost softmax or quadratic"
    if r.data == "point" and r.recurrent:
        yield f"--net {r.net} reads a sequence: --data point is a single number"
    if r.data == "point" and r.cost.startswith("softmax"):
        yield f"--cost {r.cost} needs several classes: --data point has one output"
    if r.data in ("point", "adding") and r.input_scale != "unit":
        yield f"--input-scale {r.input_scale} is for images: take it with --data digits or mnist"
    if r.data == "point" and r.patience:
        yield "--patience watches the validation: --data point has none"


def _clashes_of_net(r: Recipe) -> Iterator[str]:
    if r.recurrent and not r.hidden:
        yield f"--net {r.net} needs a hidden layer: give --hidden"
    if r.net in ("residual", "highway", "dense") and len(r.hidden) < 2:
        yield f"--net {r.net} leads around layers after the first: give at least two by --hidden"
    if r.net in ("lstm", "gru") and r.activation != "tanh":
        yield f"--net {r.net} has activations of its own: leave --activation at tanh with it"
    if r.net == "rnn" and r.activation not in ("tanh", "relu", "sigmoid"):
        yield f"--net rnn takes --activation tanh, relu or sigmoid, not {r.activation}"
    for flag, given, why in (
        ("--norm", r.norm != "none", "it would mix time steps: take --clip-norm or --net lstm"),
        ("--rank", r.rank, "its matrices stay whole"),
        ("--max-norm", r.max_norm, "its units have weights of several gates and times: take --weight-clip"),
        ("--pretrain", r.pretrain != "none", "layers are pretrained in feed-forward nets"),
        ("--init lsuv", r.init == "lsuv", "outputs of variance 1 are asked of layers, not of time steps"),
    ):
        if r.recurrent and given:
            yield f"{flag} is not for --net {r.net}: {why}"
    if r.forget_bias is not None and r.net != "lstm":
        yield f"--forget-bias is for --net lstm: {r.net} has no forget gate"
    if r.slope is not None and r.activation not in ("leaky-relu", "prelu"):
        yield f"--slope is for --activation leaky-relu and prelu: {r.activation} has none to set"
    if r.sigma is not None and r.init != "normal":
        yield f"--sigma is for --init normal: {r.init} chooses its own"
    if r.init == "identity" and r.net != "rnn":
        yield f"--init identity starts the recurrent weights of --net rnn with I: {r.net} has none such"
    if r.init == "lsuv" and r.data == "point":
        yield "--init lsuv needs outputs that vary: --data point is a single image"
    chain = r.data == "point" and not set(r.hidden) - {1} and r.activation == "sigmoid" and r.net == "plain"
    if r.init == "chain" and not (chain and r.norm == "none" and not r.rank):
        yield "--init chain is for sigmoid neurons one a layer: take --data point and --hidden 1x5 with it"
    if r.pretrain != "none":
        yield from _clashes_of_pretraining(r)
    yield from _clashes_of_norm(r)


def _clashes_of_pretraining(r: Recipe) -> Iterator[str]:
    named = f"--pretrain {r.pretrain}"
    if r.net != "plain" or r.norm != "none" or r.rank:
        yield f"{named} is for plain layers: leave --net, --norm and --rank as they are"
    if r.data == "point":
        yield f"{named} needs images: take --data digits or mnist"
    if not r.hidden:
        yield f"{named} needs a hidden layer: give --hidden"
    if r.pretrain == "rbm" and r.activation != "sigmoid":
        yield f"{named} makes sigmoid units: take --activation sigmoid with it, not {r.activation}"
    if r.activation not in _ENCODERS:
        yield f"{named} takes --activation {', '.join(_ENCODERS)}, not {r.activation}"
    if r.input_scale != "unit":
        yield f"{named} reads pixels as probabilities: leave --input-scale at unit"
    if r.dtype != "float32":
        yield f"{named} is done in float32: leave --dtype as it is"


def _clashes_of_norm(r: Recipe) -> Iterator[str]:
    batch = min(r.batch_size or r.images, r.images)
    if r.norm == "batch" and 1 in (batch, r.images % batch):
        size = f"of {r.images:,} images, the last batch" if batch > 1 else "a batch"
        yield f"--norm batch needs two images or more: {size} has 1; change --batch-size"
    if r.norm in ("layer", "rms") and 1 in r.hidden:
        yield f"--norm {r.norm} needs two units or more in each hidden layer: of one it leaves a constant"


def _clashes_of_descent(r: Recipe) -> Iterator[str]:
    if r.optimizer == "nesterov" and not r.momentum:
        yield "--optimizer nesterov needs --momentum, usually 0.9"
    if r.momentum and r.optimizer not in _WITH_MOMENTUM:
        yield f"--momentum is for --optimizer {', '.join(_WITH_MOMENTUM)}: {r.optimizer} has averages of its own"
    if r.l2 and r.optimizer == "adamw":
        yield "--l2 goes into the gradient, adamw decays outside of it: take --decay, or --optimizer adam"
    if r.warmup and r.warmup >= r.steps_an_epoch * r.epochs:
        yield f"--warmup {r.warmup:,}: the training has only {r.steps_an_epoch * r.epochs:,} steps"
    if r.decay * r.rate >= 1:
        yield f"--decay {r.decay:g} at η {r.rate:g} would take all of a weight at once: their product must be under 1"
