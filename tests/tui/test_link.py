"""The link by itself: what it lets through, on terminals made up by a clock."""

from __future__ import annotations

from gradtui.tui.link import LOST_AFTER, LOST_IN_A_ROW, MOST_WINDOW, QUEUED_LONG, WITHOUT_ANSWER, Link


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def known_link(clock: Clock, *, seconds: float) -> Link:
    """A link whose terminal answered after so many seconds."""
    link = Link(clock)
    link.sent(5000)
    clock.now += seconds
    link.answered()
    return link


def test_no_frame_is_due_until_the_terminal_has_taken_the_last_one() -> None:
    clock = Clock()
    link = known_link(clock, seconds=0.001)
    assert link.ready
    link.sent(500)
    assert not link.ready
    clock.now += 1.0
    assert not link.ready
    link.answered()
    assert link.ready
    link.unsent = True
    assert not link.ready, "a part of the last one still waits to be sent"


def test_over_five_kilobytes_a_second_less_than_a_quarter_of_a_second_is_on_its_way() -> None:
    clock = Clock()
    link = known_link(clock, seconds=1.0)
    for _ in range(100):
        room = link.room()
        assert 200 <= room <= 5000 * QUEUED_LONG
        link.sent(room)
        assert link.room() == 0
        clock.now += 0.02 + room / 5000
        link.answered()
    assert room >= 800, "and not much less than fits"


def test_a_link_that_becomes_fast_gets_whole_screens_and_one_with_a_long_way_too() -> None:
    clock = Clock()
    link = known_link(clock, seconds=1.0)
    for _ in range(30):
        link.sent(link.room())
        clock.now += 0.4  # the way alone; no queue
        link.answered()
    assert link.room() == MOST_WINDOW


def test_a_lost_answer_holds_nothing_up_for_long_and_many_mean_that_nobody_answers() -> None:
    clock = Clock()
    link = known_link(clock, seconds=0.001)
    for _ in range(LOST_IN_A_ROW):
        assert link.ready
        link.sent(500)
        clock.now += LOST_AFTER + 0.1
    assert link.ready
    link.sent(500)
    assert link.ready, "as on a terminal that never answered"


def test_where_nothing_answers_the_kernel_tells_the_rate() -> None:
    clock = Clock()
    link = Link(clock)
    link.sent(20_000)
    assert not link.ready
    clock.now += WITHOUT_ANSWER + 0.1
    assert link.ready and link.room() == MOST_WINDOW
    link.sent(10_000)
    link.stalled()
    assert link.room() == 0 and not link.ready
    clock.now += 1.0
    link.waited(5000, 1.0)
    assert not link.ready, "what the kernel holds is still on its way"
    clock.now += 10.0
    assert link.ready and 500 < link.room() < 1000
    link.sent(link.room())
    assert not link.ready and link.room() == 0
    clock.now += 0.5
    assert link.ready


def test_an_answer_that_nobody_asked_for_is_none() -> None:
    link = Link(Clock())
    link.answered()
    assert link.ready
