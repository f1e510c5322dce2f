"""The error that the commands print in one line."""

from __future__ import annotations


class DataError(ValueError):
    """Data, files or layers are missing, damaged or do not fit; the message is one line: what, where, what to do."""
