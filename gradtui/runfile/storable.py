"""Rows as SQLite can keep them."""

from __future__ import annotations

from typing import Any


def storable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same row, in which what is no character is written as an escape, as `\\udc80` for a lone surrogate.

    SQLite keeps all characters there are, NUL and control characters too.
    """
    if all(not isinstance(value, str) or value.isascii() for value in row):
        return row
    return tuple(
        value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value for value in row
    )
