"""Brings the canvas to the terminal, as much at a time as the link has room for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from textual.app import App

from gradtui.tui.canvas import Canvas
from gradtui.tui.link import QUESTION, Link
from gradtui.tui.textual_private import CompositorUpdate, can_synchronise, driver_of

POLL_EVERY = 0.05  # s between polls for room for the rest; an answer says so at once
SYNCHRONIZED = ("\x1b[?2026h", "\x1b[?2026l")  # the terminal shows what is between them at once


class Painter:
    """Draws for an app; used on its event loop alone, but for `wake`."""

    def __init__(self, app: App[Any], link: Link) -> None:
        self._app = app
        self._link = link
        self._canvas = Canvas(0, 0)
        self._polling = False

    def draw(self, update: CompositorUpdate) -> None:
        """Take over what Textual has drawn, and send what there is room for."""
        if self._canvas.size != tuple(self._app.size):
            self._canvas = Canvas(*self._app.size)
        self._canvas.draw(update, self._app.console)
        self.send()

    def redraw(self) -> None:
        """Send everything again: the terminal may have lost it."""
        self._canvas.forget()
        self.send()

    def wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send the rest soon, if there is room for it; may be called from any thread."""
        if self._link.unsent:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                loop.call_soon_threadsafe(self.send)

    def send(self) -> None:
        """Send what there is room for, and poll for the rest."""
        driver = driver_of(self._app)
        if driver is None or not self._app.is_running:
            return
        room = self._link.room()
        changes = self._canvas.changes(room) if room else ""
        if changes:
            x, y = self._app.screen.outer_size.clamp_offset(self._app.cursor_position)
            begin, end = SYNCHRONIZED if can_synchronise(self._app) else ("", "")
            data = f"{begin}{changes}\x1b[{y + 1};{x + 1}H{end}{QUESTION}"
            self._link.sent(len(data.encode()))
            driver.write(data)
        self._link.unsent = self._canvas.unsent
        if self._canvas.unsent and not self._polling:
            self._polling = True
            self._app.set_timer(POLL_EVERY, self._poll)

    def _poll(self) -> None:
        self._polling = False
        self.send()
