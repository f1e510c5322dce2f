"""Writes the tables that have a row for each thing there is, and not for what happens: layers, findings, schedules."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from gradtui.format import plain
from gradtui.runfile.schema import Finding, Layer, Schedule
from gradtui.runfile.storable import storable


def finding_row(number: int, finding: Finding | None) -> tuple[Any, ...]:
    """A row of the table of findings; the number alone for one that is taken back."""
    if finding is None:
        return (number,)
    layers, numbers, remedies = (json.dumps(plain(v)) for v in (finding.layers, finding.numbers, finding.remedies))
    begin, end = finding.begin, finding.end
    return number, finding.kind, layers, begin, end, finding.evidence, numbers, remedies, finding.note


def write_findings(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Put in what is new and what has changed; a number alone is taken out."""
    for row in rows:
        if len(row) == 1:
            connection.execute("DELETE FROM findings WHERE finding = ?", row)
        else:
            connection.execute(f"INSERT OR REPLACE INTO findings VALUES ({', '.join('?' * len(row))})", row)


def write_layers(connection: sqlite3.Connection, layers: Sequence[Layer]) -> None:
    """All layers, in place of what is there."""
    connection.executemany(
        "INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            storable(
                (
                    index,
                    layer.name,
                    layer.kind,
                    json.dumps(layer.shapes),
                    layer.parameters,
                    None if layer.input_shape is None else json.dumps(layer.input_shape),
                    None if layer.output_shape is None else json.dumps(layer.output_shape),
                    layer.size,
                    json.dumps(layer.optimizers),
                    json.dumps(layer.branches),
                )
            )
            for index, layer in enumerate(layers)
        ],
    )


def write_schedules(connection: sqlite3.Connection, schedules: Sequence[Schedule]) -> None:
    """How often each optimizer was measured, in place of what is there."""
    connection.executemany(
        "INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?, ?)", [astuple(one) for one in schedules]
    )
