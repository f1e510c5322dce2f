"""What a screen about trainings owes to the app, which asks before it leaves one that still trains."""

from __future__ import annotations

from textual.screen import Screen


class TrainedScreen(Screen[None]):
    """A screen about one training or several."""

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

    def rest(self) -> None:
        """Stop reading: the screen is not seen again."""
        raise NotImplementedError
