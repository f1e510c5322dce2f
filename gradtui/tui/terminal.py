"""What the viewer asks of the terminal before it draws, and how few bytes it sends to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate

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


def send_only_what_changed() -> None:
    """Make Textual crop an updated line on its left as well as on its right (Textualize/textual#5625).

    Without it a change of one cell is sent from the widget's left edge on: three times the bytes for moving bars.
    """
    ChopsUpdate.render_segments = _render_segments  # type: ignore[method-assign]


def _render_segments(self: ChopsUpdate, console: Console) -> str:
    pieces: list[str] = []
    for y, left, right in self.spans:
        for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
            if strip is None or x >= right or end <= left:
                continue
            start = max(x, left)
            pieces.append(Control.move_to(start, y).segment.text)
            pieces.append(strip.crop(start - x, min(end, right) - x).render(console))
    return "".join(pieces)
