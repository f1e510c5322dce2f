"""Measures over time in, findings out: why a net, or a layer of it, does not learn. Pure numpy.

All thresholds are relative: to the other layers, to the layer's own past, to whether the loss gets better. What is a
sign of illness where the loss stands still may be harmless where it falls, so most findings ask for both; fixed
absolute thresholds made DeepDiagnosis flag 36 % of healthy models (Wardat et al., ICSE 2022; the same kinds of trouble
in AutoTrainer, Zhang et al., ICSE 2021, and UMLAUT, Schoop et al., CHI 2021). The numbers in `Thresholds` were set on
one half of the nets of `benchmarks/diagnosis.py`; that file says how they do on the other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gradtui.diagnosis import rules
from gradtui.diagnosis.kinds import KINDS, Finding, Kind, Thresholds
from gradtui.diagnosis.series import Evidence, Series

__all__ = ["KINDS", "Evidence", "Finding", "Kind", "Thresholds", "diagnose", "diagnose_run"]

# where several are found, what may have led to the others comes first
CAUSES_FIRST = (
    "nan",
    "exploding",
    "update-too-large",
    "dead",
    "saturated",
    "vanishing",
    "update-too-small",
    "not-updating",
    "plateau",
)


def diagnose_run(path: str | Path, thresholds: Thresholds | None = None) -> list[Finding]:
    """The findings of a run file, gravest first; raises `RunFileError` if it is none."""
    from gradtui.runfile import open_run

    with open_run(path) as reader:
        layers = reader.layers()
        evidence = Evidence(layers, [m.name for m in reader.measures], reader.overview(), reader.origins())
    return diagnose(evidence, thresholds)


def diagnose(evidence: Evidence, thresholds: Thresholds | None = None) -> list[Finding]:
    """The findings, gravest first."""
    limits = thresholds or Thresholds()
    with np.errstate(all="ignore"):
        series = Series(evidence, limits)
        found = list(rules.nan(series))
        if len(series) >= limits.least_rows:
            found += rules.exploding(series, limits)
        if len(series) >= limits.least_rows and series.span >= limits.least_steps:
            for look in rules.RULES:
                found += look(series, limits)
    if any(finding.kind == "exploding" for finding in found):
        # on the way to ∞ one layer leaves the others far behind
        found = [finding for finding in found if finding.kind != "vanishing"]
    return sorted(found, key=lambda finding: (finding.note, CAUSES_FIRST.index(finding.kind)))
