"""What crosses from the feed's thread, and from lists of bars, to a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from gradtui.tui.feed import Waiting
    from gradtui.view import Snapshot


class Delivered(Message):
    """The feed has something newer to show; `take` it, since it may have become newer still."""


class RowSelected(Message):
    """The cursor of a list of bars is on another row."""

    def __init__(self, row: int) -> None:
        super().__init__()
        self.row = row


class RowOpened(RowSelected):
    """A row was clicked twice."""


class Slot:
    """Holds the newest delivery, and posts one message for any number of deliveries that are not taken yet."""

    def __init__(self) -> None:
        self._newest: Snapshot | Waiting | None = None
        self.waiting = False

    def put(self, newest: Snapshot | Waiting) -> bool:
        """Replace the newest; True if a message is due."""
        self._newest = newest
        due, self.waiting = not self.waiting, True
        return due

    def take(self) -> Snapshot | Waiting | None:
        """The newest delivery."""
        self.waiting = False
        return self._newest
