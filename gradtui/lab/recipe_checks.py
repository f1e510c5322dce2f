"""What goes with what in a recipe: each combination is built sensibly or refused in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gradtui.errors import UsageError
from gradtui.lab.data_sets import DATA
from gradtui.lab.field import Field, fields_of
from gradtui.lab.layer_kinds import layer_kind
from gradtui.lab.recipe_fields import MOST_UNITS, RecipeFields
from gradtui.lab.size import parameters

MOST_PARAMETERS = 200_000_000  # 0.8 GB of weights and as much of gradients: more than a lesson on a CPU needs
_WITH_MOMENTUM = ("sgd", "nesterov", "rmsprop")


def check(recipe: RecipeFields) -> None:
    """Raise `UsageError`, one line, for the first thing that is out of range or makes no sense."""
    if any(units < 1 for units in recipe.hidden) or sum(recipe.hidden) > MOST_UNITS:
        raise UsageError(f"--hidden: each layer needs at least one unit, all together at most {MOST_UNITS:,}")
    fields = fields_of(RecipeFields)
    for name, field in fields.items():
        field.check(getattr(recipe, name))
    for name, field in fields.items():
        _check_only_with(recipe, field, getattr(recipe, name))
    problem = next(_clashes(recipe), None)
    if problem is not None:
        raise UsageError(problem)
    count = parameters(recipe)
    if count > MOST_PARAMETERS:
        raise UsageError(f"--hidden: {count:,} weights and biases, at most {MOST_PARAMETERS:,} are taken")


def left_over(recipe: RecipeFields, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes that belong to `changes`: what only made sense with the choice that goes."""

    def changed(field: str) -> bool:
        return field in changes and changes[field] != getattr(recipe, field)

    after: dict[str, Any] = {
        name: field.default
        for name, field in fields_of(RecipeFields).items()
        if field.only_with is not None and changed(field.only_with[0])
    }
    if changed("net") and changes["net"] in ("lstm", "gru"):
        after |= {"activation": "tanh"}
    if changed("optimizer") and changes["optimizer"] not in _WITH_MOMENTUM:
        after |= {"momentum": 0.0}
    if any(changed(field) for field in ("activation", "optimizer", "momentum", "net")):
        after |= {"learning_rate": None}
    return after


def _check_only_with(recipe: RecipeFields, field: Field, value: Any) -> None:
    """Raise `UsageError` where a field is given that needs another value of another field."""
    if field.only_with is None or value == field.default:
        return
    other, wanted = field.only_with
    given = getattr(recipe, other)
    if given not in wanted:
        raise UsageError(f"{field.flag} is for --{other.replace('_', '-')} {' and '.join(wanted)}, not {given}")


def _clashes(r: RecipeFields) -> Iterator[str]:
    """One line for each thing that does not go together."""
    yield from _clashes_of_data(r)
    yield from _clashes_of_net(r)
    yield from _clashes_of_descent(r)


def _clashes_of_data(r: RecipeFields) -> Iterator[str]:
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


def _clashes_of_net(r: RecipeFields) -> Iterator[str]:
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


def _clashes_of_pretraining(r: RecipeFields) -> Iterator[str]:
    named = f"--pretrain {r.pretrain}"
    if r.net != "plain" or r.norm != "none" or r.rank:
        yield f"{named} is for plain layers: leave --net, --norm and --rank as they are"
    if r.data == "point":
        yield f"{named} needs images: take --data digits or mnist"
    if not r.hidden:
        yield f"{named} needs a hidden layer: give --hidden"
    activations = layer_kind(r.pretrain).activations
    if r.activation not in activations:
        yield f"{named} takes --activation {', '.join(activations)}, not {r.activation}"
    if r.input_scale != "unit":
        yield f"{named} reads pixels as probabilities: leave --input-scale at unit"
    if r.dtype != "float32":
        yield f"{named} is done in float32: leave --dtype as it is"


def _clashes_of_norm(r: RecipeFields) -> Iterator[str]:
    batch = min(r.batch_size or r.images, r.images)
    if r.norm == "batch" and 1 in (batch, r.images % batch):
        size = f"of {r.images:,} images, the last batch" if batch > 1 else "a batch"
        yield f"--norm batch needs two images or more: {size} has 1; change --batch-size"
    if r.norm in ("layer", "rms") and 1 in r.hidden:
        yield f"--norm {r.norm} needs two units or more in each hidden layer: of one it leaves a constant"


def _clashes_of_descent(r: RecipeFields) -> Iterator[str]:
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
