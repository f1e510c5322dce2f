"""How the state of a run is shown, wherever it is."""

from __future__ import annotations

STATES = {  # state -> sign, word, colour; the sign and the word say it without colour
    "live": ("●", "live", "success"),
    "finished": ("✔", "finished", "primary"),
    "stopped": ("■", "stopped", "warning"),
    "failed": ("✗", "failed", "error"),
    "died": ("✗", "died", "error"),
}
