"""What the viewer asks of the terminal before it draws, and how few bytes it sends to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import lru_cache

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from textual._compositor import ChopsUpdate

from gradtui.errors import TerminalError

Codes = tuple[str, str, str]


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
    """Make Textual send less for an update: each line cropped on its left too, and each style as a change.

    Textual crops an updated line on its right only (Textualize/textual#5625), so that a change of one cell is sent from
    the widget's left edge on; and it sets and resets the whole style with each piece of text.
    """
    ChopsUpdate.render_segments = _render_segments  # type: ignore[method-assign]


def _render_segments(self: ChopsUpdate, console: Console) -> str:
    pieces: list[str] = []
    current: Codes | None = None
    for y, left, right in self.spans:
        for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
            if strip is None or x >= right or end <= left:
                continue
            start = max(x, left)
            pieces.append(f"\x1b[{y + 1};{start + 1}H")
            for segment in strip.crop(start - x, min(end, right) - x):
                codes = _codes(segment.style, console._color_system or ColorSystem.TRUECOLOR)
                pieces.append(_change(current, codes))
                pieces.append(segment.text)
                current = codes
    pieces.append("\x1b[0m")
    return "".join(pieces)


@lru_cache(8192)
def _codes(style: Style | None, system: ColorSystem) -> Codes:
    """A style as terminals take it (ECMA-48, select graphic rendition): attributes, colour, background."""
    if style is None:
        return "", "", ""
    attributes = style.without_color._make_ansi_codes(system)
    ground = [
        ";".join(color.downgrade(system).get_ansi_codes(foreground)) if color is not None else default
        for color, foreground, default in ((style.color, True, "39"), (style.bgcolor, False, "49"))
    ]
    return attributes, ground[0], ground[1]


@lru_cache(8192)
def _change(before: Codes | None, after: Codes) -> str:
    """The sequence that turns one style into another."""
    if before == after:
        return ""
    if before is None or before[0] != after[0]:
        # attributes are taken back by a reset alone
        parts = ["0", *after]
    else:
        parts = [new for old, new in zip(before, after, strict=True) if old != new]
    return f"\x1b[{';'.join(part for part in parts if part)}m"
