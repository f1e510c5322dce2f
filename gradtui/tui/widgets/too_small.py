"""What is shown instead of a screen that does not fit."""

from __future__ import annotations

from textual.widgets import Static

LEAST_WIDTH, LEAST_HEIGHT = 60, 16


class TooSmall(Static):
    """Says how large the terminal is and how large it must be; shown by the screen's size classes."""

    def on_mount(self) -> None:
        """Start with the size there is."""
        self.on_resize()

    def on_resize(self) -> None:
        """Say the new size."""
        width, height = self.app.size
        need = f"gradtui needs {LEAST_WIDTH}×{LEAST_HEIGHT} cells;"
        self.update(f"{need}\nthis terminal has {width}×{height}.\nMake it larger, or q to quit.")
