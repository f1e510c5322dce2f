"""Build a recipe: every choice in a list, what it means, and how large and how long the training would be."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from gradtui.errors import UsageError
from gradtui.tui.bindings import HELP
from gradtui.tui.recipe_rows import changed, neighbour, rows, text_of
from gradtui.tui.text import fit
from gradtui.tui.widgets.key_footer import KeyFooter
from gradtui.tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from gradtui.lab.field import Field
    from gradtui.lab.recipe import Recipe

NAME_WIDTH = 16


class FieldList(OptionList):
    """A list whose keys stand in the footer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "screen.change(-1)", "change", key_display="←/→"),
        Binding("right", "screen.change(1)", "next", show=False),
        Binding("enter", "select", "type"),
    ]


class RecipeForm(Screen["Recipe | None"]):
    """Returns the recipe that is to be trained, or None.

    Args:
        recipe: what to start from.
        again: whether a training is repeated with something changed, to be compared with it.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        HELP,
        Binding("t", "train", "train", tooltip="start the training"),
        Binding("backspace", "undo", "as it was", tooltip="undo the change of this row"),
        Binding("escape", "leave", "back", tooltip="leave without training"),
    ]

    def __init__(self, recipe: Recipe, *, again: bool) -> None:
        super().__init__()
        self._start = recipe
        self._recipe = recipe
        self._again = again
        self._fields = rows()
        self._problem = ""

    def compose(self) -> ComposeResult:
        """The list of choices, what the one under the cursor means, and what it would cost."""
        yield Static("", id="form-header", markup=False)
        with Horizontal(id="form-body"):
            yield FieldList(id="fields", markup=False)
            with VerticalScroll(id="meaning", can_focus=False):
                yield Static(id="meaning-text", markup=False)
        yield Input(id="value", classes="-hidden")
        yield Static("", id="form-cost", markup=False)
        yield TooSmall()
        yield KeyFooter()

    def on_mount(self) -> None:
        """List the fields."""
        title = "The same again with one thing changed" if self._again else "A recipe of your own"
        self.query_one("#form-header", Static).update(title)
        listed = self._rows
        listed.border_title = "Recipe"
        self.query_one("#meaning").border_title = "What it means"
        listed.add_options([Option(self._row(field), id=field.name) for field in self._fields])
        listed.highlighted = next(i for i, field in enumerate(self._fields) if field.name == "activation")
        listed.focus()
        self._refresh_all()

    @property
    def _rows(self) -> OptionList:
        return self.query_one("#fields", OptionList)

    @property
    def _chosen(self) -> Field:
        return self._fields[self._rows.highlighted or 0]

    def _row(self, field: Field) -> Content:
        text = text_of(self._recipe, field)
        if field.name == "learning_rate" and not text:
            text = f"({self._recipe.rate:g})"
        mark = "•" if text_of(self._recipe, field) != text_of(self._start, field) else " "
        place = self._fields.index(field)
        group = field.group if not place or self._fields[place - 1].group != field.group else ""
        name = fit(field.words, NAME_WIDTH)
        return Content(f"{mark} {fit(group, 9)}{name}  ‹ {text or '—'} ›")

    def _refresh_all(self) -> None:
        """Bring every row, the meaning and the cost up to date."""
        for field in self._fields:
            self._rows.replace_option_prompt(field.name, self._row(field))
        self._show_meaning()
        from gradtui.lab.size import seconds

        recipe = self._recipe
        cost = f"{recipe.parameters:,} parameters  ·  {recipe.total_steps:,} steps"
        cost += f"  ·  about {_duration(seconds(recipe))}"
        line = self.query_one("#form-cost", Static)
        line.set_class(bool(self._problem), "-failed")
        line.update(self._problem or f"{cost}\n{recipe.summary}")

    def _show_meaning(self) -> None:
        self.query_one("#meaning-text", Static).update(self._chosen.meaning(getattr(self._recipe, self._chosen.name)))

    def on_option_list_option_highlighted(self) -> None:
        """Say what the row under the cursor means."""
        self._show_meaning()

    def on_option_list_option_selected(self) -> None:
        """Type a value."""
        self.action_edit()

    def action_change(self, by: int) -> None:
        """Go to a neighbouring value; those that do not fit the rest are skipped."""
        field = self._chosen
        text = text_of(self._recipe, field)
        problem = ""
        for _ in field.texts():
            text = neighbour(field, text, by)
            try:
                self._recipe = changed(self._recipe, field, text)
                self._problem = ""
                break
            except UsageError as error:
                problem = problem or str(error)
        else:
            self._problem = problem
        self._refresh_all()

    def action_edit(self) -> None:
        """Open the line in which a value is typed."""
        line = self.query_one("#value", Input)
        line.remove_class("-hidden")
        line.border_title = self._chosen.words
        line.border_subtitle = "enter takes it, esc leaves it"
        line.value = text_of(self._recipe, self._chosen)
        line.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the typed value, if it makes sense."""
        try:
            self._recipe = changed(self._recipe, self._chosen, event.value)
            self._problem = ""
        except UsageError as error:
            self._problem = str(error)
            self._refresh_all()
            return
        self._close_input()
        self._refresh_all()

    def action_undo(self) -> None:
        """Undo the change of the row under the cursor."""
        field = self._chosen
        try:
            self._recipe = changed(self._recipe, field, text_of(self._start, field))
            self._problem = ""
        except UsageError as error:
            self._problem = str(error)
        self._refresh_all()

    def action_leave(self) -> None:
        """Leave the line, or the form."""
        if self.focused is self.query_one("#value"):
            self._problem = ""
            self._close_input()
            self._refresh_all()
        else:
            self.dismiss(None)

    def action_train(self) -> None:
        """Start the training, called after what was changed."""
        changes = [
            f"{field.name.replace('_', ' ')} {text_of(self._recipe, field) or 'default'}"
            for field in self._fields
            if text_of(self._recipe, field) != text_of(self._start, field)
        ]
        if self._again and not changes:
            self._problem = "Nothing is changed yet: ← and → change the row under the cursor."
            self._refresh_all()
            return
        name = ", ".join(changes)[:60] if self._again else None
        self.dismiss(self._recipe.but(name=name))

    def _close_input(self) -> None:
        self.query_one("#value", Input).add_class("-hidden")
        self._rows.focus()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
