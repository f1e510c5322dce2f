"""Measures over time in, findings out: why a net, or a layer of it, does not learn. numpy.

Most thresholds are relative: to the other layers, to the layer's own past, to whether the loss falls. What is a sign of
trouble where the loss does not fall may be harmless where it does, so most findings ask for both; fixed absolute
thresholds made DeepDiagnosis flag 36 % of healthy models (Wardat et al., ICSE 2022; the same kinds of trouble in
AutoTrainer, Zhang et al., ICSE 2021, and UMLAUT, Schoop et al., CHI 2021). The defaults were set on one half of the
nets of `benchmarks/diagnosis.py`; that file says how they do on the other.

| module   | what it holds                                                             |
| -------- | ------------------------------------------------------------------------- |
| `kinds`  | `finding`, which registers a rule; `FINDINGS`; `Thresholds`               |
| `series` | `Evidence` and `Series`: what a rule looks at                             |
| `rules`  | our rules                                                                 |
| `search` | applies all rules                                                         |
| `live`   | `LiveDiagnosis`, of a run while it is recorded; its findings are stored   |
"""

from __future__ import annotations

from pathlib import Path

from gradtui.diagnosis.kinds import (
    FINDINGS,
    Finding,
    Kind,
    Threshold,
    Thresholds,
    finding,
    kinds_in_order,
    thresholds_table,
)
from gradtui.diagnosis.live import LiveDiagnosis
from gradtui.diagnosis.search import find, in_order
from gradtui.diagnosis.series import Evidence, Series
from gradtui.runfile import RunReader, open_run

__all__ = [
    "FINDINGS",
    "Evidence",
    "Finding",
    "Kind",
    "LiveDiagnosis",
    "Series",
    "Threshold",
    "Thresholds",
    "diagnose",
    "finding",
    "findings_of",
    "kinds_in_order",
    "thresholds_table",
]


def diagnose(run: str | Path | RunReader, thresholds: Thresholds | None = None) -> list[Finding]:
    """The findings of a run, causes first.

    Args:
        run: a run file, by its path or open.
        thresholds: look at what is recorded anew, by these; without, the findings are those that the run stores.

    Raises:
        RunFileError: it is no run file.
    """
    if not isinstance(run, RunReader):
        with open_run(run) as reader:
            return diagnose(reader, thresholds)
    return findings_of(run) if thresholds is None else find(Evidence.of(run), thresholds)


def findings_of(reader: RunReader) -> list[Finding]:
    """The findings that the run stores, those that hold first; of an older file, which stores none, computed now."""
    stored = reader.findings()
    return find(Evidence.of(reader)) if stored is None else in_order(stored)
