"""The rows of the recipe form: what can be set, to what, and what it means. No drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradtui.errors import UsageError

if TYPE_CHECKING:
    from gradtui.lab.recipe import Recipe


@dataclass(frozen=True)
class Field:
    """One row. `offered` are the values that ← and → go through, as texts; `meaning` is for fields that are numbers."""

    name: str
    group: str
    offered: tuple[str, ...]
    meaning: str = ""


def fields() -> list[Field]:
    """All rows, in the order of the form."""
    from gradtui.lab.recipe_checks import DATA
    from gradtui.remedies import choices

    def choice(name: str, group: str, *first: str) -> Field:
        return Field(name, group, (*first, *choices(name)))

    return [
        Field("data", "data", tuple(DATA)),
        choice("input_scale", "data"),
        Field("length", "data", ("10", "20", "50", "100", "200"), "time steps of the adding problem"),
        choice("net", "net"),
        Field("hidden", "net", ("30x2", "30x4", "30x8", "30x10", "64x8", "100x3"), "units of each hidden layer"),
        choice("activation", "net"),
        Field("slope", "net", ("", "0.01", "0.1", "0.25"), "of leaky-relu, or where prelu starts; empty is its own"),
        choice("init", "net"),
        Field("sigma", "net", ("", "0.01", "0.1", "1", "2"), "σ of the initialisation normal; empty is 1"),
        choice("norm", "net", "none"),
        Field("dropout", "net", ("0", "0.1", "0.2", "0.5"), "share of hidden units left out while training"),
        Field("rank", "net", ("0", "4", "8", "16"), "rank of factorised hidden layers; 0 leaves them whole"),
        Field("forget_bias", "net", ("", "1", "3", "5"), "what an LSTM's forget gates start with; empty is 0"),
        choice("pretrain", "net", "none"),
        Field("pretrain_epochs", "net", ("5", "10", "30", "100"), "passes over the images for each pretrained layer"),
        choice("cost", "descent"),
        choice("optimizer", "descent"),
        Field("learning_rate", "descent", ("", *_series()), "η; empty takes what suits optimizer and activation"),
        Field("momentum", "descent", ("0", "0.5", "0.9", "0.99"), "share of the last step that is kept"),
        choice("schedule", "descent"),
        Field("warmup", "descent", ("0", "100", "500"), "steps over which the rate grows from 0"),
        Field("batch_size", "descent", ("0", "10", "20", "50", "100"), "images a step; 0 takes all at once"),
        Field("epochs", "descent", ("10", "30", "60", "100", "300", "1000"), "passes over the training images"),
        Field("patience", "descent", ("0", "5", "10", "20"), "evaluations without a better validation; 0 never stops"),
        Field("seed", "descent", ("0", "1", "2", "3", "4"), "of weights and shuffling"),
        Field("clip_norm", "bounds", ("0", "0.1", "1", "10"), "the gradient is scaled down to this length; 0 is off"),
        Field("clip_value", "bounds", ("0", "0.01", "0.1", "1"), "each component of the gradient is bounded; 0 is off"),
        Field("agc", "bounds", ("0", "0.01", "0.1"), "a unit's gradient, as a share of its weights' length; 0 is off"),
        Field("l1", "bounds", ("0", "0.01", "0.1", "1"), "a penalty λ/n·|w|; 0 is off"),
        Field("l2", "bounds", ("0", "0.1", "1", "5"), "a penalty λ/2n·w², in the gradient; 0 is off"),
        Field("decay", "bounds", ("0", "0.001", "0.01", "0.1"), "weights shrink by 1 − ηλ a step; 0 is off"),
        Field("max_norm", "bounds", ("0", "1", "3", "4"), "the length of a unit's incoming weights; 0 is off"),
        Field("weight_clip", "bounds", ("0", "0.01", "0.1", "0.5"), "each weight is kept within ± this; 0 is off"),
    ]


def text_of(recipe: Recipe, field: Field) -> str:
    """The value of a field as a text that `changed` takes."""
    value = getattr(recipe, field.name)
    if field.name == "hidden":
        return recipe.shape.replace("×", "x").split("-", 1)[1].rpartition("-")[0].replace("-", ",") or "none"
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def neighbour(field: Field, text: str, by: int) -> str:
    """The value before or after `text` among those offered; of a number that is not offered, the nearest one."""
    if text in field.offered:
        return field.offered[(field.offered.index(text) + by) % len(field.offered)]
    try:
        number = float(text)
        numbers = [(float(offered), offered) for offered in field.offered if offered]
    except ValueError:
        return field.offered[0]
    beyond = [pair for pair in numbers if (pair[0] > number) == (by > 0)]
    return (min if by > 0 else max)(beyond or numbers)[1]


def changed(recipe: Recipe, field: Field, text: str) -> Recipe:
    """The recipe with another value; raises `UsageError` if it is none, or does not fit the rest."""
    return recipe.adapted({field.name: _parse(recipe, field, text.strip())})


def _parse(recipe: Recipe, field: Field, text: str) -> Any:
    from gradtui.lab.flags import parse_hidden
    from gradtui.lab.recipe import Recipe as Shape

    if field.name == "hidden":
        return parse_hidden(text)
    kinds = str(Shape.__dataclass_fields__[field.name].type).split(" | ")
    if not text and "None" in kinds:
        return None
    try:
        return int(text) if "int" in kinds else float(text) if "float" in kinds else text
    except ValueError as error:
        wanted = "a whole number" if "int" in kinds else "a number"
        raise UsageError(f"{field.name.replace('_', ' ')} {text!r}: give {wanted}") from error


def about(recipe: Recipe, field: Field) -> str:
    """What the value of a field means, why one would take it, and where it comes from."""
    from gradtui.lab.recipe_checks import DATA
    from gradtui.remedies import choices

    value = str(getattr(recipe, field.name))
    if field.meaning:
        return field.meaning
    if field.name == "data":
        data = DATA[value]
        return f"{data.what}\n\n{data.why}\n\n{data.source}"
    entry = choices(field.name).get(value)
    return "" if entry is None else f"{entry.what}\n\n{entry.why}\n\n{entry.source}"


def _series() -> tuple[str, ...]:
    return tuple(f"{digit * 10.0**power:g}" for power in range(-4, 1) for digit in (1, 3))
