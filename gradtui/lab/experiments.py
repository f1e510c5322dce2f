"""The named experiments: sets of recipes that differ in one thing, and what to look at.

Standard library only. The learning rates were found by `gradtui compare NAME --tune lr` on the validation images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradtui.errors import UsageError
from gradtui.lab.recipe import Recipe


@dataclass(frozen=True)
class Experiment:
    """Recipes by label; the first is the one that the others are compared with."""

    title: str
    look: str
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
        raise UsageError(f"there is no experiment {experiment!r}: choose one of {', '.join(EXPERIMENTS)}")
    recipes = EXPERIMENTS[experiment].recipes
    if label and label not in recipes:
        raise UsageError(f"the experiment {experiment} has no recipe {label!r}: choose one of {', '.join(recipes)}")
    return EXPERIMENTS[experiment], label or next(iter(recipes))


def _set(base: Recipe, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Recipe]:
    """The base with each set of changes, by label."""
    return {label: base.adapted(changed).but(name=label) for label, changed in changes.items()}


# one pass over the digits in batches of 20 is 60 steps; recorded within a share of the time, so that the comparison of
# times is fair
_SET = Recipe(batch_size=20, epochs=60, every=None, momentum=0.9, cost="softmax")
_TEN = _SET.but(hidden=(30,) * 10)
_EIGHT = _SET.but(hidden=(64,) * 8)
_TANH = _EIGHT.adapted({"activation": "tanh", "init": "xavier", "learning_rate": 0.01})
_MEMORY = Recipe(
    data="adding", net="lstm", hidden=(64,), activation="tanh", init="uniform", cost="squared", optimizer="adam",
    clip_norm=1.0, batch_size=50, length=50, epochs=20, every=None,
)  # fmt: skip
_ROWS = _MEMORY.but(data="digits", cost="softmax", batch_size=20, epochs=15)
_BOOK = Recipe(hidden=(30,) * 8, epochs=1000)

# fmt: off
EXPERIMENTS = {
    "vanishing": Experiment(
        "Vanishing gradient",
        "The same sigmoid net with one to ten hidden layers, each started alike. Each layer on the way back multiplies "
        "the gradient by a small slope: look at how the first bar shrinks with every layer that is added, and from "
        "which depth on the net stays at chance.",
        {str(depth): _SET.but(hidden=(30,) * depth, learning_rate=0.05, name=f"depth-{depth}")
         for depth in (1, 2, 3, 4, 6, 8, 10)},
    ),
}
# fmt: on
