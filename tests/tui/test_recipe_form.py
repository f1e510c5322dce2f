"""The recipe form, "same again with …", and the gradient through time, driven key by key."""

from __future__ import annotations

import math
from dataclasses import fields as fields_of
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input, OptionList

from gradtui.errors import UsageError
from gradtui.lab.recipe import Recipe
from gradtui.lab.train import train
from gradtui.runfile import RunWriter
from gradtui.tui.app import GradtuiApp
from gradtui.tui.recipe_rows import changed, neighbour, rows
from gradtui.tui.recipe_rows import text_of as value_of
from gradtui.tui.screens.compare import CompareScreen
from gradtui.tui.screens.home import HomeScreen
from gradtui.tui.screens.recipe_form import RecipeForm
from gradtui.tui.screens.run import RunScreen
from gradtui.tui.screens.through_time import ThroughTimeScreen, describe_decay
from gradtui.tui.widgets.side_by_side import SideBySide
from tests.synthetic import MEASURES, header, layers, make_run, speeds
from tests.tui.driving import shows, text_of, wait_for

BY_NAME = {field.name: field for field in rows()}


def test_every_field_of_the_form_is_one_of_a_recipe_and_has_a_meaning() -> None:
    assert set(BY_NAME) <= {field.name for field in fields_of(Recipe)}
    for field in rows():
        assert field.meaning(getattr(Recipe(), field.name)) or value_of(Recipe(), field) == "none", field.name


@given(st.sampled_from(rows()), st.integers(-3, 3), st.text(max_size=4) | st.floats().map(str))
def test_any_text_is_a_recipe_or_a_usage_error(field: object, by: int, text: str) -> None:
    assert neighbour(field, text, by or 1) in field.texts()  # type: ignore[attr-defined, arg-type]
    try:
        recipe = changed(Recipe(), field, text)  # type: ignore[arg-type]
    except UsageError as error:
        assert "\n" not in str(error).replace(repr(text), "")
    else:
        assert changed(recipe, field, value_of(recipe, field)) == recipe  # type: ignore[arg-type]


def test_arrows_go_on_from_a_number_that_is_not_among_those_offered() -> None:
    dropout = BY_NAME["dropout"]
    assert (neighbour(dropout, "0.15", 1), neighbour(dropout, "0.15", -1)) == ("0.2", "0.1")
    assert (neighbour(dropout, "0.9", 1), neighbour(dropout, "0.5", 1)) == ("0", "0")


async def at(pilot: object, name: str) -> None:
    listed = pilot.app.screen.query_one("#fields", OptionList)  # type: ignore[attr-defined]
    listed.highlighted = [field.name for field in rows()].index(name)
    await pilot.pause()  # type: ignore[attr-defined]


async def test_a_recipe_is_built_counted_and_trained(runs_in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Recipe] = []
    monkeypatch.setattr(GradtuiApp, "start", lambda self, recipe: started.append(recipe))
    app = GradtuiApp(runs_in_tmp)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "What to look at")
        await pilot.press("f")
        await wait_for(pilot, lambda: isinstance(app.screen, RecipeForm))
        await at(pilot, "hidden")
        await pilot.press("enter")
        app.screen.query_one(Input).value = "20x3"
        await pilot.press("enter")
        await shows(pilot, f"{65 * 20 + 2 * 21 * 20 + 21 * 10:,} parameters")
        assert "about" in text_of(app.screen)
        await at(pilot, "activation")
        await pilot.press("right", "right", "right")
        await shows(pilot, "its slope is 1 where it is on")
        await at(pilot, "net")
        await pilot.press("right", "right", "right")
        await shows(pilot, "each layer sees the outputs of all before it")
        await pilot.press("backspace")
        await shows(pilot, "one layer after the other")
        await pilot.press("t")
        await wait_for(pilot, lambda: started)
    (recipe,) = started
    assert (recipe.hidden, recipe.activation, recipe.net) == ((20, 20, 20), "relu", "plain")


async def test_what_makes_no_sense_is_said_and_changes_nothing(runs_in_tmp: Path) -> None:
    app = GradtuiApp(runs_in_tmp)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "What to look at")
        await pilot.press("f")
        await wait_for(pilot, lambda: isinstance(app.screen, RecipeForm))
        for name, text, says in (
            ("hidden", "30,x", "--hidden '30,x'"),
            ("momentum", "fast", "momentum 'fast': give a number"),
            ("dropout", "2", "--dropout 2: give from 0 to 0.95"),
            ("forget_bias", "3", "--forget-bias is for --net lstm"),
        ):
            await at(pilot, name)
            await pilot.press("enter")
            app.screen.query_one(Input).value = text
            await pilot.press("enter")
            await shows(pilot, says)
            await pilot.press("escape")
            assert isinstance(app.screen, RecipeForm)
        await shows(pilot, "parameters")
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_same_again_changes_one_thing_keeps_the_seed_and_opens_compare(
    runs_in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Recipe(hidden=(8, 8), epochs=2, train_size=100, batch_size=50, seed=7)
    path = train(first, folder=runs_in_tmp).path
    assert path is not None
    app = GradtuiApp(runs_in_tmp, run=path)
    async with app.run_test(size=(140, 40)) as pilot:
        await shows(pilot, "Learning speed")
        await pilot.press("w")
        await wait_for(pilot, lambda: isinstance(app.screen, RecipeForm))
        await pilot.press("t")
        await shows(pilot, "Nothing is changed yet")
        await at(pilot, "activation")
        await pilot.press("right")
        await pilot.press("t")
        await wait_for(pilot, lambda: isinstance(app.screen, CompareScreen))
        side = app.screen.query_one(SideBySide)
        for _ in range(30):  # torch is loaded in between
            await pilot.pause(0.5)
            if len(side.runs) == 2 and side.runs[1].state == "finished":
                break
        await shows(pilot, "2 of 2 done")
        assert side.runs[1].label == "activation tanh"
        second = side.runs[1].path
    from gradtui.runfile import open_run

    with open_run(second) as reader:
        assert reader.header.recipe is not None
        again = Recipe.from_json(reader.header.recipe)
    assert again == first.but(activation="tanh", name="activation tanh")


async def test_a_run_of_ones_own_cannot_be_had_again_and_has_no_time_steps(runs_in_tmp: Path) -> None:
    app = GradtuiApp(runs_in_tmp, run=make_run(runs_in_tmp / "own.gradtui").path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "In words")
        await pilot.press("w", "t")
        assert isinstance(app.screen, RunScreen)
        assert any("not recurrent" in note.message for note in app._notifications)
        assert "plot" in text_of(app.screen) and "again with" not in text_of(app.screen)


def recurrent_run(path: Path) -> Path:
    writer = RunWriter(path, header("recurrent"), MEASURES)
    writer.set_layers(layers(2))
    for step in (1, 2):
        writer.step(step, step / 2, step / 2, 0.5, 0.1, speeds(step, 2).tobytes())
        fading = np.geomspace(1e-12 * step, 0.25, 40).astype(np.float32)
        fading[0] = 0.0
        writer.through_time(step, {"h1": fading, "c1": np.full(40, 0.25 * step, np.float32)})
    writer.close()
    return path


async def test_the_gradient_through_time_is_a_bar_a_time_step(runs_in_tmp: Path) -> None:
    app = GradtuiApp(runs_in_tmp, run=recurrent_run(runs_in_tmp / "rnn.gradtui"))
    async with app.run_test(size=(100, 50)) as pilot:
        await shows(pilot, "In words")
        await pilot.press("t")
        await wait_for(pilot, lambda: isinstance(app.screen, ThroughTimeScreen))
        await shows(pilot, "‖∂C/∂c1(t)‖")
        assert "level: the first of 40 time steps has 1 of the last one's gradient" in text_of(app.screen)
        await pilot.press("right_square_bracket")
        await shows(pilot, "‖∂C/∂h1(t)‖")
        text = text_of(app.screen)
        assert "0 at the first time step, 0.250 at the last" in text and "at step 2" in text
        bars = [line.count("█") for line in text.splitlines() if "×" in line and "│" in line]
        assert len(bars) == 40 and bars == sorted(bars) and bars[0] == 0 < bars[-1]
        await pilot.press("left")
        await shows(pilot, "at step 1")
        await pilot.press("space", "l", "escape")
        await wait_for(pilot, lambda: isinstance(app.screen, RunScreen))


@pytest.mark.parametrize(
    ("norms", "says"),
    [
        ((1e-9, 1e-3), "the first of 2 time steps has 1.0e-06 of the last one's gradient"),
        ((math.nan, 1.0), "not finite: NaN at the first"),
        ((1.0, math.inf), "∞ at the last"),
        ((0.5, 0.0), "what is exactly 0 teaches nothing"),
        ((5.0, 1.0), "level"),
    ],
)
def test_the_gradient_through_time_describe_decay(norms: tuple[float, ...], says: str) -> None:
    assert says in describe_decay("h1", norms)
