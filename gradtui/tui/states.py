"""How the state of a run is shown, wherever it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradtui.tui.text import clean

if TYPE_CHECKING:
    from gradtui.runfile.liveness import Status

STATES = {  # state -> sign, word, colour; the sign and the word say it without colour
    "live": ("●", "live", "success"),
    "finished": ("✔", "finished", "primary"),
    "stopped": ("■", "stopped", "warning"),
    "failed": ("✗", "failed", "error"),
    "died": ("✗", "died", "error"),
}


def shown(status: Status) -> tuple[str, str, str]:
    """Sign, word and colour of a state; a run whose loss is NaN says so, in the colour of an error."""
    sign, word, colour = STATES.get(status.state, ("○", clean(status.state), "dim"))
    if status.nan_since is None:
        return sign, word, colour
    return sign if status.live else "✗", f"{word}, NaN since step {status.nan_since:,}", "error"
