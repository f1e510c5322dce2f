"""The flags of `gradtui train` and `gradtui compare`, one for every choice of a recipe."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any, Protocol

from gradtui.errors import UsageError
from gradtui.lab.experiments import EXPERIMENTS, find
from gradtui.lab.recipe import Recipe
from gradtui.lab.recipe_checks import DATA, DTYPES, RECURRENT
from gradtui.remedies import choices

MOST_LAYERS = 10_000


class _Offered(Protocol):
    @property
    def what(self) -> str: ...


def add_recipe_flags(parser: argparse.ArgumentParser, *, experiment: bool = True) -> None:
    """Add the flags; what is not given keeps the experiment's value, or the default."""
    if experiment:
        start = parser.add_argument_group("what to start from")
        names = "; ".join(f"{name}: {found.title.lower()}" for name, found in EXPERIMENTS.items())
        _add(
            start,
            "experiment",
            f"a recipe of a named experiment, which the other flags change: NAME, or NAME/RECIPE ({names})",
            metavar="NAME",
        )
        _add(start, "with", "remedies of the table, e.g. relu,he: see `gradtui remedies`", metavar="REMEDIES")
        _add(start, "name", "what the run is called (default: from data, activation and depth)")
    _add_data_flags(parser.add_argument_group("data"))
    _add_net_flags(parser.add_argument_group("net"))
    _add_descent_flags(parser.add_argument_group("gradient descent"))
    _add_bound_flags(parser.add_argument_group("bounds and decay"))
    record = parser.add_argument_group("recording")
    _add(record, "every", "record each N steps (default: 1)", type=_count, metavar="N")
    _add(record, "budget", "record within this share of the time instead of by --every", type=float, metavar="SHARE")
    threads = "threads of torch (default: 1, which small nets are quickest with, bit for bit the same everywhere)"
    _add(record, "threads", threads, type=_count, metavar="N")


def _add_data_flags(data: Any) -> None:
    _add(data, "data", _offer(DATA, "digits"), choices=DATA)
    _add(data, "data-dir", "the folder with MNIST's IDX files, plain or .gz (default: $GRADTUI_DATA)", metavar="FOLDER")
    _add(data, "train-size", "use only the first N training images", type=_count, metavar="N")
    _add(data, "input-scale", _offer(choices("input_scale"), "unit"), choices=choices("input_scale"))
    _add(data, "length", "time steps of --data adding (default: 50)", type=_count, metavar="T")
    _add(data, "point", "the input of --data point (default: 0.5)", type=float, metavar="X")


def _add_net_flags(net: Any) -> None:
    _add(net, "net", _offer(choices("net"), "plain"), choices=choices("net"))
    _add(net, "hidden", "units of each hidden layer, e.g. 30,30,30,30 or 30x4 (the default)", metavar="UNITS")
    _add(net, "activation", _offer(choices("activation"), "sigmoid"), choices=choices("activation"))
    _add(net, "slope", "of leaky-relu, or what prelu starts from", type=float, metavar="A")
    _add(net, "init", _offer(choices("init"), "scaled"), choices=choices("init"))
    _add(net, "sigma", "σ of --init normal (default: 1)", type=float, metavar="σ")
    _add(net, "norm", _offer(choices("norm"), "none"), choices=("none", *choices("norm")))
    _add(net, "forget-bias", "what the forget gates of --net lstm start with (default: 0)", type=float, metavar="B")
    _add(net, "rank", "rank of factorised hidden layers; 0 leaves them whole (default: 0)", type=_count, metavar="R")
    _add(net, "dropout", "share of hidden units left out while training (default: 0)", type=float, metavar="P")
    _add(net, "pretrain", _offer(choices("pretrain"), "none"), choices=("none", *choices("pretrain")))
    epochs = "passes over the images for each layer that is pretrained (default: 30)"
    _add(net, "pretrain-epochs", epochs, type=_count, metavar="N")
    _add(net, "dtype", "number format (default: float32)", choices=DTYPES)


def _add_descent_flags(descent: Any) -> None:
    _add(descent, "cost", _offer(choices("cost"), "cross-entropy"), choices=choices("cost"))
    _add(descent, "optimizer", _offer(choices("optimizer"), "sgd"), choices=choices("optimizer"))
    rates = "η (default: 0.1 for sigmoid and recurrent nets, 0.05 for tanh, 0.02 for others, times 1 − momentum; 0.001"
    rates += " for adam, adamw and rmsprop, 0.01 for adagrad, 1 for adadelta)"
    _add(descent, "learning-rate", rates, "--lr", type=float, metavar="η")
    _add(descent, "momentum", "share of the last step that is kept (default: 0)", type=float, metavar="μ")
    _add(descent, "schedule", _offer(choices("schedule"), "constant"), choices=choices("schedule"))
    _add(descent, "warmup", "steps over which the rate grows from 0 (default: 0)", type=_count, metavar="N")
    _add(descent, "batch-size", "images a step; 0 takes all at once (default: 10)", type=_count, metavar="N")
    _add(descent, "epochs", "passes over the training images (default: 300; 8 on MNIST)", type=_count, metavar="N")
    patience = "stop after N evaluations without a better validation; 0 never does (default: 0)"
    _add(descent, "patience", patience, type=_count, metavar="N")
    seed = "of weights and shuffling: the same seed gives the same run (default: 0)"
    _add(descent, "seed", seed, type=_count, metavar="N")


def _add_bound_flags(bounds: Any) -> None:
    for name, text, sign in (
        ("clip-norm", "the gradient is scaled down to this length", "C"),
        ("clip-value", "each component of the gradient is bounded", "C"),
        ("agc", "a unit's gradient is bounded by this share of its weights' length, e.g. 0.01", "λ"),
        ("l1", "λ: a penalty λ/n·|w|, n training images", "λ"),
        ("l2", "λ: weights shrink by 1 − ηλ/n a step, n training images, by the gradient", "λ"),
        ("decay", "λ: weights shrink by 1 − ηλ a step, outside of the gradient (AdamW's)", "λ"),
        ("max-norm", "the length of a unit's incoming weights is bounded, e.g. 3", "C"),
        ("weight-clip", "each weight is kept within ±C", "C"),
    ):
        _add(bounds, name, f"{text} (default: 0, none)", type=float, metavar=sign)


def recipe_from_flags(options: argparse.Namespace) -> Recipe:
    """The recipe that is asked for; raises `UsageError` if it makes no sense."""
    given: dict[str, Any] = dict(vars(options))
    base = Recipe()
    if given.get("experiment"):
        experiment, label = find(given["experiment"])
        base = experiment.recipes[label]
    return changed_by_flags(base, given)


def changed_by_flags(base: Recipe, given: Mapping[str, Any]) -> Recipe:
    """The base with the flags that were given, and with remedies."""
    changes = {key: given[key] for key in Recipe.__dataclass_fields__ if given.get(key) is not None}
    if "hidden" in changes:
        changes["hidden"] = parse_hidden(changes["hidden"])
    if "budget" in changes and "every" not in changes:
        changes["every"] = None
    changes = _and_what_follows(base, changes)
    if base.name and set(changes) & {"data", "activation", "hidden", "net"} and "name" not in changes:
        changes["name"] = None
        experiment = given.get("experiment")
        recipe = base.adapted(changes)
        recipe = recipe.but(name=f"{experiment.replace('/', '-')}-{len(recipe.hidden)}") if experiment else recipe
    else:
        recipe = base.adapted(changes)
    names = [name.strip() for name in (given.get("with") or "").split(",") if name.strip()]
    return recipe.with_remedies(*names) if names else recipe


def _and_what_follows(base: Recipe, changes: dict[str, Any]) -> dict[str, Any]:
    """What goes without saying: a recurrent net has tanh, the adding problem a squared cost, Nesterov momentum."""
    follows: dict[str, Any] = {}
    data, net = changes.get("data", base.data), changes.get("net", base.net)
    if data == "mnist" and base.data == "digits":
        # about as many steps, and three passes at least
        follows["epochs"] = max(3, -(-base.epochs * DATA["digits"].images // DATA["mnist"].images))
    if data == "adding" != base.data:
        follows |= {"cost": "squared"}
        if net not in RECURRENT:
            follows["net"] = net = "lstm"
    if net in RECURRENT and base.net not in RECURRENT:
        follows |= {"activation": "tanh", "init": "uniform", "hidden": (64,)}
    if changes.get("optimizer") == "nesterov" and not base.momentum:
        follows["momentum"] = 0.9
    return {**follows, **changes}


def parse_hidden(text: str) -> tuple[int, ...]:
    """`30,20` -> (30, 20), `30x4` -> (30, 30, 30, 30), `none` -> (); raises `UsageError` for anything else."""
    if text.strip().lower() in ("", "none"):
        return ()
    units: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:[x×*]\s*([0-9]{1,9}))?\s*", part)
        if match is None:
            raise UsageError(
                f"--hidden {text!r}: give units by commas, e.g. 30,30 or 30x2; {part.strip()!r} is neither"
            )
        times = int(match[2] or 1)
        if times == 0:
            raise UsageError(f"--hidden {text!r}: {part.strip()!r} is no layer; `none` asks for no hidden layers")
        if len(units) + times > MOST_LAYERS:
            raise UsageError(f"--hidden {text!r}: that is more than {MOST_LAYERS:,} layers")
        units += [int(match[1])] * times
    if 0 in units:
        raise UsageError(f"--hidden {text!r}: a layer needs at least one unit")
    return tuple(units)


def _add(group: Any, name: str, text: str, *aliases: str, **kind: Any) -> None:
    offered = kind.pop("choices", None)
    if offered is not None:
        kind.update(choices=list(offered), metavar=kind.get("metavar", "NAME"))
    # argparse reads % as a format
    group.add_argument(f"--{name}", *aliases, help=text.replace("%", "%%"), default=None, **kind)


def _offer(offered: Mapping[str, _Offered], default: str) -> str:
    return "; ".join(f"{name}: {choice.what}" for name, choice in offered.items()) + f" (default: {default})"


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text.replace("_", "").replace(",", "")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text.replace("_", "").replace(",", ""))
