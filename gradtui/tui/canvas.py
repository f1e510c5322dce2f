"""What stands on the terminal and what should, cell by cell, so that only the difference is sent, and newest first.

Textual crops an updated line on its right only (Textualize/textual#5625), sends whole screens where a dialog closes,
and queues what a slow terminal does not take. Here a newer picture replaces what was not sent of an older one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from rich.cells import cell_len, get_character_cell_size
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style

from gradtui.tui.textual_private import ChopsUpdate, CompositorUpdate, LayoutUpdate, attributes_of, colours_of

Codes = tuple[str, str, str]
Cell = tuple[str, Codes]  # text, "" where a wide character goes on; how it looks

SAME_BETWEEN = 6  # unchanged cells that cost less to send again than to step over


class Canvas:
    """The screen of a terminal of `width` by `height` cells; what stands there is not known at first."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self._wanted: list[list[Cell | None]] = [[None] * width for _ in range(height)]
        self._shown: list[list[Cell | None]] = [[None] * width for _ in range(height)]
        self._dirty: set[int] = set()

    @property
    def unsent(self) -> bool:
        """Whether something drawn was not sent yet."""
        return bool(self._dirty)

    def forget(self) -> None:
        """Take it that nothing is known of what stands on the terminal."""
        width, height = self.size
        self._shown = [[None] * width for _ in range(height)]
        self._dirty = set(range(height))

    def draw(self, update: CompositorUpdate, console: Console) -> None:
        """Take over what Textual has drawn."""
        system = colours_of(console)
        if isinstance(update, LayoutUpdate):
            for y, strips in enumerate(update.strips, update.region.y):
                self._put(update.region.x, y, (segment for strip in strips for segment in strip), system)
        elif isinstance(update, ChopsUpdate):
            for y, left, right in update.spans:
                for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
                    if strip is not None and x < right and end > left:
                        start = max(x, left)
                        self._put(start, y, strip.crop(start - x, min(end, right) - x), system)

    def changes(self, most: int) -> str:
        """The sequences that bring the terminal up to date, from the top: about `most` bytes of them, as UTF-8."""
        pieces: list[str] = []
        size = 0
        current: Codes | None = None
        for y in sorted(self._dirty):
            if size >= most:
                break
            added, current, whole = self._changes_of_row(y, current, most - size)
            pieces += added
            size += sum(map(_bytes, added))
            if whole:
                self._dirty.discard(y)
        if not pieces:
            return ""
        pieces.append("\x1b[0m")
        return "".join(pieces)

    def _changes_of_row(self, y: int, current: Codes | None, most: int) -> tuple[list[str], Codes | None, bool]:
        """What is sent for a row; how the last cell of it looks; whether that is all of the row."""
        wanted, shown = self._wanted[y], self._shown[y]
        pieces: list[str] = []
        size = 0
        at = -1  # where the cursor stands; -1 is elsewhere
        for x in _different(wanted, shown):
            cell = wanted[x]
            if cell is None or not cell[0]:
                shown[x] = cell  # the second half of a wide character comes with the first
                continue
            if size >= most:
                return pieces, current, False
            between = wanted[at:x] if at >= 0 and x - at <= SAME_BETWEEN else None
            if between is not None and all(known is not None and known[1] == current for known in between):
                text = "".join(known[0] for known in between if known is not None)
            else:
                text = "" if at == x else f"\x1b[{y + 1};{x + 1}H"
            text += _change(current, cell[1]) + cell[0]
            pieces.append(text)
            size += _bytes(text)
            current = cell[1]
            shown[x] = cell
            at = x + 1
            while at < len(wanted) and (after := wanted[at]) is not None and not after[0]:
                shown[at] = after
                at += 1
        return pieces, current, True

    def _put(self, x: int, y: int, segments: Iterable[Segment], system: ColorSystem | None) -> None:
        width, height = self.size
        if not 0 <= y < height:
            return
        row = self._wanted[y]
        cells: list[Cell] = []
        for segment in segments:
            if segment.control is None:
                codes = _codes(segment.style, system)
                cells += [(text, codes) for text in _in_cells(segment.text)]
        del cells[max(0, width - x) :]
        end = x + len(cells)
        if row[x:end] == cells:
            return
        _leave_no_halves(row, x, end)
        row[x:end] = cells
        self._dirty.add(y)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _different(wanted: list[Cell | None], shown: list[Cell | None]) -> list[int]:
    """Where to draw: a wide character that changed in its second half alone is drawn from its first."""
    found: list[int] = []
    for x, (new, old) in enumerate(zip(wanted, shown, strict=True)):
        if new != old and new is not None:
            first = x
            while not new[0] and first > 0 and (before := wanted[first]) is not None and not before[0]:
                first -= 1
            if first != x and first not in found[-2:]:
                found.append(first)
            found.append(x)
    return found


def _leave_no_halves(row: list[Cell | None], start: int, end: int) -> None:
    """Blank what is left of wide characters that are drawn over from one side."""
    first = start
    while 0 < first < len(row) and (cell := row[first]) is not None and not cell[0]:
        first -= 1
    for x in range(first, start):
        cell = row[x]
        row[x] = None if cell is None else (" ", cell[1])
    while end < len(row) and (cell := row[end]) is not None and not cell[0]:
        row[end] = (" ", cell[1])
        end += 1


@lru_cache(8192)
def _in_cells(text: str) -> tuple[str, ...]:
    """Text cell by cell; what joins characters (an accent, a joiner) keeps all of the text in one piece."""
    width = cell_len(text)
    if text.isascii() and width == len(text):
        return tuple(text)
    sizes = [get_character_cell_size(character) for character in text]
    if 0 not in sizes and sum(sizes) == width:
        return tuple(part for character, size in zip(text, sizes, strict=True) for part in (character, "")[:size])
    return (text, *[""] * (width - 1)) if width else ()


@lru_cache(8192)
def _codes(style: Style | None, system: ColorSystem | None) -> Codes:
    """A style as terminals take it (ECMA-48, select graphic rendition): attributes, colour, background."""
    if style is None:
        return "", "", ""
    system = system or ColorSystem.TRUECOLOR
    attributes = attributes_of(style, system)
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
        codes = ["0", *after]
    else:
        codes = [new for old, new in zip(before, after, strict=True) if old != new]
    return f"\x1b[{';'.join(code for code in codes if code)}m"
