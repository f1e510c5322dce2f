"""The keys that several screens share, each written once; a key of one screen stands in that screen.

A footer shows as many as fit, the first ones first.
"""

from __future__ import annotations

from textual.binding import Binding, BindingType

HELP = Binding("question_mark", "app.help", "help", tooltip="this page")
QUIT = Binding("q", "app.leave", "quit", tooltip="quit the viewer; asks first while a training runs")
PAUSE = Binding("space", "toggle_pause", "pause", tooltip="pause or follow a live run; replay an ended one")
EARLIER = Binding("left", "jump(-1)", "time", key_display="←/→", tooltip="walk back through the training")
LATER = Binding("right", "jump(1)", "later", show=False, tooltip="walk on through the training")
LOG_AXIS = Binding("l", "toggle_log", "log", tooltip="logarithmic or linear axis")

ALWAYS: tuple[BindingType, ...] = (HELP, QUIT)
TIME: tuple[BindingType, ...] = (PAUSE, EARLIER, LATER)


def measure_keys(which: str) -> tuple[BindingType, ...]:
    """m and M: the next measure and the one before; `which` says what there is to go through."""
    return (
        Binding("m", "measure(1)", "measure", tooltip=f"the next measure: {which}"),
        Binding("M", "measure(-1)", "previous measure", show=False, tooltip="the measure before"),
    )


def bracket_keys(action: str, what: str, before: str, after: str) -> tuple[BindingType, ...]:
    """[ and ]: one thing of a row of them before or after the one that is shown."""
    return (
        Binding("left_square_bracket", f"{action}(-1)", what, key_display="[/]", tooltip=before),
        Binding("right_square_bracket", f"{action}(1)", f"next {what}", show=False, tooltip=after),
    )


def back(key: str, to: str = "the layers") -> Binding:
    """escape, and the key that opened the screen."""
    return Binding(f"escape,{key}", "dismiss", "back", tooltip=f"back to {to}")


def scroll_keys() -> tuple[BindingType, ...]:
    """The arrows, where the screen is a text."""
    return (
        Binding("up,k", "scroll(-1)", show=False, tooltip="scroll up"),
        Binding("down,j", "scroll(1)", show=False, tooltip="scroll down"),
    )
