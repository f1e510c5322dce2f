"""Pictures in terminal cells: two pixels a cell, the upper in the colour of ▀, the lower in that behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEVELS = 32  # shades a pixel can have: more could not be told apart, and would cost the terminal more
WANTED = 12  # tiles that should be seen at once, if need be at a smaller scale
SMALLEST = 4  # pixels on a side that become one


@dataclass(frozen=True)
class Grid:
    """Tiles of `height` × `width` pixels, each the mean of `scale`² of the picture's, `across` × `down` of them."""

    scale: int
    height: int
    width: int
    across: int
    down: int

    @property
    def lines(self) -> int:
        """Lines of the terminal that a tile takes, without the gap below it."""
        return -(-self.height // 2)


def fit(count: int, rows: int, columns: int, width: int, height: int) -> Grid:
    """How `count` pictures of `rows` × `columns` pixels fit into `width` × `height` cells, a cell apart."""
    for scale in range(1, SMALLEST + 1):
        tall, wide = -(-rows // scale), -(-columns // scale)
        across, down = (width + 1) // (wide + 1), (height + 1) // (-(-tall // 2) + 1)
        if across * down >= min(count, WANTED):
            break
    return Grid(scale, tall, wide, max(1, across), max(1, down))


def shades(pixels: bytes, rows: int, columns: int, scale: int) -> list[list[list[int]]]:
    """Bytes of pictures [count, rows, columns] as levels 0 to 31, each the mean of `scale`² pixels."""
    size = rows * columns
    return [
        [
            [
                _mean(pixels, start, columns, range(y, min(y + scale, rows)), range(x, min(x + scale, columns)))
                for x in range(0, columns, scale)
            ]
            for y in range(0, rows, scale)
        ]
        for start in range(0, len(pixels), size)
    ]


def _mean(pixels: bytes, start: int, columns: int, rows: Sequence[int], places: Sequence[int]) -> int:
    total = sum(pixels[start + y * columns + x] for y in rows for x in places)
    return min(LEVELS - 1, total * LEVELS // (256 * len(rows) * len(places)))
