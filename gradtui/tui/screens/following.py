"""What the screens of one run and of several have in common: the thread that follows, and what it delivers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from textual.css.query import NoMatches
from textual.screen import Screen

from gradtui.tui.follow_thread import FollowThread, View
from gradtui.tui.messages import Delivered, Slot

if TYPE_CHECKING:
    from gradtui.runfile import Measure

T = TypeVar("T")


class FollowingScreen(Screen[None], Generic[T]):
    """A screen of one training or several, which the app asks about before it leaves.

    Args:
        view: what is shown.
        frames_per_second: how often it is polled.
        ready: whether the last picture is on the terminal.
    """

    def __init__(self, view: View[T], *, frames_per_second: float, ready: Callable[[], bool]) -> None:
        super().__init__()
        self._slot: Slot[T] = Slot()
        self._resting = False
        self.following = FollowThread(view, self.deliver, frames_per_second=frames_per_second, ready=ready)

    def on_mount(self) -> None:
        """Start reading once the first frame is on the screen."""
        self.call_after_refresh(self.following.start)

    def on_unmount(self) -> None:
        """Stop reading."""
        self.following.stop()

    def rest(self) -> None:
        """Stop reading: the screen is not seen again."""
        self.following.stop()
        self._resting = True

    def deliver(self, newest: T) -> None:
        """Take what there is to show; may be called on any thread."""
        if self._slot.put(newest):
            self.post_message(Delivered())

    async def on_delivered(self) -> None:
        """Show the newest delivery."""
        newest = self._slot.take()
        if newest is None or self._resting:
            return
        try:
            await self.show(newest)
        except NoMatches:
            if self in self.app.screen_stack:
                raise
            # it arrived while the screen was being left, and the widgets are gone already

    async def show(self, newest: T) -> None:
        """Show what was delivered."""
        raise NotImplementedError

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that the run has, for help; empty until it is known."""
        raise NotImplementedError

    @property
    def name_to_attach(self) -> str:
        """What `gradtui attach` takes to show this again."""
        raise NotImplementedError

    @property
    def can_stop(self) -> bool:
        """Whether something still trains, or is starting to, and takes the command to stop."""
        raise NotImplementedError

    def stop_training(self) -> None:
        """Ask it to stop; raises `GradtuiError` or `OSError` if it cannot be asked."""
        raise NotImplementedError
