"""The flags of `gradtui train` and `gradtui compare`, one for every field of a recipe."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any

from gradtui.lab.data_sets import DATA
from gradtui.lab.experiments import EXPERIMENTS, find
from gradtui.lab.field import Field, parse_hidden
from gradtui.lab.recipe import FIELDS, Recipe
from gradtui.lab.recipe_fields import GROUPS, RECURRENT


def add_recipe_flags(parser: argparse.ArgumentParser, *, experiment: bool = True) -> None:
    """Add the flags; what is not given keeps the experiment's value, or the default."""
    if experiment:
        start = parser.add_argument_group("what to start from")
        names = "; ".join(f"{name}: {found.title.lower()}" for name, found in EXPERIMENTS.items())
        start.add_argument(
            "--experiment",
            metavar="NAME",
            help=f"a recipe of a named experiment, which the other flags change: NAME, or NAME/RECIPE ({names})",
        )
        start.add_argument("--with", metavar="REMEDIES", help="remedies, e.g. relu,he: see `gradtui remedies`")
        _add(start, FIELDS["name"])
    for group, title in GROUPS.items():
        flags = parser.add_argument_group(title)
        for field in FIELDS.values():
            if field.group == group:
                _add(flags, field)


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
    changes = {key: given[key] for key in FIELDS if given.get(key) is not None}
    if "hidden" in changes:
        changes["hidden"] = parse_hidden(changes["hidden"])
    if "budget" in changes and "every" not in changes:
        changes["every"] = None
    changes = _with_implied_changes(base, changes)
    if base.name and set(changes) & {"data", "activation", "hidden", "net"} and "name" not in changes:
        changes["name"] = None
        experiment = given.get("experiment")
        recipe = base.adapted(changes)
        recipe = recipe.but(name=f"{experiment.replace('/', '-')}-{len(recipe.hidden)}") if experiment else recipe
    else:
        recipe = base.adapted(changes)
    names = [name.strip() for name in (given.get("with") or "").split(",") if name.strip()]
    return recipe.with_remedies(*names) if names else recipe


def _with_implied_changes(base: Recipe, changes: dict[str, Any]) -> dict[str, Any]:
    """The changes and those they imply: a recurrent net has tanh, the adding problem a squared cost."""
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


def _add(group: Any, field: Field) -> None:
    kind: dict[str, Any] = {}
    if field.values is not None:
        kind["choices"] = list(field.values())
    elif "int" in field.kinds:
        kind["type"] = _count
    elif "float" in field.kinds:
        kind["type"] = float
    # argparse reads % as a format
    text = field.flag_help.replace("%", "%%")
    group.add_argument(field.flag, *field.aliases, help=text, default=None, metavar=field.flag_metavar, **kind)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text.replace("_", "").replace(",", "")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text.replace("_", "").replace(",", ""))
