"""Every key of the screen below, and how to read what it shows."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

READING = """
Reading the bars

One bar a layer, the input's on top. Its length is the measure, on a logarithmic axis (l: linear); dotted lines are \
powers of ten. ×1e-05 is the share of the fastest layer. ↑ and ↓ say that the value moved by more than 2 % within the \
last second. ▒ NaN ▒ or ▒ ∞ ▒ means that the value is no number any more; — means that it was not measured. A curve \
ends at the number of its layer, and ! marks where a value was NaN or ∞.

Side by side, layers stand in rows counted from the output (out, −1, −2, …), all on one axis; spread is the fastest \
layer over the slowest. Through time, there is one bar a time step: ‖∂C/∂h(t)‖.

Pictures of a layer that is pretrained (i): filters are its weights, projected down to the pixels, blue for minus and \
orange for plus; a machine dreams by Gibbs sampling.

Learning speed  ‖∂C/∂b‖: the length of the gradient of the mean cost by the layer's biases
Weight gradient ‖∂C/∂W‖: the same by its weights; gradient norm ‖∂C/∂θ‖: by both
Parameter norm  ‖θ‖: how large the parameters are
Update ratio    ‖Δθ‖/‖θ‖: the optimizer's real step as a share of the parameters; 1e-3 is usual
Activations     mean and spread of a layer's outputs after its activation function; saturated, the share of them where \
a sigmoid or tanh is flat; dead, the share of the units after a ReLU that are zero on the whole batch

Findings (f) say what ails a net, since which step, by which numbers, and what may help.
"""


class HelpScreen(ModalScreen[None]):
    """Lists the bindings of a screen; closes with any of its own keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter,space", "dismiss", "close"),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
    ]

    def __init__(self, screen: Screen[object]) -> None:
        super().__init__()
        self._below = screen

    def compose(self) -> ComposeResult:
        """The keys, then how to read the screen."""
        with VerticalScroll(id="help"):
            yield Static(Content(self._keys() + "\n" + READING), id="help-text", markup=False)

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


def _key_name(key: str) -> str:
    names = {
        "left": "←", "right": "→", "question_mark": "?", "escape": "esc", "comma": ",", "full_stop": ".",
        "left_square_bracket": "[", "right_square_bracket": "]", "plus": "+", "minus": "-", "equals_sign": "=",
        "shift+left": "⇧←", "shift+right": "⇧→",
    }  # fmt: skip
    return names.get(key, key)
