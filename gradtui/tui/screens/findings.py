"""Every finding of a run in full: since when, its evidence, which remedies fit; those that are cleared come last."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from gradtui.tui import bindings
from gradtui.tui.screens.detail import DetailScreen
from gradtui.tui.text import clean

if TYPE_CHECKING:
    from gradtui.runfile import Finding
    from gradtui.view import Snapshot

NONE = "No problems found."
ID_WIDTH = 18  # of a remedy, before what it is


class FindingsScreen(DetailScreen):
    """The findings, one below the other."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings.ALWAYS, *bindings.scroll_keys(), bindings.back("f")]

    def body(self) -> Widget:
        """A page of text."""
        return _Page(id="findings")

    def draw(self, snapshot: Snapshot) -> None:
        """Write the findings down, if they are others than before."""
        page = self.query_one(_Page)
        page.border_title = "Findings"
        page.show(_in_full(snapshot.findings, snapshot.findings_problem, self.size.width - 4))
        self.say(f"of {snapshot.last_step:,} steps, measured {clean(snapshot.header.sampling)}")

    def on_resize(self) -> None:
        """Write them down for the new width."""
        if self._snapshot is not None:
            self.call_after_refresh(self.show, self._snapshot)

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


def _in_full(findings: tuple[Finding, ...], problem: str, width: int) -> Content:
    if problem:
        return Content(clean(problem))
    if not findings:
        return Content(f"{NONE}\n\n{_checked()}")
    pieces: list[Content] = []
    for finding in findings:
        style = "bold $foreground 55%" if finding.cleared else "bold $warning" if finding.note else "bold $error"
        since = f"since step {finding.begin:,}"
        until = f"cleared: steps {finding.begin:,} to {finding.end:,}" if finding.cleared else since
        pieces += [
            Content.styled(clean(finding.kind.upper()), style),
            Content(f"  {until}\n"),
            Content(f"  {clean(', '.join(finding.layers))}\n" if finding.layers else ""),
            Content(f"  {clean(finding.evidence)}\n"),
            *(Content(f"  {_remedy(remedy, width - 2)}\n") for remedy in finding.remedies if not finding.cleared),
            Content("\n"),
        ]
    return Content("").join(pieces)


def _checked() -> str:
    """What the diagnosis looks for."""
    from gradtui.diagnosis import kinds_in_order

    return f"Checked for {', '.join(clean(kind.name) for kind in kinds_in_order())}."


def _remedy(name: str, width: int) -> str:
    """A remedy by its id, and what it is where that fits beside it."""
    from gradtui.remedies import REMEDIES

    line = f"· try {clean(name)}"
    known = REMEDIES.get(name)
    if known is None:
        return line
    whole = f"{line:<{ID_WIDTH + 6}} {clean(known.what)}"
    return whole if len(whole) <= width else line
