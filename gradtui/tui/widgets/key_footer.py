"""The keys of a screen in its last line: as many as fit, none cut."""

from __future__ import annotations

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.events import Resize
from textual.widgets import Footer

from gradtui.tui.textual_private import FooterKey

BESIDE_A_KEY = 3  # blanks before the key, after it and after its description


class KeyFooter(Footer):
    """A footer that leaves out, from the right, the keys that do not fit; help has them all."""

    def __init__(self) -> None:
        super().__init__(show_command_palette=False)
        self._width = 0

    def compose(self) -> ComposeResult:
        """The keys that fit, in the order of the screen's bindings."""
        room = self._width = self.app.size.width
        for key in super().compose():
            if isinstance(key, FooterKey):
                room -= cell_len(key.key_display) + cell_len(key.description) + BESIDE_A_KEY
                if room < -1:  # the last blank may be missing
                    return
            yield key

    async def on_resize(self, event: Resize) -> None:
        """Show those that fit now."""
        if event.size.width != self._width:
            await self.recompose()
