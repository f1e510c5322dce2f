"""The rows of the recipe form: which fields it shows, and how their values change. No drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradtui.lab.field import Field
    from gradtui.lab.recipe import Recipe


def rows() -> list[Field]:
    """The fields of the form, in its order."""
    from gradtui.lab.recipe import FIELDS

    return [field for field in FIELDS.values() if field.is_in_form]


def text_of(recipe: Recipe, field: Field) -> str:
    """The value of a field as a text that `changed` takes."""
    return field.text(getattr(recipe, field.name))


def neighbour(field: Field, text: str, by: int) -> str:
    """The value before or after `text` among those offered; of a number that is not offered, the nearest one."""
    offered = field.texts()
    if text in offered:
        return offered[(offered.index(text) + by) % len(offered)]
    try:
        number = float(text)
        numbers = [(float(value), value) for value in offered if value]
    except ValueError:
        return offered[0]
    beyond = [pair for pair in numbers if (pair[0] > number) == (by > 0)]
    return (min if by > 0 else max)(beyond or numbers)[1]


def changed(recipe: Recipe, field: Field, text: str) -> Recipe:
    """The recipe with another value; raises `UsageError` if it is none, or does not fit the rest."""
    return recipe.adapted({field.name: field.parse(text.strip())})
