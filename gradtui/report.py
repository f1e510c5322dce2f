"""`gradtui report`: one run in words, its layers and what ails them, as text or JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gradtui.diagnosis import Evidence, Finding, diagnose
from gradtui.format import plain
from gradtui.runfile import RunReader, is_measured, open_run
from gradtui.view import facts, known, newest_known

ACTIVATIONS = ("activation_mean", "activation_std", "saturated", "dead")
LOOK_BACK = 512  # recorded steps in which the newest value of a sampled measure is sought


def report(path: Path, *, as_json: bool, terminal: bool) -> str:
    """The report of a run file; raises `RunFileError` if it is none."""
    with open_run(path) as reader:
        found = _facts(reader)
    if as_json:
        return json.dumps(plain(found), indent=2, ensure_ascii=True)
    return _text(found, terminal)


def _facts(reader: RunReader) -> dict[str, Any]:
    layers, span, status = reader.layers(), reader.span(), reader.status()
    names = [measure.name for measure in reader.measures]
    findings = diagnose(Evidence(layers, names, reader.overview(), reader.origins()))
    values, sampled = np.empty((0, len(names)), np.float32), None
    if span and layers:
        rows = reader.at(span[1], LOOK_BACK)
        values = newest_known(rows.measures)
        with_activations = is_measured(rows.measures[:, :, [name in ACTIVATIONS for name in names]]).any(axis=(1, 2))
        sampled = int(rows.step[with_activations.argmax()]) if with_activations.any() else None
    loss = reader.newest_loss()
    return {
        "run": reader.run_id,
        "name": reader.header.name,
        "state": status.state,
        "detail": status.detail,
        "command": reader.header.command,
        "steps": span[1] if span else 0,
        "recorded": reader.recorded(),
        "loss": None if loss is None else loss[1],
        "loss_step": None if loss is None else loss[0],
        "activations_step": sampled,
        "metrics": {name: float(series.value[-1]) for name, series in reader.scalars()[0].items()},
        "sampling": reader.header.sampling,
        "findings": [finding.to_json() for finding in findings],
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "shape": facts(layer).shape,
                "parameters": layer.parameters,
                **dict(zip(names, known(row), strict=True)),
            }
            for layer, row in zip(layers, values, strict=False)
        ],
        "events": [vars(event) for event in reader.events()[-20:]],
    }


def _text(found: dict[str, Any], terminal: bool) -> str:
    state = found["state"] + (f" ({found['detail']})" if found["detail"] else "")
    loss = "unknown" if found["loss"] is None else f"{found['loss']:.4g}"
    if found["loss"] is not None and found["loss_step"] != found["steps"]:
        loss += f" in step {found['loss_step']:,}"
    lines = [f"{found['run']}: {state}, {found['steps']:,} steps, loss {loss}; measured {found['sampling']}", ""]
    if found["metrics"]:
        lines[-1:] = [f"metrics: {', '.join(f'{n} {value:.4g}' for n, value in found['metrics'].items())}", ""]
    if not found["findings"]:
        lines.append("No findings: nothing that the diagnosis knows ails this net.")
    for finding in found["findings"]:
        lines.append(str(Finding(**{key: _tupled(value) for key, value in finding.items()})))
        lines.append(f"   try: {', '.join(finding['remedies'])}")
    if found["activations_step"] is not None:
        lines += ["", f"saturated and dead: as of step {found['activations_step']:,}, when outputs were last sampled"]
    columns = ("layer", "shape", "‖∂C/∂b‖", "‖∂C/∂θ‖", "‖Δθ‖/‖θ‖", "saturated", "dead")
    keys = ("bias_grad_norm", "grad_norm", "update_ratio", "saturated", "dead")
    table = [columns] + [
        (layer["name"], layer["shape"], *(_number(layer.get(key)) for key in keys)) for layer in found["layers"]
    ]
    lines.append("")
    if not terminal:
        return "\n".join([*lines, *("\t".join(row) for row in table)])
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    return "\n".join(
        [*lines, *("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table)]
    )


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
