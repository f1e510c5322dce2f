"""Runs side by side, driven key by key, in memory."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest

from gradtui.errors import RunFileError
from gradtui.lab.plan import Plan, locked
from gradtui.lab.recipe import Recipe
from gradtui.runfile import RunWriter
from gradtui.tui.app import GradtuiApp
from gradtui.tui.compared_runs import MOST_LOSSES, ComparedRun, Comparison, ComparisonView, Source, aligned, on_one_grid
from gradtui.tui.follow_thread import FollowThread
from gradtui.tui.scales import number
from gradtui.tui.screens.ask import AskScreen
from gradtui.tui.screens.compare import CompareScreen
from gradtui.tui.screens.home import HomeScreen
from gradtui.tui.screens.run import RunScreen
from gradtui.tui.widgets.side_by_side import SideBySide
from tests.synthetic import MEASURES, header, layers, make_run, write_steps
from tests.tui.driving import WICKED, shows, text_of, wait_for

WIDE = (140, 40)


def runs_of(folder: Path, depths: tuple[int, ...] = (3, 5), **facts: object) -> list[Path]:
    return [make_run(folder / f"{depth}-deep.gradtui", count=depth, **facts).path for depth in depths]  # type: ignore[arg-type]


def made(path: Path, values: list[float], accuracy: float, detail: str = "") -> Path:
    """A run whose layers have these learning speeds."""
    writer = RunWriter(path, header(path.stem), MEASURES)
    writer.set_layers(layers(len(values)))
    block = np.array([[value, 1e-3] for value in values], np.float32)
    for step in range(1, 11):
        writer.step(step, step / 10, step / 10, 0.5, 0.1, block.tobytes())
        writer.scalar(step, step / 10, "val_accuracy", accuracy * step / 10)
    writer.scalar(10, 1.0, "test_accuracy", accuracy)
    writer.close("stopped" if detail else "finished", detail)
    return path


def rows_of(app: GradtuiApp) -> dict[str, str]:
    """The lines of the columns by their place: `out`, `−1`, …"""
    lines = (re.match(r"│ *(out|−[0-9,]+) (.*)", line) for line in text_of(app.screen).splitlines())
    return {match[1]: match[2] for match in lines if match}


def names(app: GradtuiApp) -> list[str]:
    return [run.label for run in app.screen.query_one(SideBySide).runs]


async def test_layers_stand_in_rows_aligned_from_the_output(runs_in_tmp: Path) -> None:
    shallow = made(runs_in_tmp / "a.gradtui", [0.02, 0.5], 0.9)
    deep = made(runs_in_tmp / "b.gradtui", [1e-5, 1e-4, 0.003, 0.04], 0.3)
    app = GradtuiApp(runs_in_tmp, comparison=[shallow, deep])
    async with app.run_test(size=WIDE) as pilot:
        await shows(pilot, "90.0 %")
        rows = rows_of(app)
        assert list(rows) == ["−3", "−2", "−1", "out"]
        for place, values in (("out", (0.5, 0.04)), ("−1", (0.02, 0.003)), ("−2", (1e-4,)), ("−3", (1e-5,))):
            found = re.findall(r"[0-9][0-9.e-]*", rows[place].replace("█", " "))
            assert found == [number(float(np.float32(value))) for value in values], rows[place]
        # the same axis for all: the longer bar is the larger value, across runs
        lengths = {place: [part.count("█") for part in re.split(r"[0-9.e-]{4,}", row)] for place, row in rows.items()}
        assert lengths["out"][0] > lengths["out"][1] > lengths["−1"][1] > lengths["−2"][0] > lengths["−3"][0]
        text = text_of(app.screen)
        assert "90.0 % test" in text and "speed ratio 25×" in text and "2 of 2 done" in text


async def test_runs_are_sorted_hidden_pinned_and_set_in_ratio(runs_in_tmp: Path) -> None:
    paths = [
        made(runs_in_tmp / "base.gradtui", [0.001, 0.1], 0.1),
        made(runs_in_tmp / "good.gradtui", [0.05, 0.1], 0.97),
        made(runs_in_tmp / "fair.gradtui", [0.01, 0.02], 0.5),
    ]
    app = GradtuiApp(runs_in_tmp, comparison=paths)
    async with app.run_test(size=WIDE) as pilot:
        await shows(pilot, "97.0 %")
        assert names(app) == ["base", "good", "fair"]
        await pilot.press("s")
        await shows(pilot, "most accurate first")
        assert names(app) == ["base", "good", "fair"], "the baseline stays first"
        await pilot.press("end", "b")
        assert names(app)[0] == "fair"
        await pilot.press("s")
        await shows(pilot, "smallest speed ratio first")
        assert names(app) == ["fair", "good", "base"]
        await pilot.press("r")
        await shows(pilot, "×5")  # 0.1 over 0.02
        assert "×0.1" in rows_of(app)["−1"], "0.001 over 0.01"
        await pilot.press("end", "x")
        assert names(app) == ["fair", "good"] and "1 hidden" in text_of(app.screen)
        await pilot.press("x", "x")
        assert len(names(app)) == 1, "the last one stays"
        await pilot.press("X")
        assert names(app) == ["fair", "good", "base"]


async def test_enter_opens_a_run_and_escape_comes_back(runs_in_tmp: Path) -> None:
    app = GradtuiApp(runs_in_tmp, comparison=runs_of(runs_in_tmp))
    async with app.run_test(size=WIDE) as pilot:
        await shows(pilot, "2 of 2 done")
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: isinstance(app.screen, RunScreen))
        await shows(pilot, "fc5")
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(app.screen, CompareScreen))
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_a_live_run_moves_and_a_missing_one_waits(runs_in_tmp: Path) -> None:
    writer = make_run(runs_in_tmp / "live.gradtui", close=False, total_steps=2000)
    app = GradtuiApp(runs_in_tmp, comparison=[writer.path, runs_in_tmp / "later.gradtui"])
    async with app.run_test(size=WIDE) as pilot:
        await shows(pilot, "50 %")
        assert "○ waiting" in text_of(app.screen) and "1 waiting" in text_of(app.screen)
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: any("has not started yet" in note.message for note in app._notifications))
        assert isinstance(app.screen, CompareScreen)
        write_steps(writer, 1001, 1500, 4)
        await shows(pilot, "75 %")
        make_run(runs_in_tmp / "later.gradtui")
        await shows(pilot, "1 of 2 done")
        writer.close()
        await shows(pilot, "2 of 2 done")


async def test_a_run_that_diverged_says_so_and_where(runs_in_tmp: Path) -> None:
    detail = "diverged at step 3 in fc2: the loss is not finite"
    paths = [
        made(runs_in_tmp / "wild.gradtui", [math.nan, math.inf], 0.1, detail),
        made(runs_in_tmp / "tame.gradtui", [0.1, 0.2], 0.9),
    ]
    app = GradtuiApp(runs_in_tmp, comparison=paths)
    async with app.run_test(size=WIDE) as pilot:
        await shows(pilot, "✗ diverged")
        text = text_of(app.screen)
        assert detail in text and "▒ NaN ▒" in text and "▒ ∞ ▒" in text
        await pilot.press("r", "s", "s", "s", "l", "m", "M")
        await shows(pilot, "✗ diverged")


async def test_the_measure_and_the_axis_change_for_all(runs_in_tmp: Path) -> None:
    app = GradtuiApp(runs_in_tmp, comparison=runs_of(runs_in_tmp))
    async with app.run_test(size=WIDE) as pilot:
        await shows(pilot, "Learning speed")
        await pilot.press("m")
        await shows(pilot, "Update ratio")
        await pilot.press("M", "l")
        await shows(pilot, "linear 0")


async def test_more_runs_than_fit_are_reached_with_the_arrows(runs_in_tmp: Path) -> None:
    app = GradtuiApp(runs_in_tmp, comparison=runs_of(runs_in_tmp, (2, 3, 4, 5, 6, 7)))
    async with app.run_test(size=(60, 16)) as pilot:
        await shows(pilot, "4 more ▸")
        await pilot.press(*["right"] * 5)
        await shows(pilot, "7-deep")
        assert "◂ 4 more" in text_of(app.screen)
        await pilot.press("home")
        await shows(pilot, "2-deep")


async def test_a_thousand_layers_are_thinned_evenly(runs_in_tmp: Path) -> None:
    writer = RunWriter(runs_in_tmp / "deep.gradtui", header("deep"), MEASURES)
    writer.set_layers(layers(1000))
    block = np.stack([np.geomspace(1e-6, 1, 1000), np.ones(1000)], axis=1).astype(np.float32)
    writer.step(1, 0.1, 0.1, 0.5, 0.1, block.tobytes())
    writer.close()
    app = GradtuiApp(runs_in_tmp, comparison=[writer.path, *runs_of(runs_in_tmp, (3,))])
    async with app.run_test(size=WIDE) as pilot:
        await shows(pilot, "speed ratio 1e+06×")
        places = [0 if place == "out" else int(place[1:].replace(",", "")) for place in rows_of(app)]
        assert places[0] == 999 and places[-1] == 0
        gaps = -np.diff(places)
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("size", [(40, 10), (60, 16), (80, 24), (200, 60)])
async def test_wicked_names_and_any_size_do_no_harm(size: tuple[int, int], runs_in_tmp: Path) -> None:
    plan = Plan(runs_in_tmp / "[red].compare", WICKED[1], WICKED[0], {name: Recipe() for name in WICKED}, (0,))
    plan.save()
    for cell in plan.cells():
        made(cell.path, [0.1, 0.2], 0.5, f"diverged {WICKED[3]}")
    app = GradtuiApp(runs_in_tmp, comparison=plan.folder)
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.5)
        await pilot.press("right", "r", "s", "b", "x", "m", "question_mark", "escape", "l")
        assert "\x1b" not in text_of(app.screen)
        await pilot.resize_terminal(100, 30)
        await shows(pilot, "a[/b]")


def test_an_owner_is_asked_about_before_leaving(runs_in_tmp: Path) -> None:
    import asyncio

    plan = Plan(runs_in_tmp / "mine.compare", "mine", "", {"a": Recipe(), "b": Recipe(seed=3)}, (0, 1))
    plan.save()
    app = GradtuiApp(runs_in_tmp, comparison=plan.folder)

    async def drive() -> None:
        async with app.run_test(size=WIDE) as pilot:
            await shows(pilot, "2 waiting")
            assert "seed 1 of 2" in text_of(app.screen)
            await pilot.press("n")
            await shows(pilot, "seed 2 of 2")
            with locked(plan.folder):
                await pilot.press("q")
                await wait_for(pilot, lambda: isinstance(app.screen, AskScreen))
                await pilot.press("l")
                await pilot.pause()

    asyncio.run(drive())
    assert app.return_value is not None and "mine.compare" in app.return_value


def test_a_comparison_that_is_not_there_is_one_line(runs_in_tmp: Path) -> None:
    with pytest.raises(RunFileError, match="no comparison in"):
        GradtuiApp(runs_in_tmp, comparison=runs_in_tmp / "none.compare").get_default_screen()


async def test_home_lists_comparisons_and_opens_them(runs_in_tmp: Path) -> None:
    plan = Plan(runs_in_tmp / "mine.compare", "mine", "", {"a": Recipe(), "b": Recipe(seed=3)}, (0,))
    plan.save()
    made(plan.cells()[0].path, [0.1, 0.2], 0.5)
    app = GradtuiApp(runs_in_tmp)
    async with app.run_test(size=WIDE) as pilot:
        await shows(pilot, "≡ compared")
        await pilot.press("tab", "enter")
        await wait_for(pilot, lambda: isinstance(app.screen, CompareScreen))
        await shows(pilot, "1 of 2 done")


async def test_home_deletes_a_comparison_after_asking(runs_in_tmp: Path) -> None:
    plan = Plan(runs_in_tmp / "mine.compare", "mine", "", {"a": Recipe()}, (0,))
    plan.save()
    made(plan.cells()[0].path, [0.1, 0.2], 0.5)
    app = GradtuiApp(runs_in_tmp)
    async with app.run_test(size=WIDE) as pilot:
        await shows(pilot, "≡ compared")
        with locked(plan.folder):
            await pilot.press("tab", "d")
            assert isinstance(app.screen, HomeScreen), "one that trains stays"
        for key, left in (("escape", True), ("d", False)):
            await pilot.press("d")
            await wait_for(pilot, lambda: isinstance(app.screen, AskScreen))
            await pilot.press(key)
            await wait_for(pilot, lambda left=left: plan.folder.exists() == left)


async def test_an_experiment_of_several_recipes_is_trained_and_compared(
    runs_in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Plan] = []

    def launch(plan: Plan, jobs: int = -1) -> None:
        plan.save()
        started.append(plan)

    monkeypatch.setattr("gradtui.lab.background.launch_comparison", launch)
    app = GradtuiApp(runs_in_tmp)
    async with app.run_test(size=WIDE) as pilot:
        await shows(pilot, "What to look at")
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(app.screen, CompareScreen))
        await shows(pilot, "waiting")
    (plan,) = started
    assert plan.name == "vanishing" and json.loads((plan.folder / "plan.json").read_text())["title"] == plan.title


def test_the_thread_reads_what_comes_and_says_what_breaks(runs_in_tmp: Path) -> None:
    import threading

    arrived: list[Comparison] = []
    event = threading.Event()

    def deliver(newest: Comparison) -> None:
        arrived.append(newest)
        event.set()

    good = made(runs_in_tmp / "good.gradtui", [0.1, 0.2], 0.5)
    bad = runs_in_tmp / "bad.gradtui"
    bad.write_bytes(b"no run at all")
    view = ComparisonView([Source("good", good), Source("bad", bad)])
    thread = FollowThread(view, deliver, frames_per_second=20)
    thread.start()
    try:
        while not arrived or arrived[-1].runs[1].state != "failed":
            assert event.wait(10)
            event.clear()
        first, second = arrived[-1].runs
        assert (first.state, first.accuracy, first.tested, first.speed_ratio) == ("finished", 0.5, True, 2.0)
        assert "bad.gradtui" in second.detail
        thread.ask(lambda: view.show([Source("good", good)]))
        while len(arrived[-1].runs) != 1:
            assert event.wait(10)
            event.clear()
    finally:
        thread.stop()
        thread.join(5)
    assert not thread.is_alive()


async def test_runs_without_accuracies_show_their_losses(runs_in_tmp: Path) -> None:
    paths = []
    for name, scale in (("slow", 1.0), ("fast", 0.25)):
        writer = RunWriter(runs_in_tmp / f"{name}.gradtui", header(name), MEASURES)
        writer.set_layers(layers(2))
        for step in range(1, 101):
            writer.step(step, None, step / 10, scale / step, 0.1, np.ones((2, 2), np.float32).tobytes())
        writer.close()
        paths.append(writer.path)
    app = GradtuiApp(runs_in_tmp, comparison=paths)
    async with app.run_test(size=WIDE) as pilot:
        await shows(pilot, "Loss over steps")
        text = text_of(app.screen)
        assert f"loss {number(1.0 / 100)}" in text and f"loss {number(0.25 / 100)}" in text
        assert re.search("[⠁-⣿]{3}", text), "a curve"


def test_losses_of_a_long_run_are_thinned_evenly_and_follow_it(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "long.gradtui", header("long"), MEASURES)
    writer.set_layers(layers(2))
    arrived: list[Comparison] = []

    def last_step_shown() -> int:
        return arrived[-1].runs[0].steps[-1] if arrived and arrived[-1].runs[0].steps else 0

    thread = FollowThread(ComparisonView([Source("long", writer.path)]), arrived.append, frames_per_second=50)
    for step in range(1, 3 * MOST_LOSSES):
        writer.step(step, None, step / 10, float(step), 0.1, None)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while last_step_shown() < 3 * MOST_LOSSES - 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for step in range(3 * MOST_LOSSES, 6 * MOST_LOSSES):
            writer.step(step, None, step / 10, float(step), 0.1, None)
        writer.close()
        while last_step_shown() < 6 * MOST_LOSSES - 9:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        thread.stop()
        thread.join(5)
    run = arrived[-1].runs[0]
    assert MOST_LOSSES / 2 <= len(run.steps) <= 2 * MOST_LOSSES and run.steps == run.losses
    gaps = np.diff(run.steps)
    assert gaps.max() <= 4 * gaps.min()


def test_layers_of_the_same_net_stay_side_by_side_where_one_is_not_measured() -> None:
    names = ("conv", "norm", "frozen", "out")
    whole = ComparedRun("a", Path(), names=names, values=(0.1, None, 0.3, 0.4))
    part = ComparedRun("b", Path(), names=names, values=(0.5, None, None, 0.8))
    waiting = ComparedRun("c", Path())
    first, second, third = aligned((whole, part, waiting))
    assert first.names == second.names == ("conv", "frozen", "out") and third == waiting
    assert (first.values, second.values) == ((0.1, 0.3, 0.4), (0.5, None, 0.8))
    other = ComparedRun("d", Path(), names=("x", "y"), values=(None, 0.2))
    assert [run.values for run in aligned((part, other))] == [(0.5, 0.8), (0.2,)]


def test_curves_share_one_axis() -> None:
    places, values = on_one_grid([((1.0, 2.0, 4.0), (0.0, 0.5, 1.0)), ((1.0, 2.0), (0.2, 0.2)), ((), ())])
    assert places[0] == 0 and places[-1] == 400 and values.shape == (len(places), 3)
    assert np.isnan(values[places < 100]).all() and np.isnan(values[:, 2]).all()
    assert values[-1, 0] == 1.0 and np.isnan(values[-1, 1])
    middle = np.abs(places - 300).argmin()
    assert values[middle, 0] == pytest.approx(0.75, abs=0.01)
