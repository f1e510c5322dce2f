"""Every finding of a run in full: since when, the numbers that prove it, which remedies fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from gradtui.tui.screens.detail import DetailScreen
from gradtui.tui.text import clean

if TYPE_CHECKING:
    from gradtui.diagnosis import Finding
    from gradtui.view import Snapshot

NONE = (
    "Nothing that the diagnosis knows ails this net.\n\n"
    "It looks for NaN and infinity, exploding and vanishing gradients, dead and saturated units, steps too large or too"
    " small, a loss that stands still, and layers that do not move."
)


class FindingsScreen(DetailScreen):
    """The findings, one below the other."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "app.help", "help", tooltip="this page"),
        Binding("q", "app.leave", "quit", tooltip="quit the viewer; asks first while the training runs"),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
        Binding("escape,f", "dismiss", "back", tooltip="back to the layers"),
    ]

    def body(self) -> Widget:
        """A page of text."""
        return _Page(id="findings")

    def draw(self, snapshot: Snapshot) -> None:
        """Write the findings down, if they are others than before."""
        page = self.query_one(_Page)
        page.border_title = "Findings"
        page.show(_in_full(snapshot.findings))
        self.say(f"of {snapshot.last_step:,} steps, measured {clean(snapshot.sampling)}")

    def action_scroll(self, lines: int) -> None:
        """Scroll the text."""
        self.query_one(_Page).scroll_relative(y=lines, animate=False)


class _Page(VerticalScroll):
    """A text that scrolls."""

    def compose(self) -> ComposeResult:
        """The text."""
        yield Static(id="findings-text", markup=False)

    def show(self, text: Content) -> None:
        """Show another text."""
        page = self.query_one(Static)
        if text != page.content:
            page.update(text)


def _in_full(findings: tuple[Finding, ...]) -> Content:
    if not findings:
        return Content(NONE)
    parts: list[Content] = []
    for finding in findings:
        parts += [
            Content.styled(f"{finding.kind.upper()}", "bold $error" if not finding.note else "bold $warning"),
            Content(f"  since step {finding.begin:,}\n"),
            Content(f"  {clean(', '.join(finding.layers))}\n" if finding.layers else ""),
            Content(f"  {clean(finding.evidence)}\n"),
            *(Content(f"  · try {clean(remedy)}\n") for remedy in finding.remedies),
            Content("\n"),
        ]
    return Content("").join(parts)
