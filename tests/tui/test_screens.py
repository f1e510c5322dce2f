"""Screens driven key by key, in memory."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
from textual.widgets import Static

from gradtui.runfile import NOT_MEASURED, Finding, Measure, RunWriter
from gradtui.tui.app import GradtuiApp
from gradtui.tui.scales import number
from gradtui.tui.screens.ask import AskScreen
from gradtui.tui.screens.help import HelpScreen
from gradtui.tui.screens.home import HomeScreen
from gradtui.tui.screens.neurons import NeuronsScreen
from gradtui.tui.screens.plot import PlotScreen
from gradtui.tui.screens.run import RunScreen
from gradtui.tui.widgets.bars import Bars
from tests.synthetic import MEASURES, header, layers, make_run, speeds, write_steps
from tests.tui.driving import WICKED, app_of, live_run, shows, step_shown, text_of, wait_for


async def test_the_bars_show_every_layer_with_its_number_and_its_share(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "In words")
        text = text_of(app.screen)
        values = speeds(1000, 4)[:, 0]
        for layer, value in enumerate(values):
            assert re.search(rf"{layer + 1} fc{layer + 1} +30→30 .* {re.escape(number(float(value)))} ", text)
        lengths = [line.count("█") for line in text.splitlines() if re.search(r"\b[1-4] fc[1-4] ", line)]
        assert len(lengths) == 4 and lengths == sorted(lengths)
        assert f"×{1:.2f}" in text and "✔ finished" in text and "step 1,000" in text
        assert re.search(r"fc1 learns [0-9]+× slower than fc4", text)


async def test_m_goes_through_the_measures_and_l_changes_the_axis(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "Learning speed")
        await pilot.press("m")
        await shows(pilot, "Update ratio")
        await pilot.press("m")
        await shows(pilot, "Learning speed")
        await pilot.press("M")
        await shows(pilot, "Update ratio")
        assert "log " in text_of(app.screen)
        await pilot.press("l")
        await shows(pilot, "linear 0")


async def test_walking_through_time_shows_the_values_of_that_step(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "step 1,000")
        await pilot.press("left")
        await shows(pilot, "‖ paused")
        assert step_shown(app) == 980
        await pilot.press("comma")
        await shows(pilot, "step 979 of 1,000")
        screen = app.screen
        assert isinstance(screen, RunScreen) and screen.snapshot is not None
        np.testing.assert_array_equal(np.float32(screen.snapshot.values), speeds(979, 4)[:, 0])
        await pilot.press("full_stop", "full_stop")
        await shows(pilot, "step 981 of 1,000")
        await pilot.press("home")
        await shows(pilot, "step 1 of 1,000")
        await pilot.press("end")
        await wait_for(pilot, lambda: "paused" not in text_of(app.screen) and step_shown(app) == 1000)


async def test_space_pauses_a_live_run_and_follows_again(runs_in_tmp: Path) -> None:
    writer = live_run(runs_in_tmp)
    app = app_of(writer.path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "● live")
        await shows(pilot, "step 1,000")
        await pilot.press("space")
        await shows(pilot, "‖ paused")
        write_steps(writer, 1001, 1200, 4)
        await shows(pilot, "step 1,000 of 1,200")
        await pilot.press("space")
        await wait_for(pilot, lambda: step_shown(app) == 1200 and "paused" not in text_of(app.screen))
    writer.close()


async def test_space_replays_a_run_that_has_ended(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "step 1,000")
        await pilot.press("space")
        await shows(pilot, "▶ replay")
        early = step_shown(app)
        assert early < 200
        await wait_for(pilot, lambda: step_shown(app) > early)
        await pilot.press("space")
        await shows(pilot, "‖ paused")


async def test_the_strip_and_the_neurons_are_of_the_selected_layer(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "Neurons of fc1")
        await pilot.press("down", "j")
        await shows(pilot, "Neurons of fc3")
        await pilot.press("n")
        await wait_for(pilot, lambda: isinstance(app.screen, NeuronsScreen))
        await shows(pilot, "neuron 1 of 30")
        grads = np.sin(np.arange(30) + 2).astype(np.float32) * speeds(1000, 4)[2, 0]
        assert f"∂C/∂b = {grads[0]:.8e}" in text_of(app.screen)
        await pilot.press("s")
        largest = int(np.abs(grads).argmax())
        await shows(pilot, f"neuron {largest + 1} of 30   ∂C/∂b = {grads[largest]:.8e}")
        await pilot.press("G")
        smallest = int(np.abs(grads).argmin())
        await shows(pilot, f"neuron {smallest + 1} of 30")
        await pilot.press("right_square_bracket")
        await shows(pilot, "Neurons of fc4")
        await pilot.press("escape")
        await shows(pilot, "Neurons of fc4")
        assert isinstance(app.screen, RunScreen)


async def test_a_click_selects_and_a_double_click_opens(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "Neurons of fc1")
        await pilot.click("#bars", offset=(10, 4))
        await shows(pilot, "Neurons of fc2")
        await pilot.click("#bars", offset=(10, 4), times=2)
        await wait_for(pilot, lambda: isinstance(app.screen, NeuronsScreen))


async def test_the_plot_zooms_and_pans(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "In words")
        await pilot.press("p")
        await wait_for(pilot, lambda: isinstance(app.screen, PlotScreen))
        await shows(pilot, "1,000")
        await pilot.press("plus")
        await shows(pilot, "750")
        await pilot.press("right")
        await shows(pilot, "875")
        await pilot.press("home")
        await shows(pilot, "1,000")
        await pilot.press("m", "m")
        await shows(pilot, "Loss")
        await pilot.press("escape")
        assert isinstance(app.screen, RunScreen)


async def test_help_tells_every_key_of_every_screen(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(120, 60)) as pilot:
        await shows(pilot, "In words")
        await pilot.press("question_mark")
        await wait_for(pilot, lambda: isinstance(app.screen, HelpScreen))
        text = text_of(app.screen)
        for binding in RunScreen.BINDINGS:
            assert binding.tooltip and binding.tooltip in text, binding  # type: ignore[union-attr]
        await pilot.press("escape")
        assert isinstance(app.screen, RunScreen)


async def test_help_defines_the_measures_of_the_run_itself(runs_in_tmp: Path) -> None:
    writer = RunWriter(
        runs_in_tmp / "own.gradtui", header(), (Measure("mine", "m", "apples", "[my] own", title="Mine"),)
    )
    writer.set_layers(layers(2))
    writer.step(1, 0.1, 0.1, 0.5, 0.1, np.ones((2, 1), np.float32).tobytes())
    writer.close()
    for app in (app_of(writer.path), GradtuiApp(runs_in_tmp, comparison=[writer.path])):
        async with app.run_test(size=(120, 40)) as pilot:
            await shows(pilot, "Mine  m")
            await pilot.press("question_mark")
            await wait_for(pilot, lambda app=app: isinstance(app.screen, HelpScreen))
            text = str(app.screen.query_one("#help-text", Static).content)
            assert "Mine  m [apples]: [my] own" in text and "∂C/∂b‖ [" not in text


@pytest.mark.parametrize("width", [60, 72, 79, 80, 96, 120])
async def test_a_key_stands_in_the_footer_as_a_whole_or_not_at_all(width: int, runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(140, 40)) as pilot:
        await shows(pilot, "In words")
        await shows(pilot, "p plot")
        whole = text_of(app.screen).splitlines()[-1].split("  ")
        await pilot.resize_terminal(width, 24)
        await shows(pilot, "? help")
        await wait_for(pilot, lambda: len(text_of(app.screen).splitlines()[-1]) == width)
        await pilot.pause(0.3)
        shown = text_of(app.screen).splitlines()[-1].rstrip().split("  ")
        assert shown == [key.rstrip() for key in whole[: len(shown)]] and len(shown) >= 5
        rest = whole[len(shown)].rstrip()
        assert not rest or len("  ".join([*shown, rest])) > width, "as many as fit"


@pytest.mark.parametrize("answer", ["l", "s", "escape"])
async def test_leaving_a_training_asks_and_each_answer_does_what_it_says(answer: str, runs_in_tmp: Path) -> None:
    writer = live_run(runs_in_tmp, takes_commands=["stop"])
    app = app_of(writer.path)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "● live")
        await pilot.press("q")
        await wait_for(pilot, lambda: isinstance(app.screen, AskScreen))
        await shows(pilot, "leave it running")
        await pilot.press(answer)
        await pilot.pause()
        if answer == "escape":
            assert isinstance(app.screen, RunScreen)
            assert app.return_value is None
    if answer == "l":
        assert app.return_value and "gradtui attach live" in app.return_value
        assert not writer.commands
    if answer == "s":
        for _ in range(100):
            if writer.commands:
                break
            await asyncio.sleep(0.05)
        assert list(writer.commands) == ["stop"]
    writer.close()


async def test_leaving_an_ended_run_does_not_ask(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui", takes_commands=["stop"]).path)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "✔ finished")
        await pilot.press("q")
        await pilot.pause()
    assert app.return_value is None and app._exit


async def test_values_that_are_no_numbers_are_loud(runs_in_tmp: Path) -> None:
    writer = RunWriter(runs_in_tmp / "bad.gradtui", header(), MEASURES)
    writer.set_layers(layers(5))
    for step, values in enumerate(([1.0] * 5, [np.nan, np.inf, 0.0, NOT_MEASURED, 1.0]), start=1):
        block = np.ones((5, 2), np.float32)
        block[:, 0] = values
        writer.step(step, None, step, float("nan"), 0.1, block.tobytes())
    writer.finding(1, Finding("nan", ("fc1", "fc2"), 2, "the loss is NaN or infinite"))
    writer.close()
    app = app_of(writer.path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "Findings")
        assert "no finite loss" in text_of(app.screen)
        lines = {
            f"fc{i}": line for i in range(1, 6) for line in text_of(app.screen).splitlines() if f"{i} fc{i} " in line
        }
        assert "▒ NaN ▒" in lines["fc1"] and "▒ ∞ ▒" in lines["fc2"]
        assert re.search(r" 0 ", lines["fc3"]) and "█" not in lines["fc3"]
        assert "loss NaN" in text_of(app.screen)
        assert "NOT FINITE  fc1, fc2" in text_of(app.screen) and "ZERO  fc3" in text_of(app.screen)
        assert "!" in "".join(line[60:] for line in text_of(app.screen).splitlines())
        # the value of an unmeasured step is the last one that was measured
        assert "1.00" in lines["fc4"]


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 40), (200, 60)])
async def test_wicked_names_are_text_and_the_bars_stay_aligned(size: tuple[int, int], runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui", count=len(WICKED), names=WICKED, name="[bold]\x1b[31m").path)
    async with app.run_test(size=size) as pilot:
        await shows(pilot, "Neurons of")
        bars = app.screen.query_one("#bars", Bars)
        width = bars.content_size.width
        starts = set()
        for y in range(bars.content_size.height):
            line = bars.line(y, width)
            assert len(line) == width
            filled = [x for x, (character, _) in enumerate(line) if character and character in "█▏▎▍▌▋▊▉"]
            if filled:
                starts.add(filled[0])
        assert len(starts) == 1
        text = text_of(app.screen)
        assert "[red]" in text and "[/]" in text
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u200d]", text)
        await pilot.press("down", "down", "down", "n")
        await wait_for(pilot, lambda: isinstance(app.screen, NeuronsScreen))


async def test_a_thousand_layers_draw_only_what_is_visible(runs_in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui", count=1000, steps=20).path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "fc10 ")
        bars = app.screen.query_one("#bars", Bars)
        drawn: list[int] = []
        line = bars.line
        monkeypatch.setattr(bars, "line", lambda y, width: drawn.append(y) or line(y, width))
        await pilot.press("G")
        await shows(pilot, "fc1000")
        await pilot.press("pageup", "pageup", "g")
        await shows(pilot, "fc1 ")
        assert set(drawn) <= set(range(40)) and len(drawn) < 1000


@pytest.mark.parametrize("size", [(40, 24), (60, 10), (59, 16)])
async def test_a_terminal_that_is_too_small_says_so_and_nothing_else(size: tuple[int, int], runs_in_tmp: Path) -> None:
    for app in (app_of(make_run(runs_in_tmp / f"{size[0]}.gradtui").path), GradtuiApp(runs_in_tmp)):
        async with app.run_test(size=size) as pilot:
            await shows(pilot, "needs 60×16")
            assert f"has {size[0]}×{size[1]}" in text_of(app.screen) and "╭" not in text_of(app.screen)
            await pilot.resize_terminal(80, 24)
            await wait_for(pilot, lambda: "needs" not in text_of(pilot.app.screen))


async def test_ascii_alone_on_every_screen(runs_in_tmp: Path) -> None:
    writer = live_run(runs_in_tmp, names=["名前", "é", "fc3", "fc4"], takes_commands=["stop"])
    app = app_of(writer.path, ascii_only=True)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "Learning speed  |dC/db|")
        for keys in ((), ("n",), ("escape", "p"), ("escape", "question_mark"), ("escape", "q"), ("escape", "escape")):
            await pilot.press(*keys)
            await pilot.pause(0.3)
            assert text_of(app.screen).isascii(), (keys, text_of(app.screen))
        assert isinstance(app.screen, HomeScreen)
    writer.close()


async def test_home_lists_live_runs_first_and_deletes_after_asking(runs_in_tmp: Path) -> None:
    make_run(runs_in_tmp / "old.gradtui")
    (runs_in_tmp / "old.log").write_text("log")
    (runs_in_tmp / "bad.gradtui").write_bytes(b"garbage")
    writer = live_run(runs_in_tmp)
    app = GradtuiApp(runs_in_tmp)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "Vanishing gradient")
        await shows(pilot, "✗ unreadable")
        text = text_of(app.screen)
        assert text.index("● live") < text.index("✔ finished")
        about = app.screen.query_one("#about-text").content  # type: ignore[attr-defined]
        assert str(about).startswith("The same sigmoid net with one to ten hidden layers")
        await pilot.press("tab", "d")
        await pilot.pause()
        assert isinstance(app.screen, HomeScreen) and (runs_in_tmp / "live.gradtui").exists(), "a live run stays"
        runs = app.screen.query_one("#runs")
        names = [option.id for option in runs.options]  # type: ignore[attr-defined]
        for name in ("bad", "old"):
            runs.highlighted = [option.id for option in runs.options].index(name)  # type: ignore[attr-defined]
            await pilot.press("d")
            await wait_for(pilot, lambda: isinstance(app.screen, AskScreen))
            await pilot.press("d" if name == "old" else "escape")
            await wait_for(pilot, lambda: isinstance(app.screen, HomeScreen))
        await wait_for(pilot, lambda: not (runs_in_tmp / "old.gradtui").exists())
        assert not (runs_in_tmp / "old.log").exists() and (runs_in_tmp / "bad.gradtui").exists()
        assert sorted(filter(None, names)) == ["bad", "live", "old"]
    writer.close()


async def test_home_opens_runs_and_comes_back(runs_in_tmp: Path) -> None:
    make_run(runs_in_tmp / "one.gradtui")
    app = GradtuiApp(runs_in_tmp)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "✔ finished")
        await pilot.press("tab", "enter")
        await shows(pilot, "Learning speed")
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(app.screen, HomeScreen))
