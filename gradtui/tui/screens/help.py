"""Every key of the screen below, how to read what it shows, and what the measures of the run are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from gradtui.tui import bindings
from gradtui.tui.text import clean, title_of

if TYPE_CHECKING:
    from gradtui.runfile import Measure

READING = """
Reading the bars

One bar a layer, the input's on top. Its length is the measure, on a logarithmic axis (l: linear); dotted lines are \
powers of ten. ×1e-05 is the share of the fastest layer. ↑ and ↓ say that the value moved by more than 2 % within the \
last second. ▒ NaN ▒ or ▒ ∞ ▒ says that the value is NaN or infinite; — that it was not measured. A curve ends at the \
number of its layer, and ! marks where a value was NaN or ∞.

Side by side, layers stand in rows counted from the output (out, −1, −2, …), all on one axis; the speed ratio is the \
fastest layer over the slowest. Through time, there is one bar a time step: ‖∂C/∂h(t)‖.

Pictures of a layer that is pretrained (i): filters are its weights, projected down to the pixels, blue for negative \
and orange for positive; samples are drawn from an RBM by Gibbs sampling.

Findings (f) say what is wrong with a net, since which step, by which evidence, and which remedies may help; \
`gradtui remedies` lists them. A finding that no longer holds is cleared, and stays in the list.
"""


class HelpScreen(ModalScreen[None]):
    """Lists the bindings of a screen; closes with any of its own keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter,space", "dismiss", "close"),
        *bindings.scroll_keys(),
    ]

    def __init__(self, screen: Screen[Any]) -> None:
        super().__init__()
        self._below = screen

    def compose(self) -> ComposeResult:
        """The keys, then how to read the screen."""
        measures: tuple[Measure, ...] = getattr(self._below, "measures", ())
        with VerticalScroll(id="help"):
            text = "\n".join([self._keys(), READING, *map(_definition, measures)])
            yield Static(Content(text), id="help-text", markup=False)

    def on_mount(self) -> None:
        """Title it."""
        panel = self.query_one("#help")
        panel.border_title = "Keys"
        panel.border_subtitle = "esc closes"

    def action_scroll(self, lines: int) -> None:
        """Scroll the text."""
        self.query_one("#help", VerticalScroll).scroll_relative(y=lines, animate=False)

    def _keys(self) -> str:
        lines = ["  ↑ ↓            select a row (also k, j, page up, page down, g, G, and the mouse)"]
        focused = type(self._below.focused).BINDINGS if self._below.focused is not None else []
        for binding in [*self._below.BINDINGS, *(b for b in focused if isinstance(b, Binding) and b.show)]:
            if isinstance(binding, Binding):
                keys = " ".join(_key_name(key) for key in binding.key.split(","))
                lines.append(f"  {keys:<14} {binding.tooltip or binding.description}")
        return "\n".join(lines)


def _definition(measure: Measure) -> str:
    """A measure as its run file defines it."""
    unit = "" if measure.unit in ("", "1", None) else f" [{clean(measure.unit)}]"
    return f"{title_of(measure)}{unit}: {clean(measure.definition)}"


def _key_name(key: str) -> str:
    names = {
        "left": "←", "right": "→", "question_mark": "?", "escape": "esc", "comma": ",", "full_stop": ".",
        "left_square_bracket": "[", "right_square_bracket": "]", "plus": "+", "minus": "-", "equals_sign": "=",
        "shift+left": "⇧←", "shift+right": "⇧→",
    }  # fmt: skip
    return names.get(key, key)
