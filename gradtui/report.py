"""`gradtui report`: one run as text or JSON: its findings, and the newest measures of its layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradtui.diagnosis import FINDINGS, findings_of
from gradtui.format import as_json as json_of
from gradtui.format import printable, shortened
from gradtui.masking import masked
from gradtui.measures import LEARNING_SPEED, MEASURES, described
from gradtui.remedies import REMEDIES
from gradtui.report_optimizers import do_not_train, optimizer_facts, optimizer_lines
from gradtui.runfile import Finding, Measure, RunReader, is_measured, open_run
from gradtui.runfile.blocks import FloatArray
from gradtui.view import facts, known, newest_known, telling, untrained

WIDEST = 60  # characters of a name in a table for a terminal
MOST_SCHEDULES = 6  # optimizers of which it is said how often they were measured
LOOK_BACK = 512  # recorded steps in which the newest value of a sampled measure is sought


def report(path: Path, *, as_json: bool, terminal: bool) -> str:
    """The report of a run file; raises `RunFileError` if it is none."""
    with open_run(path) as reader:
        found = _facts(reader)
    if as_json:
        return json_of(found, indent=2)
    return _text(_printable(found), terminal)


def _facts(reader: RunReader) -> dict[str, Any]:
    layers, span, status = reader.layers(), reader.span(), reader.status()
    measures = [described(measure) for measure in reader.measures]
    names = [measure.name for measure in measures]
    findings = findings_of(reader)
    values, sampled = np.empty((0, len(names)), np.float32), None
    if span and layers:
        rows = reader.at(span[1], LOOK_BACK)
        values = newest_known(rows.measures)
        outputs = [measure.source == "outputs" for measure in measures]
        with_outputs = is_measured(rows.measures[:, :, outputs]).any(axis=(1, 2))
        sampled = int(rows.step[with_outputs.argmax()]) if with_outputs.any() else None
    optimizers, schedules = reader.optimizers(), reader.schedules()
    # of the whole run, where the rows that are looked at may all be newer
    sampled = max((one.last_outputs or 0 for one in schedules), default=0) or sampled
    still = set(untrained(values, reader.measures, optimizers))
    loss, recent = reader.newest_loss(), reader.recent_loss()
    return {
        "run": reader.run_id,
        "name": reader.header.name,
        "state": status.state,
        "detail": status.detail,
        "command": masked(reader.header.command),
        "steps": span[1] if span else 0,
        "nan_since": status.nan_since,
        "recorded": reader.measured(),
        "loss_mean": None if recent is None else vars(recent),
        "loss": None if loss is None else loss[1],
        "loss_step": None if loss is None else loss[0],
        "schedules": [vars(one) for one in schedules],
        "activations_step": sampled,
        "metrics": {name: float(series.value[-1]) for name, series in reader.scalars()[0].items()},
        "sampling": reader.header.sampling,
        "findings": [_finding(finding) for finding in findings if not finding.cleared],
        "cleared": [_finding(finding) for finding in findings if finding.cleared],
        "thresholds": reader.header.thresholds,
        "measures": [vars(measure) for measure in measures],
        "layers": [
            {
                **dict(zip(names, known(row), strict=True)),
                "name": layer.name,
                "kind": layer.kind,
                "shape": facts(layer).shape,
                "parameters": layer.parameters,
                "bias_cancelled": is_gone,
                "trains": number not in still,
            }
            for number, (layer, row, is_gone) in enumerate(
                zip(layers, values, _cancelled(values, measures), strict=False)
            )
        ],
        "optimizers": optimizer_facts(optimizers, [layer.name for layer in layers]),
        "events": [vars(event) for event in reader.events()[-20:]],
    }


def _printable(value: Any) -> Any:
    """The same facts, all text in them printable: names of layers come from outside."""
    if isinstance(value, dict):
        return {_printable(key): _printable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(entry) for entry in value]
    return printable(value) if isinstance(value, str) else value


def _finding(finding: Finding) -> dict[str, Any]:
    """A finding, what its kind means, and what each of its remedies is."""
    kind = FINDINGS.get(finding.kind)
    helps = {name: REMEDIES[name].what if name in REMEDIES else "" for name in finding.remedies}
    return {**finding.to_json(), "meaning": kind.meaning if kind else "", "help": helps, "text": str(finding)}


def _text(found: dict[str, Any], terminal: bool) -> str:
    state = found["state"] + (f" ({found['detail']})" if found["detail"] else "")
    state += "" if found["nan_since"] is None else f", NaN since step {found['nan_since']:,}"
    loss = _loss(found["loss_mean"], found["steps"])
    lines = [f"{found['run']}: {state}, {found['steps']:,} steps, loss {loss}; measured {found['sampling']}", ""]
    if found["metrics"]:
        lines[-1:] = [f"metrics: {', '.join(f'{n} {value:.4g}' for n, value in found['metrics'].items())}", ""]
    lines[-1:] = [*_how_often(found), ""]
    if not found["findings"]:
        lines.append("No problems found.")
    for finding in found["findings"]:
        lines.append(finding["text"])
        lines += [f"   try {name}: {what}" if what else f"   try {name}" for name, what in finding["help"].items()]
    lines += [f"cleared: {finding['text']}" for finding in found["cleared"]]
    measures = [one for one in found["measures"] if _is_shown(one["name"], found["layers"])]
    outputs = [measure["symbol"] for measure in measures if measure["source"] == "outputs"]
    if outputs and found["activations_step"] is not None:
        *others, last = outputs
        named = f"{', '.join(others)} and {last}" if others else last
        lines += ["", f"{named}: as of step {found['activations_step']:,}, when outputs were last sampled"]
    if any(layer["bias_cancelled"] for layer in found["layers"]):
        lines += ["", "≈0: a normalisation or a softmax cancels the bias, so that its gradient is rounding"]
    optimizers = aligned(optimizer_lines(found["optimizers"], len(found["layers"])), terminal, 2 * WIDEST)
    tables = [*optimizers, *([""] if optimizers else []), *_table(found, measures, terminal)]
    return "\n".join([*lines, "", *tables])


def _how_often(found: dict[str, Any]) -> list[str]:
    """How many steps were measured, of each optimizer if there are several, and when outputs were last looked at."""
    schedules = [one for one in found["schedules"] if one["steps"]]
    if not schedules:
        return []
    kinds = {one["optimizer"]: one["kind"] for one in found["optimizers"]}
    steps, measured = (sum(one[key] for one in schedules) for key in ("steps", "measured"))
    line = f"{measured:,} of {steps:,} steps measured"
    if len(schedules) > 1:
        each = [
            f"{kinds.get(one['optimizer'], 'many at once' if not one['optimizer'] else 'others')}"
            f" {one['measured']:,} of {one['steps']:,}"
            for one in schedules[:MOST_SCHEDULES]
        ]
        line += f" ({', '.join(each)}{', …' if len(schedules) > MOST_SCHEDULES else ''})"
    last = found["activations_step"]
    return [line + ("; outputs were never looked at" if last is None else f"; outputs last in step {last:,}")]


def _cancelled(values: FloatArray, measures: Sequence[Measure]) -> list[bool]:
    """Of each layer of [layers, measures], whether its bias gradient says nothing."""
    names = [measure.name for measure in measures]
    if not len(values) or LEARNING_SPEED not in names:
        return [False] * len(values)
    speed = names.index(LEARNING_SPEED)
    gone: list[bool] = (is_measured(values[:, speed]) & ~is_measured(telling(values, measures, speed))).tolist()
    return gone


def _is_shown(name: str, layers: list[dict[str, Any]]) -> bool:
    """True for a measure that was taken, but for those of ours that are for the JSON alone."""
    is_in_report = name not in MEASURES or MEASURES[name].in_report
    return is_in_report and any(layer.get(name) is not None for layer in layers)


def _table(found: dict[str, Any], measures: list[dict[str, Any]], terminal: bool) -> list[str]:
    """A line for each layer, and a column for each of the measures."""
    rows = [("layer", "shape", *(measure["symbol"] for measure in measures))]
    for layer in found["layers"]:
        if not layer["trains"]:
            continue
        rows.append((layer["name"], layer["shape"], *(_cell(layer, one["name"]) for one in measures)))
    still = do_not_train([layer["name"] for layer in found["layers"] if not layer["trains"]])
    return [*aligned(rows, terminal), *(["", still] if still else [])]


def aligned(rows: Sequence[Sequence[str]], terminal: bool, widest: int = WIDEST) -> list[str]:
    """A table as lines: with columns for a terminal, with tabs for a pipe."""
    if not terminal:
        return ["\t".join(row) for row in rows]
    rows = [tuple(shortened(cell, widest) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _loss(recent: dict[str, Any] | None, steps: int) -> str:
    """The loss at the end, and of which steps it is the mean."""
    if recent is None:
        return "unknown"
    first, last, mean = recent["first_step"], recent["last_step"], f"{recent['mean']:.4g}"
    if recent["count"] == 1 or not math.isfinite(recent["mean"]):
        return mean + ("" if last == steps else f" in step {last:,}")
    return f"{mean} (mean of {recent['count']}, steps {first:,} to {last:,})"


def _cell(layer: dict[str, Any], measure: str) -> str:
    return "≈0" if measure == LEARNING_SPEED and layer["bias_cancelled"] else _number(layer.get(measure))


def _number(value: float | None) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) else ""
