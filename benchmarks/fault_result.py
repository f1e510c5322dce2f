"""One line of the table of `faults.py`: what was tried, the figure, and whether what is promised holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """A figure in words, and whether the promise that it is about was kept."""

    name: str
    figure: str
    ok: bool
