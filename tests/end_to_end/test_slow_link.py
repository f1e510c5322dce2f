"""Over a link of 5 kB/s, and over one that is lost: keys act promptly, and nothing hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.terminal import QUESTION, Terminal
from tests.synthetic import make_run, write_steps


@pytest.fixture
def live_run(runs_in_tmp: Path) -> Iterator[Path]:
    """A run to which fifty steps a second are added as long as the test lasts."""
    writer = make_run(runs_in_tmp / "live.gradtui", count=5, close=False)
    over = threading.Event()

    def add() -> None:
        step = 1000
        while not over.wait(0.02):
            step += 1
            write_steps(writer, step, step, 5)

    adding = threading.Thread(target=add)
    adding.start()
    yield writer.path
    over.set()
    adding.join()
    writer.close()


def processor_seconds(pid: int) -> float:
    """What a process and its threads have used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_key_acts_within_half_a_second_over_five_kilobytes_a_second(live_run: Path) -> None:
    with Terminal("attach", str(live_run), "--fps", "20", speed=5000) as terminal:
        terminal.wait_for("In words")
        terminal.settle(2)
        for key, effect in (("m", "Update ratio"), ("M", "Learning speed"), ("m", "Update ratio"), ("?", "Keys")):
            before = len(terminal.raw)
            terminal.settle(0.7)
            assert len(terminal.raw) > before + 1000, "values change meanwhile, as fast as the link takes them"
            pressed = time.monotonic()
            terminal.press(key)
            terminal.wait_for(effect, 5)
            assert time.monotonic() - pressed < 0.5
        assert "● live" in terminal.text


def test_pieces_are_small_where_the_link_is_slow_and_one_is_on_its_way_at_a_time(live_run: Path) -> None:
    with Terminal("attach", str(live_run), "--fps", "20", speed=5000) as terminal:
        terminal.wait_for("In words")
        terminal.settle(2)
        before = len(terminal.raw)
        terminal.settle(2)
        pieces = terminal.raw[before:].split(QUESTION)[1:-1]
        assert pieces and max(map(len, pieces)) < 1700


@pytest.mark.parametrize("answers", [True, False])
def test_on_a_fast_link_the_pictures_come_as_often_as_asked(answers: bool, runs_in_tmp: Path) -> None:
    path = make_run(runs_in_tmp / "a.gradtui", steps=4000).path
    with Terminal("attach", str(path), "--fps", "10", answers=answers) as terminal:
        terminal.wait_for("In words")
        terminal.settle(2 if answers else 3.2)  # a terminal that does not answer is known after three seconds
        terminal.press(" ")  # a replay: each picture is another one
        terminal.settle(0.5)
        before = terminal.raw.count(QUESTION)
        terminal.settle(2)
        assert 14 <= terminal.raw.count(QUESTION) - before <= 24


def test_a_terminal_that_is_no_longer_read_keeps_nothing_from_ending(live_run: Path) -> None:
    with ExitStack() as stack:
        hung_up, *signalled = terminals = [
            stack.enter_context(Terminal("attach", str(live_run), "--fps", "60", answers=False)) for _ in range(3)
        ]
        for terminal in terminals:
            terminal.wait_for("Neurons of")
        for terminal in terminals:
            terminal.settle(1)
        used = [processor_seconds(terminal.pid) for terminal in terminals]
        time.sleep(3)  # nobody reads: what the kernel holds fills up
        for terminal, before in zip(terminals, used, strict=True):
            assert processor_seconds(terminal.pid) - before < 2, "it spins while its output is blocked"
        hung_up.hang_up()
        for terminal, number in zip(signalled, (signal.SIGHUP, signal.SIGTERM), strict=True):
            os.kill(terminal.pid, number)
        deadline = time.monotonic() + 5
        for terminal in terminals:
            while os.waitpid(terminal.pid, os.WNOHANG)[0] == 0:
                assert time.monotonic() < deadline, "the viewer lives on"
                time.sleep(0.05)
            terminal.exit_code = 0
