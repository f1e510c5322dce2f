"""What the viewer asks of the terminal before it draws."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from gradtui.errors import TerminalError


def check_terminal(environment: Mapping[str, str] = os.environ) -> None:
    """Raise `TerminalError`, with what to do instead, where a full-screen program cannot draw."""
    instead = "use `gradtui train --headless` to train without it, `gradtui runs` to list runs"
    # Textual draws on standard error
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output"), (sys.__stderr__, "error")):
        if stream is None or not stream.isatty():
            raise TerminalError(f"the viewer needs a terminal, and standard {name} is none: {instead}")
    if environment.get("TERM", "dumb") in ("", "dumb", "unknown"):
        terminal = environment.get("TERM", "")
        raise TerminalError(
            f"the viewer needs a terminal that can place its cursor, and TERM={terminal} cannot: {instead}"
        )
