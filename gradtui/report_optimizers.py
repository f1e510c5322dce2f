"""The optimizers of a run in words: of `gradtui report`, and of the viewer's line about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradtui.format import called, listed
from gradtui.runfile.optimizer_facts import Course, OptimizerFacts, ParameterGroup, course_of

HEAD = ("optimizer", "parameters", "layers", "rate", "course", "settings")
MOST_GROUPS = 12  # lines of the table: what comes after them is counted
# how a setting is called where that is shorter; "" for what changes no number, or is the scheduler's
CALLED = {
    "eps": "ε", "weight_decay": "decay", "decoupled_weight_decay": "", "foreach": "", "fused": "", "capturable": "",
    "differentiable": "", "max_lr": "", "min_lr": "", "base_lr": "", "max_momentum": "", "base_momentum": "",
    "step": "",
}  # fmt: skip
ALWAYS = ("betas", "eps", "weight_decay", "momentum")  # told where they are 0, too


def optimizer_facts(optimizers: Sequence[OptimizerFacts], names: Sequence[str]) -> list[dict[str, Any]]:
    """As the JSON of a report has them; `names` are those of the layers."""
    return [
        {
            "optimizer": one.number,
            "kind": one.kind,
            "groups": [_group_facts(one, i, names) for i in range(len(one.groups))],
        }
        for one in optimizers
    ]


def optimizer_lines(optimizers: Sequence[dict[str, Any]], layers: int) -> list[tuple[str, ...]]:
    """The table of a report: its head, and a line for each parameter group, or for several that are alike.

    `layers` is how many there are.
    """
    alike: dict[tuple[str, ...], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for one in optimizers:
        for i, group in enumerate(one["groups"]):
            several = len(one["groups"]) > 1
            place = (str(one["optimizer"]), group["name"] or str(i)) if several else ("", "")
            key = (one["kind"], *place, _rate(group["rate"]), _course(group["rate"]), _settings(group))
            alike.setdefault(key, []).append((one, group))
    lines = []
    for (kind, _, name, rate, course, settings), found in alike.items():
        count = len(found)
        which = kind + (f", group {name}" if name else "") + (f" ({count} of them)" if count > 1 else "")
        parameters = sum(group["parameters"] for _, group in found)
        covered = list(dict.fromkeys(layer for _, group in found for layer in group["layers"]))
        lines.append((which, f"{parameters:,}", _layers(covered, layers), rate, course, settings))
    more = len(lines) - MOST_GROUPS
    rest = [(f"and {more} more",) + ("",) * (len(HEAD) - 1)] if more > 0 else []
    return [HEAD, *lines[:MOST_GROUPS], *rest] if lines else []


def in_one_line(optimizers: Sequence[OptimizerFacts]) -> str:
    """The newest optimizer and its rate, for a place where there is little room; "" if none is known."""
    if not optimizers or not optimizers[-1].groups:
        return ""
    newest = optimizers[-1]
    course = course_of(newest, 0)
    said = newest.kind + ("" if course is None else f", rate {course.now:.3g} ({_course(_rate_facts(course))})")
    groups = f", {len(newest.groups)} parameter groups" if len(newest.groups) > 1 else ""
    before = len(optimizers) - 1
    return said + groups + (f"; {before} optimizer{'s' * (before > 1)} before it" if before else "")


def do_not_train(names: Sequence[str]) -> str:
    """Layers without a gradient, in one line; "" if there are none."""
    if not names:
        return ""
    return (
        f"{len(names)} layers do not train: {listed(names)}" if len(names) > 1 else f"{called(names[0])} does not train"
    )


def _group_facts(optimizer: OptimizerFacts, number: int, names: Sequence[str]) -> dict[str, Any]:
    group: ParameterGroup = optimizer.groups[number]
    course = course_of(optimizer, number)
    return {
        "name": group.name,
        "tensors": group.tensors,
        "parameters": group.parameters,
        "layers": [names[layer] for layer in group.layers if layer < len(names)],
        "rate": None if course is None else _rate_facts(course),
        "settings": dict(group.settings),
        "settings_at_first": dict(group.first),
    }


def _rate_facts(course: Course) -> dict[str, Any]:
    return {
        "now": course.now, "first": course.first, "least": course.least, "most": course.most, "course": course.words,
    }  # fmt: skip


def _layers(names: Sequence[str], layers: int) -> str:
    if len(names) == layers and layers > 1:
        return f"all {layers}"
    return listed(names) if names else "none that is measured"


def _rate(rate: Mapping[str, Any] | None) -> str:
    return "" if rate is None else f"{rate['now']:.4g}"


def _course(rate: Mapping[str, Any] | None) -> str:
    """What the rate does, with the numbers between which it did."""
    if rate is None:
        return "not known"
    if rate["least"] == rate["most"]:
        return str(rate["course"])
    ends = {rate["first"], rate["now"]}
    top = [f"{rate['most']:.4g}"] if rate["most"] not in ends else []
    path = " → ".join([f"{rate['first']:.4g}", *top, f"{rate['now']:.4g}"])
    return f"{path}: {rate['course']}"


def _settings(group: Mapping[str, Any]) -> str:
    words = []
    for name, value in group["settings"].items():
        called = CALLED.get(name, name)
        if not called or value is False or (value == 0 and name not in ALWAYS):
            continue
        before, shown = group["settings_at_first"].get(name), _shown(value)
        if before is not None and _shown(before) != shown:
            shown = f"{_shown(before)} → {shown}"
        words.append(called if value is True else f"{called} {shown}")
    return ", ".join(words)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "/".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
