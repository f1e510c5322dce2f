"""A run in a line of the list, and in a few lines beside it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gradtui.tui.scales import number
from gradtui.tui.states import STATES, shown
from gradtui.tui.text import clean, fit, fit_left

if TYPE_CHECKING:
    from pathlib import Path

    from gradtui.runfolder import RunSummary


def describe(run: RunSummary, width: int) -> str:
    """One line about a run, in columns that fit `width`."""
    if run.status is None:
        sign, word = "✗", "unreadable"
    else:
        sign, word, _ = shown(run.status)
        if run.status.nan_since is not None and len(word) > width // 3:
            word = "NaN"  # what counts, where there is no room for all of it
    facts = [fit_left(f"step {run.step:,}" if run.status else "", 14)]
    if width >= 76:
        facts.append(fit_left("" if run.loss_mean is None else f"loss {number(run.loss_mean)}", 13))
    if width >= 92:
        facts.append(fit_left("" if run.accuracy is None else f"{100 * run.accuracy:.1f} %", 8))
    facts.append(fit_left(_ago(time.time() - run.started), 10))
    state = f"{sign} {fit(word, max(10, min(len(word), width // 3)))}"
    room = width - len(state) - sum(len(fact) + 1 for fact in facts) - 1
    return " ".join([state, fit(clean(run.run_id), room), *facts])


def describe_comparison(folder: Path, width: int) -> str:
    """One line about a comparison."""
    from gradtui.lab.plan import FOLDER_ENDING, running

    sign, word, _ = STATES["live"] if running(folder) is not None else ("≡", "compared", "")
    return f"{sign} {fit(word, 10)} {fit(clean(folder.name.removesuffix(FOLDER_ENDING)), width - 14)}"


def details(run: RunSummary) -> str:
    """What it is, how it ended, how to open it again."""
    lines = [clean(run.run_id), clean(run.problem or (run.status.detail if run.status else ""))]
    if run.status is not None and run.status.nan_since is not None:
        lines.append(run.status.words)
    if run.status is not None:
        lines.append(f"{run.layers} layers · {run.step:,} steps in {_duration(run.duration)}")
        lines.append(f"started {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(run.started))}")
    return "\n".join([*lines, "", f"$ gradtui attach {clean(run.run_id)}"])


def _ago(seconds: float) -> str:
    """An age as people say it; coarse, so that the list seldom changes."""
    for limit, size, unit in ((3600, 60, "min"), (86400, 3600, "h"), (float("inf"), 86400, "d")):
        if seconds < limit:
            return "just now" if seconds < 60 else f"{seconds // size:.0f} {unit} ago"
    return ""


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02} h" if minutes >= 60 else f"{minutes}:{seconds:02} min"
