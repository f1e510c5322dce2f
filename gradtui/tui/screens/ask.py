"""A question with a few answers, one key each."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static


class AskScreen(ModalScreen[str]):
    """Asks; closes with the key of the answer. `answers` maps keys to what they do; "escape" is the safe one."""

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
        """Each answer has its key."""
        for key, text in self._answers.items():
            self._bindings.bind(key, f"answer('{key}')", text)
        self._bindings.bind("up", "app.focus_previous", show=False)
        self._bindings.bind("down", "app.focus_next", show=False)
        self.query(Button).last().focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """An answer was clicked."""
        self.dismiss(str(event.button.id).removeprefix("answer-"))

    def action_answer(self, key: str) -> None:
        """An answer's key was pressed."""
        self.dismiss(key)
