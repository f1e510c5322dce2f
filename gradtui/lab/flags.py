"""The flags of `gradtui train`, one for every choice of a recipe."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any

from gradtui.errors import UsageError
from gradtui.lab.recipe import ACTIVATIONS, COSTS, DATA, DTYPES, EXPERIMENTS, INITIALISATIONS, Choice, Recipe

MOST_LAYERS = 10_000


def add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags; what is not given keeps the experiment's value, or the default."""
    start = parser.add_argument_group("what to start from")
    names = "; ".join(f"{name}: {experiment.title.lower()}" for name, experiment in EXPERIMENTS.items())
    _add(start, "experiment", f"a named recipe, which the other flags change ({names})", choices=EXPERIMENTS)
    _add(start, "name", "what the run is called (default: from data, activation and depth)")

    data = parser.add_argument_group("data")
    _add(data, "data", _offer(DATA), choices=DATA)
    _add(data, "data-dir", "the folder with MNIST's IDX files, plain or .gz (default: $GRADTUI_DATA)", metavar="FOLDER")
    _add(data, "train-size", "use only the first N training images", type=_count, metavar="N")
    _add(data, "point", "the input of --data point (default: 0.5)", type=float, metavar="X")

    net = parser.add_argument_group("net")
    _add(net, "hidden", "units of each hidden layer, e.g. 30,30,30,30 or 30x4 (the default)", metavar="UNITS")
    _add(net, "activation", _offer(ACTIVATIONS), choices=ACTIVATIONS)
    _add(net, "init", _offer(INITIALISATIONS), choices=INITIALISATIONS)
    _add(net, "dtype", "number format (default: float32)", choices=DTYPES)

    descent = parser.add_argument_group("gradient descent")
    _add(descent, "cost", _offer(COSTS), choices=COSTS)
    _add(
        descent,
        "learning-rate",
        "η (default: 0.1 for sigmoid, 0.05 for tanh, 0.02 for ReLU)",
        "--lr",
        type=float,
        metavar="η",
    )
    _add(descent, "momentum", "share of the last step that is kept (default: 0)", type=float, metavar="μ")
    _add(descent, "l2", "λ: weights shrink by 1 − ηλ/n a step, n training images (default: 0)", type=float, metavar="λ")
    _add(descent, "batch-size", "images a step; 0 takes all at once (default: 10)", type=_count, metavar="N")
    _add(descent, "epochs", "passes over the training images (default: 300)", type=_count, metavar="N")
    _add(
        descent,
        "seed",
        "of weights and shuffling: the same seed gives the same run (default: 0)",
        type=_count,
        metavar="N",
    )

    record = parser.add_argument_group("recording")
    _add(record, "every", "record each N steps (default: 1)", type=_count, metavar="N")
    _add(record, "budget", "record within this share of the time instead of by --every", type=float, metavar="SHARE")
    _add(record, "threads", "threads of torch; 0 chooses by the size of the net (default: 0)", type=_count, metavar="N")


def recipe_from_flags(options: argparse.Namespace) -> Recipe:
    """The recipe that is asked for; raises `UsageError` if it makes no sense."""
    given: dict[str, Any] = dict(vars(options))
    base = EXPERIMENTS[given["experiment"]].recipe if given.get("experiment") else Recipe()
    changes = {key: given[key] for key in Recipe.__dataclass_fields__ if given.get(key) is not None}
    if "hidden" in changes:
        changes["hidden"] = parse_hidden(changes["hidden"])
    if "budget" in changes and "every" not in changes:
        changes["every"] = None
    if "activation" in changes and changes["activation"] != base.activation and "learning_rate" not in changes:
        changes["learning_rate"] = None  # another activation takes its own rate
    if base.name and set(changes) & {"data", "activation", "hidden"} and "name" not in changes:
        recipe = base.but(**{**changes, "name": None})
        return recipe.but(name=f"{given['experiment']}-{len(recipe.hidden)}")
    return base.but(**changes)


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
    choices = kind.pop("choices", None)
    if choices is not None:
        kind.update(choices=list(choices), metavar=kind.get("metavar", "NAME"))
    # argparse reads % as a format
    group.add_argument(f"--{name}", *aliases, help=text.replace("%", "%%"), default=None, **kind)


def _offer(choices: Mapping[str, Choice]) -> str:
    default = next(iter(choices)) if "scaled" not in choices else "scaled"
    return "; ".join(f"{name}: {choice.what}" for name, choice in choices.items()) + f" (default: {default})"


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text.replace("_", "").replace(",", "")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text.replace("_", "").replace(",", ""))
