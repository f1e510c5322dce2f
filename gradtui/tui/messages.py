"""What crosses from the thread that follows runs, and from lists of bars, to a screen."""

from __future__ import annotations

from typing import Generic, TypeVar

from textual.message import Message

T = TypeVar("T")


class Delivered(Message):
    """There is something newer to show; `take` it, since it may have become newer still."""


class RowSelected(Message):
    """The cursor of a list of bars is on another row."""

    def __init__(self, row: int) -> None:
        super().__init__()
        self.row = row


class RowOpened(RowSelected):
    """A row was clicked twice."""


class Slot(Generic[T]):
    """Holds the newest delivery, and posts one message for any number of deliveries that are not taken yet."""

    def __init__(self) -> None:
        self._newest: T | None = None
        self.waiting = False

    def put(self, newest: T) -> bool:
        """Replace the newest; True if a message is due."""
        self._newest = newest
        due, self.waiting = not self.waiting, True
        return due

    def take(self) -> T | None:
        """The newest delivery."""
        self.waiting = False
        return self._newest
