"""Every private name of Textual and Rich that is used, with the reason: what may break with another version of them.

| name                                    | why                                                                      |
| --------------------------------------- | ------------------------------------------------------------------------ |
| `textual._compositor` (three classes)   | what `App._display` is given: the cells that changed                     |
| `App._display`, `App._batch_count`      | drawing goes over a canvas, so that a slow terminal gets only the newest |
| `App._driver`                           | where that is written to                                                 |
| `App._sync_available`                   | whether the terminal shows what is between two marks at once             |
| `LinuxDriver._file`, `._loop`, `._app`  | output that is measured and cannot hang; answers of the terminal         |
| `Footer`'s children, `FooterKey`        | keys that do not fit are left out, and none is cut                       |
| `Console._color_system`, `Style._make_ansi_codes` (Rich) | colours as the terminal can show them                   |
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.app import App
from textual.widgets._footer import FooterKey

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.driver import Driver
    from textual.drivers.linux_driver import LinuxDriver
    from textual.screen import Screen

__all__ = ["ChopsUpdate", "CompositorUpdate", "FooterKey", "LayoutUpdate", "PaintedApp"]


class PaintedApp(App[str]):
    """An app whose updates for a real terminal go to `paint`."""

    def paint(self, update: CompositorUpdate) -> None:
        """Bring an update to the terminal."""
        raise NotImplementedError

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        real = self.is_running and not self._batch_count and not self.is_headless and not self.is_inline
        if real and isinstance(renderable, CompositorUpdate):
            self.paint(renderable)
            self.post_display_hook()
        else:
            super()._display(screen, renderable)


def driver_of(app: App[Any]) -> Driver | None:
    """What writes to the terminal; None before the app runs."""
    return app._driver


def can_synchronise(app: App[Any]) -> bool:
    """Whether the terminal knows synchronised output."""
    return bool(app._sync_available)


def file_of(driver: LinuxDriver) -> TextIO:
    """What the driver writes to."""
    return cast("TextIO", driver._file)


def write_to(driver: LinuxDriver, file: object) -> None:
    """Have the driver write to something else."""
    driver._file = cast("Any", file)


def app_of(driver: Driver) -> App[Any]:
    """The app that the driver draws."""
    return driver._app


def loop_of(driver: Driver) -> asyncio.AbstractEventLoop:
    """The event loop of that app."""
    return driver._loop


def colours_of(console: Console) -> ColorSystem | None:
    """The colours that a terminal can show."""
    return console._color_system


def attributes_of(style: Style, system: ColorSystem) -> str:
    """Bold, underlined and so on as a terminal takes them."""
    return style.without_color._make_ansi_codes(system)
