"""Following runs: what is handed over and when, files that are not there, damaged or odd, and how threads end."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gradtui.errors import GradtuiError, RunFileBusyError
from gradtui.runfile import Measure, RunReader, RunWriter
from gradtui.tui import run_follower
from gradtui.tui.app import GradtuiApp
from gradtui.tui.compared_runs import ComparisonView, Source
from gradtui.tui.run_follower import RunFollower
from gradtui.tui.run_view import RunView, Waiting
from gradtui.tui.screens.home import HomeScreen
from gradtui.tui.screens.run import RunScreen
from gradtui.tui.text import title_of
from gradtui.view import Snapshot
from tests.synthetic import MEASURES, header, layers, make_run, speeds, write_steps
from tests.tui.driving import app_of, shown_run, shows, text_of, wait_for
from tests.tui.following import follow


def test_the_thread_delivers_only_when_something_changed(runs_in_tmp: Path) -> None:
    path = make_run(runs_in_tmp / "a.gradtui").path
    delivered: list[object] = []
    view, thread = follow(path, delivered.append, frames_per_second=50)
    deadline = time.monotonic() + 5
    while not delivered and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.0)
    first = len(delivered)
    assert 1 <= first <= 2
    thread.ask(lambda: view.want(measure=1))
    deadline = time.monotonic() + 5
    while len(delivered) == first and time.monotonic() < deadline:
        time.sleep(0.02)
    thread.stop()
    thread.join(5)
    assert len(delivered) == first + 1
    assert not any(isinstance(item, Waiting) for item in delivered)


def test_the_pace_is_by_the_training_s_own_clock(runs_in_tmp: Path) -> None:
    writer = make_run(runs_in_tmp / "a.gradtui", steps=1000, close=False)  # a thousand steps a second
    delivered: list[object] = []
    _, thread = follow(writer.path, delivered.append, frames_per_second=50)
    try:
        for last in range(1100, 1600, 100):
            write_steps(writer, last - 99, last, 4)
            time.sleep(0.3)
    finally:
        thread.stop()
        thread.join(5)
        writer.close()
    paces = [shown.steps_per_second for shown in delivered if isinstance(shown, Snapshot)]
    known = [pace for pace in paces if pace is not None]
    assert known and all(pace == pytest.approx(1000, rel=0.01) for pace in known)


async def test_a_run_that_is_deleted_while_it_is_shown_stays_on_the_screen(runs_in_tmp: Path) -> None:
    path = make_run(runs_in_tmp / "a.gradtui").path
    app = app_of(path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "In words")
        path.unlink()
        await pilot.press("m")
        await pilot.pause(1.0)
        assert "fc4" in text_of(app.screen)


async def test_a_training_that_fails_before_its_first_step_shows_its_log(runs_in_tmp: Path) -> None:
    troubles = [None, None, "The training ended before its first step (exit code 4); x.log says:"]
    screen = RunScreen(
        lambda: runs_in_tmp / "never.gradtui",
        "never",
        starting_problem=lambda: troubles.pop(0) if len(troubles) > 1 else troubles[0],
        log=lambda: ("gradtui: MNIST is [not] there\x1b[2J",),
    )
    app = GradtuiApp(runs_in_tmp)
    async with app.run_test(size=(100, 24)) as pilot:
        await app.push_screen(screen)
        await shows(pilot, "exit code 4")
        assert "gradtui: MNIST is [not] there␛[2J" in text_of(app.screen)


async def test_a_run_that_rests_under_home_shows_nothing_that_arrives(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen, snapshot = await shown_run(pilot)
        await pilot.press("h")
        screen.deliver(snapshot)
        await pilot.pause(0.2)
        assert isinstance(app.screen, HomeScreen) and screen.snapshot is None


async def test_an_ended_run_without_layers_says_so(runs_in_tmp: Path) -> None:
    writer = RunWriter(runs_in_tmp / "bare.gradtui", header("bare"), MEASURES)
    for step in range(1, 20):
        writer.step(step, None, step / 10, 0.5, 0.1, None)
    writer.close()
    app = app_of(writer.path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "no layer was measured")


async def test_what_arrives_while_the_screen_is_being_left_is_let_go(runs_in_tmp: Path) -> None:
    app = app_of(make_run(runs_in_tmp / "a.gradtui").path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen, snapshot = await shown_run(pilot)
        late = RunScreen(lambda: screen.path or Path(), "late")
        app.push_screen(late)
        app.pop_screen()
        for _ in range(5):
            late.deliver(snapshot)
            await late.on_delivered()
            late.snapshot = None
            await pilot.pause()
        assert app.screen is screen


def followers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gradtui-follow"]


def polled(follower: RunFollower, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        follower.poll()
        time.sleep(0.01)


async def test_the_threads_of_all_screens_end_with_them(runs_in_tmp: Path) -> None:
    paths = [make_run(runs_in_tmp / f"{name}.gradtui").path for name in "ab"]
    before = len(followers())
    app = GradtuiApp(runs_in_tmp, comparison=paths)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "2 of 2 done")
        await pilot.press("enter")
        await shows(pilot, "In words")
        assert len(followers()) == before + 2
        await pilot.press("escape")
        await wait_for(pilot, lambda: len(followers()) == before + 1)
    for thread in followers()[before:]:
        thread.join(5)
    assert len(followers()) == before


@pytest.mark.parametrize("keeps_history", [True, False])
def test_a_file_that_breaks_is_told_and_followed_again_once_it_is_whole(
    keeps_history: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_follower, "RETRY_EVERY", 0.05)
    path, whole = tmp_path / "a.gradtui", make_run(tmp_path / "whole.gradtui").path.read_bytes()
    follower = RunFollower(lambda: path, waits=True, keeps_history=keeps_history)
    assert not follower.poll() and follower.waiting and not follower.problem
    path.write_bytes(b"no run at all")
    polled(follower, lambda: "is not a gradtui run" in follower.problem)
    path.write_bytes(whole)
    polled(follower, lambda: follower.last == 1000)
    assert not follower.problem and not follower.waiting and follower.newest is not None
    np.testing.assert_array_equal(follower.newest, speeds(1000, 4))
    follower.close()


def test_a_run_that_cannot_be_found_is_told_and_sought_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_follower, "RETRY_EVERY", 0.05)
    path = make_run(tmp_path / "a.gradtui").path
    answers: list[Path | None] = [None, None, path]

    def find() -> Path:
        if (found := answers.pop(0)) is None:
            raise GradtuiError("no run yet")
        return found

    follower = RunFollower(find)
    polled(follower, lambda: follower.problem == "no run yet")
    polled(follower, lambda: follower.last == 1000)
    assert follower.path == path and not answers
    follower.close()


def test_an_unforeseen_error_is_one_line_for_one_run_and_nothing_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, odd = (make_run(tmp_path / f"{name}.gradtui").path for name in ("good", "odd"))
    read = RunFollower._read

    def break_one(follower: RunFollower, reader: object) -> bool:
        if follower.path == odd:
            raise ZeroDivisionError("of all things")
        return read(follower, reader)  # type: ignore[arg-type]

    monkeypatch.setattr(RunFollower, "_read", break_one)
    alone = RunView(RunFollower(lambda: odd))
    alone.poll()
    waiting = alone.next(changed=True, ready=True)
    assert isinstance(waiting, Waiting) and waiting.failed and "of all things" in waiting.text
    view = ComparisonView([Source("good", good), Source("odd", odd)])
    view.poll()
    newest = view.next(changed=True, ready=True)
    assert newest is not None
    assert [run.state for run in newest.runs] == ["finished", "failed"] and "of all things" in newest.runs[1].detail
    view.close()


def test_only_what_is_asked_for_is_shown_while_the_last_picture_is_on_its_way(tmp_path: Path) -> None:
    writer = make_run(tmp_path / "a.gradtui", close=False)
    view = RunView(RunFollower(lambda: writer.path))
    polled(view.follower, lambda: view.follower.last == 1000)
    assert isinstance(view.next(changed=True, ready=True), Snapshot)
    assert view.next(changed=True, ready=False) is None
    view.want(measure=1)
    shown = view.next(changed=False, ready=False)
    assert isinstance(shown, Snapshot) and shown.measure == 1
    view.jump(-0.1)
    shown = view.next(changed=False, ready=False)
    assert isinstance(shown, Snapshot) and shown.step == 900 and not shown.following
    view.close()
    writer.close()


def test_runs_of_different_measures_are_compared_by_their_names(tmp_path: Path) -> None:
    other = RunWriter(tmp_path / "other.gradtui", header("other"), (Measure("mine", "m", "1", ""), MEASURES[0]))
    other.set_layers(layers(2))
    other.step(1, 0.1, 0.1, 0.5, 0.1, np.array([[7, 0.5], [8, 0.25]], np.float32).tobytes())
    other.close()
    sources = [Source("a", make_run(tmp_path / "a.gradtui", count=2).path), Source("other", other.path)]
    view = ComparisonView(sources)
    view.poll()
    speed = view.next(changed=True, ready=True)
    assert speed is not None and speed.runs[1].values == (0.5, 0.25)
    np.testing.assert_array_equal(np.float32(speed.runs[0].values), speeds(1000, 2)[:, 0])
    view.choose(1)
    ratio = view.next(changed=False, ready=False)
    assert ratio is not None and ratio.measures[ratio.measure].name == "update_ratio"
    assert ratio.runs[1].values == (None, None)
    view.close()


@pytest.mark.parametrize("keeps_history", [True, False])
def test_a_lock_between_two_reads_loses_no_news(
    keeps_history: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(tmp_path / "a.gradtui").path
    follower = RunFollower(lambda: path, keeps_history=keeps_history)
    scalars = RunReader.scalars
    locked = [True]

    def busy(reader: RunReader, newer_than: int = 0) -> object:
        if locked.pop():
            raise RunFileBusyError("locked")
        return scalars(reader, newer_than)

    monkeypatch.setattr(RunReader, "scalars", busy)
    assert follower.poll() and follower.last == 1000 and not follower.scalars and not follower.problem
    locked.append(False)
    assert follower.poll() and follower.scalars
    assert not follower.poll()
    follower.close()


def test_measures_of_older_files_have_titles_if_they_are_known(tmp_path: Path) -> None:
    measures = [Measure("bias_grad_norm", "g", "1", "as it was"), Measure("mine", "m", "1", "")]
    writer = RunWriter(tmp_path / "old.gradtui", header("old"), measures)
    writer.close()
    follower = RunFollower(lambda: writer.path)
    follower.poll()
    assert [title_of(measure) for measure in follower.measures] == ["Learning speed  g", "mine  m"]
    assert follower.measures[0].definition == "as it was", "the file's own"
    follower.close()


async def test_odd_values_in_the_header_are_one_line(runs_in_tmp: Path) -> None:
    path = make_run(runs_in_tmp / "a.gradtui", total_steps=1000).path
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE header SET value = '\"many\"' WHERE key = 'total_steps'")
    connection.close()
    app = app_of(path)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "total_steps is 'many'")
        await pilot.press("m", "f", "n", "space", "left", "p", "l", "question_mark", "escape")
        assert "total_steps is 'many'" in text_of(app.screen)
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(app.screen, HomeScreen))
