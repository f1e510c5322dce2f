"""The line on top of a run: what it is, whether it lives, how far it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gradtui.tui.cells import Cell, CellWidget, cells, fit_cells
from gradtui.tui.palette import theme_style
from gradtui.tui.scales import number
from gradtui.tui.states import shown
from gradtui.tui.text import clean, fit

if TYPE_CHECKING:
    from gradtui.view import Snapshot


class RunHeader(CellWidget):
    """Name, state, step, epoch, speed, loss and metrics; what does not fit is left out from the right."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._snapshot: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        self._snapshot = snapshot
        self.repaint()

    def line(self, y: int, width: int) -> list[Cell]:
        """The one line."""
        ground = "panel"
        plain = theme_style(self.app, "foreground", background=ground)
        dim = theme_style(self.app, "dim", background=ground)
        bold = theme_style(self.app, "foreground", background=ground, bold=True)
        s = self._snapshot
        if s is None:
            return fit_cells([], width, plain)
        sign, word, colour = shown(s.status)
        name = clean(s.header.name)
        drawn = cells(" " + fit(name, min(len(name), max(10, width // 3))) + "  ", bold)
        drawn += cells(f"{sign} {word}", theme_style(self.app, colour, background=ground, bold=True))
        if s.playing:
            drawn += cells("  ▶ replay", theme_style(self.app, "accent", background=ground, bold=True))
        elif not s.following:
            drawn += cells("  ‖ paused", theme_style(self.app, "accent", background=ground, bold=True))
        facts = self._facts(s)
        for fact, alarm in facts:
            style = theme_style(self.app, "error", background=ground, bold=True) if alarm else plain
            if len(drawn) + 3 + len(fact) > width:
                break
            drawn += cells("   " if fact is facts[0][0] else " · ", dim) + cells(fact, style)
        return fit_cells(drawn, width, plain)

    @staticmethod
    def _facts(s: Snapshot) -> list[tuple[str, bool]]:
        steps, epochs = s.header.total_steps, s.header.total_epochs
        of = f" of {s.last_step:,}" if not s.following else f"/{steps:,}" if steps else ""
        # steps go on between the measured ones
        facts = [(f"step {s.last_step if s.following else s.step:,}{of}", False)]
        if s.epoch is not None:
            total = f"/{epochs:g}" if epochs else ""
            # the epoch counts finished ones in fractions; people count the one they are in
            facts.append((f"epoch {min(math.floor(s.epoch) + 1, epochs or math.inf):g}{total}", False))
        if s.loss is not None:
            facts.append((f"loss {number(s.loss)}", not math.isfinite(s.loss)))
        problems = sum(not finding.note for finding in s.holding)
        if problems:
            facts.append((f"{problems} finding{'s' * (problems > 1)}", True))
        for name, value in s.metrics:
            shown = f"{100 * value:.1f} %" if "accuracy" in name else number(value)
            facts.append(
                (
                    f"{clean(name).replace('_accuracy', '').replace('_', ' ')} {shown}",
                    not math.isfinite(value),
                )
            )
        if s.steps_per_second is not None:
            facts.append((f"{s.steps_per_second:,.0f} steps/s", False))
        return facts
