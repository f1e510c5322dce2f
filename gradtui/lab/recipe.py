"""Recipes: everything that defines a built-in training.

Standard library only: the command line and the terminal UI read this without loading torch. The fields stand in
`recipe_fields`, what goes with what in `recipe_checks`, the named recipes in `experiments`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gradtui.errors import UsageError
from gradtui.lab import recipe_checks, size
from gradtui.lab.field import fields_of, runs
from gradtui.lab.recipe_fields import RecipeFields
from gradtui.remedies import Remedy, find

FIELDS = fields_of(RecipeFields)
_LABELS = ("name",)  # fields that change nothing in the training


@dataclass(frozen=True)
class Recipe(RecipeFields):
    """A training. Raises `UsageError` for values that do not exist or do not fit together."""

    def __post_init__(self) -> None:
        recipe_checks.check(self)

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
        middle = [f"{units}×{times}" if times > 1 else str(units) for units, times in runs(self.hidden)]
        return "-".join([str(self.inputs), *middle, str(self.outputs)])

    @property
    def summary(self) -> str:
        """The recipe in one line."""
        extras = [
            f"{field.words} {_short(getattr(self, name))}"
            for name, field in FIELDS.items()
            if field.is_extra and getattr(self, name) != field.default
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
        unknown = set(facts) - set(FIELDS)
        if unknown:
            raise UsageError(f"a recipe has no {', '.join(sorted(map(repr, unknown)))}: is it from a newer gradtui?")
        for name, field in FIELDS.items():
            field.check_type(facts.get(name, field.default))
        try:
            return cls(**{**facts, "hidden": tuple(facts.get("hidden", cls.hidden))})
        except OverflowError as error:  # JSON's whole numbers have no limit, floats have
            raise UsageError(f"a recipe holds a number that is too large: {error}") from error

    def same_training(self) -> str:
        """A text that two recipes share exactly if they train the same net in the same way and are recorded alike."""
        told = {
            name: value
            for name, value in sorted(self.to_json().items())
            if name not in _LABELS and not (FIELDS[name].is_later and value == FIELDS[name].default)
        }
        return json.dumps(told)

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
        for remedy in map(find, names):
            _check_remedy(remedy)
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


def _check_remedy(remedy: Remedy) -> None:
    """Raise `UsageError` for a remedy that no recipe can take."""
    if not remedy.is_for_recipes:
        raise UsageError(f"the remedy {remedy.name} is for training code of your own: no recipe can take it")
    unknown = {*(set(remedy.changes) - set(FIELDS)), *(set(remedy.scales) - {"learning_rate", "width", "depth"})}
    if unknown:
        raise UsageError(f"the remedy {remedy.name} changes {', '.join(sorted(unknown))}, which no recipe has")


def safe(label: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[^\w.+-]+", "-", label).strip("-.")[:60] or "recipe"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
