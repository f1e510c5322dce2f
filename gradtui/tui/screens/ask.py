"""A question with a few answers, one key each."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Button, Static


class AskScreen(ModalScreen[str]):
    """Asks; closes with the key of the answer. `answers` maps keys to what they do; "escape" is the safe one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
    ]

    def __init__(self, question: str, answers: dict[str, str]) -> None:
        super().__init__()
        self._question = question
        self._answers = answers

    def compose(self) -> ComposeResult:
        """The question over its answers."""
        with Vertical(id="ask"):
            yield Static(self._question, markup=False)
            for key, text in self._answers.items():
                shown = "esc" if key == "escape" else key
                yield Button(f"{shown:>3}  {text}", id=f"answer-{key}", compact=True)

    def on_mount(self) -> None:
        """Start on the safe answer, the last one."""
        self.query(Button).last().focus()

    def on_key(self, event: Key) -> None:
        """Each answer has its key."""
        if event.key in self._answers:
            event.stop()
            self.dismiss(event.key)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """An answer was clicked."""
        self.dismiss(str(event.button.id).removeprefix("answer-"))
