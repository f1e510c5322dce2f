"""Colours, all from the theme: a layer has the same colour in its bar and in its curve."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rich.style import Style
from textual.color import Color, Gradient
from textual.theme import Theme

if TYPE_CHECKING:
    from textual.app import App

DARK = Theme(
    name="gradtui-dark",
    primary="#5fb3f9",
    secondary="#b48ef5",
    accent="#f7a35c",
    warning="#f2c14e",
    error="#ff5d6c",
    success="#5ad6a0",
    foreground="#d7dce5",
    background="#0f1218",
    surface="#151a22",
    panel="#1d2430",
    dark=True,
    variables={"border": "#2c3646", "border-blurred": "#2c3646", "footer-key-foreground": "#f7a35c"},
)
LIGHT = Theme(
    name="gradtui-light",
    primary="#1769aa",
    secondary="#7b3fb5",
    accent="#c25b00",
    warning="#a87400",
    error="#c4162a",
    success="#15803d",
    foreground="#1c2330",
    background="#fbfbf9",
    surface="#f3f3ef",
    panel="#e7e7e1",
    dark=False,
    variables={"border": "#c3c5c0", "border-blurred": "#c3c5c0", "footer-key-foreground": "#c25b00"},
)


_FADED = {"dim": 0.45, "faint": 0.75}  # how far a style fades into its background


def theme_style(app: App[object], name: str, *, background: str = "surface", bold: bool = False) -> Style:
    """A style in the theme's colours, e.g. `theme_style(app, "error", bold=True)`; "dim" and "faint" fade the text."""
    variables = app.theme_variables
    ground = variables.get(background, "#000000")
    foreground = variables.get(name) or variables.get("foreground", "#ffffff")
    return _style(foreground, ground, bold, _FADED.get(name, 0.0))


def layer_style(app: App[object], layer: int, layers: int, *, background: str = "surface") -> Style:
    """A layer in its colour."""
    colour = layer_colour(app, layer, layers)
    return _style(colour.hex, app.theme_variables.get(background, "#000000"), False, 0.0)


def layer_colour(app: App[object], layer: int, layers: int) -> Color:
    """The colour of a layer: from the theme's accent (at the input) through its secondary to its primary colour."""
    variables = app.theme_variables
    return _blend((variables["accent"], variables["secondary"], variables["primary"]), layer, layers)


def shade_style(app: App[object], upper: int, lower: int | None, levels: int, signed: bool) -> Style:
    """Two shades out of `levels`, for a cell of two pixels, in the theme's colours; no lower one is the background.

    Signed ones go from the primary colour over the surface to the accent, others from the surface to the foreground.
    """
    variables = app.theme_variables
    surface = variables["surface"]
    stops = (variables["primary"], surface, variables["accent"]) if signed else (surface, variables["foreground"])
    ground = surface if lower is None else _blend(stops, lower, levels).hex
    return _style(_blend(stops, upper, levels).hex, ground, False, 0.0)


@lru_cache(4096)
def _blend(stops: tuple[str, ...], position: int, count: int) -> Color:
    gradient = Gradient.from_colors(*(Color.parse(stop) for stop in stops))
    return gradient.get_color(position / max(1, count - 1))


@lru_cache(4096)
def _style(foreground: str, background: str, bold: bool, fade: float) -> Style:
    ground = Color.parse(background)
    colour = Color.parse(foreground).blend(ground, fade) if fade else Color.parse(foreground)
    return Style.from_color(colour.rich_color, ground.rich_color) + Style(bold=bold)
