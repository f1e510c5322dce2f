"""The diagnosis of a run while it is recorded: what begins, changes and ends, and what it costs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradtui.diagnosis import Evidence, Finding, LiveDiagnosis, Thresholds, diagnose, find, findings_of
from gradtui.diagnosis.live import HISTORY_BYTES, LEAST_REST, MOST_CLEARED, Change, FindingTracker
from gradtui.runfile import Measure, RunWriter, open_run
from gradtui.runfile.schema import Layer, Origin
from tests.diagnosis.made_up import FLAT, LAYERS, MEASURES, ROWS, evidence, healthy, put
from tests.synthetic import header

NAMES = [f"fc{i + 1}" for i in range(LAYERS)]


class Scene:
    """A live diagnosis whose clocks a test moves."""

    def __init__(self, share: float = 1.0, seconds_a_pass: float = 0.0, layers: int = LAYERS) -> None:
        self.now = self.worked = 0.0
        self.passes: list[float] = []
        self.told: list[Finding] = []
        self._seconds_a_pass = seconds_a_pass
        clocks = {"clock": lambda: self.now, "cpu": lambda: self.worked}
        self.live = LiveDiagnosis(MEASURES, Thresholds(), share, self.told.append, **clocks)
        self.live.know(made_up_layers(layers))
        self._look = self.live._look
        self.live._look = self.look  # type: ignore[method-assign]

    def look(self, *given: Any) -> list[Change]:
        self.passes.append(self.now)
        self.worked += self._seconds_a_pass
        return self._look(*given)


def made_up_layers(count: int) -> list[Layer]:
    return [Layer(f"fc{i + 1}", "Linear", {"weight": (10, 9), "bias": (10,)}, 100) for i in range(count)]


def rows_of(block: np.ndarray, loss: np.ndarray, first: int = 1) -> list[tuple[Any, ...]]:
    return [
        (first + i, None, i / 10, float(loss[i]), 0.1, np.ascontiguousarray(block[i], "<f4").tobytes(), None)
        for i in range(len(block))
    ]


def dead_from(step: int, until: int, rows: int = 800) -> list[tuple[Any, ...]]:
    """A net that learns; one layer is dead in between."""
    block, loss = healthy(rows)
    put(block, "dead", 0.9, 1, since=step)
    put(block, "dead", 0.05, 1, since=until)
    return rows_of(block, loss)


def batches(rows: Sequence[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


def test_a_finding_begins_changes_and_is_kept_with_its_end() -> None:
    scene = Scene()
    stored: dict[int, Finding | None] = {}
    for batch in batches(dead_from(1, 301), 20):
        scene.now += 2
        stored.update(scene.live.take(batch))
    stored.update(scene.live.take([], last=True))
    (finding,) = stored.values()
    assert finding is not None and finding.kind == "dead" and finding.layers == ("fc2",)
    assert finding.begin == 1 and finding.end is not None and 300 <= finding.end <= 500
    scene.live.tell()
    assert [one.kind for one in scene.told] == ["dead"]


def test_a_short_false_start_is_taken_back() -> None:
    scene = Scene()
    changes = []
    for batch in batches(dead_from(1, 41), 20):
        scene.now += 2
        changes += scene.live.take(batch)
    assert [(number, finding is None) for number, finding in changes if finding is None] == [(1, True)]
    assert changes[0][1] is not None and changes[0][1].kind == "dead"


@pytest.mark.parametrize("size", [1, 7, 50, 800])
def test_what_holds_at_the_end_follows_from_the_rows_alone(size: int) -> None:
    block, _ = healthy(800)
    put(block, "dead", 0.9, 1, since=200)
    put(block, "update_ratio", 0.3)
    loss = 2.3 + 0.02 * np.sin(np.arange(800))
    scene, stored = Scene(), dict[int, Finding | None]()
    for batch in batches(rows_of(block, loss), size):
        scene.now += 0.3
        stored.update(scene.live.take(batch))
    stored.update(scene.live.take([], last=True))
    standing = [finding for finding in stored.values() if finding is not None and not finding.cleared]
    assert sorted(standing, key=lambda one: one.kind) == sorted(find(evidence(block, loss)), key=lambda one: one.kind)


def test_it_takes_its_share_of_the_time_and_a_second_between_two_passes() -> None:
    rows = dead_from(1, 801)
    for share, cost, least in ((1.0, 0.0, LEAST_REST), (0.001, 0.002, 2.0), (0.01, 0.1, 10.0)):
        scene = Scene(share, cost)
        for batch in batches(rows, 2):
            scene.now += 0.1
            scene.live.take(batch)
        assert len(scene.passes) > 1 and np.diff(scene.passes).min() >= least - 1e-6
        assert scene.worked <= share * scene.now + cost


def test_a_nan_is_told_at_once() -> None:
    scene = Scene(share=0.0001, seconds_a_pass=0.1)
    block, loss = healthy(100)
    rows = rows_of(block, loss)
    scene.live.take(rows[:10])
    scene.now += 1
    assert scene.live.take(rows[10:50]) == []
    scene.live.broke(Origin(51, "forward", 2, "exp returned NaN"))
    scene.live.take(rows[50:60])
    scene.live.tell()
    assert [(one.kind, one.layers, one.begin) for one in scene.told] == [("nan", ("fc3",), 51)]


def test_layers_that_join_do_not_end_the_history() -> None:
    scene = Scene(layers=2)
    block, _ = healthy(ROWS, 2)
    put(block, "update_ratio", 0.3)
    scene.live.take(rows_of(block, FLAT))
    scene.live.know(made_up_layers(4))
    more, _ = healthy(20, 4)
    put(more, "update_ratio", 0.3)
    scene.live.take(rows_of(more, FLAT[:20], first=101), last=True)
    assert "update-too-large" in {finding.kind for finding in scene.live.news}
    assert scene.live._history is not None and len(scene.live._history.aggregates()) == 120


@pytest.mark.parametrize("layers, buckets", [(4, 4096), (1000, 256), (20_000, 64)])
def test_the_history_of_a_large_net_is_bounded(layers: int, buckets: int) -> None:
    scene = Scene(layers=layers)
    scene.live.take([(1, None, 0.0, 1.0, 0.1, None, None)], last=True)
    history = scene.live._history
    assert history is not None and history._limit == buckets
    assert buckets == 64 or buckets * layers * 12 * len(MEASURES) <= HISTORY_BYTES


def test_rows_that_wait_for_a_pass_are_folded_before_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(share=1e-6, seconds_a_pass=1.0)
    rows = rows_of(*healthy(600))
    scene.live.take(rows[:1])
    monkeypatch.setattr("gradtui.diagnosis.live.WAITING_BYTES", 50_000)
    for row in rows[1:]:
        scene.live.take([row])
        assert len(scene.live._waiting) < 300
    assert scene.live._history is not None and len(scene.live._history.aggregates()) > 200
    assert len(scene.passes) == 1


# -- which finding is which -------------------------------------------------------------------------------------------


def one(kind: str = "dead", layers: tuple[str, ...] = ("a",), begin: int = 1, **facts: Any) -> Finding:
    return Finding(kind, layers, begin, "it is", {}, (), **facts)


def test_a_finding_whose_layers_change_is_the_same_and_has_not_begun_again() -> None:
    tracker = FindingTracker(100)
    assert tracker.update([one(layers=("a", "b"))], 50) == ([(1, one(layers=("a", "b")))], [one(layers=("a", "b"))])
    assert tracker.update([one(layers=("b", "c"))], 60) == ([(1, one(layers=("b", "c")))], [])
    assert tracker.update([one(layers=("b", "c"))], 70) == ([], [])
    changes, begun = tracker.update([one(layers=("b", "c")), one(layers=("d",)), one("vanishing")], 80)
    assert [number for number, _ in changes] == [2, 3] and len(begun) == 2


def test_a_note_is_another_finding_than_one_that_is_none() -> None:
    tracker = FindingTracker(100)
    tracker.update([one(note=True)], 50)
    changes, begun = tracker.update([one()], 60)
    assert begun == [one()] and (1, None) in changes


@pytest.mark.parametrize("passes, steps, kept", [(3, 100, True), (2, 100, False), (3, 99, False)])
def test_what_held_for_long_is_kept(passes: int, steps: int, kept: bool) -> None:
    tracker = FindingTracker(100)
    for i in range(passes):
        tracker.update([one()], 1 + round(steps * i / (passes - 1)))
    changes, _ = tracker.update([], 500)
    assert changes == [(1, one(end=1 + steps) if kept else None)]


def test_a_nan_does_not_end_and_is_one_wherever_it_is_seen() -> None:
    tracker = FindingTracker(100)
    tracker.update([one("nan", ("a",), 5)], 10)
    assert tracker.update([one("nan", (), 4)], 20) == ([(1, one("nan", (), 4))], [])
    assert tracker.update([], 30) == ([], [])


def test_one_that_comes_again_is_another_and_of_many_the_last_goes_on() -> None:
    tracker = FindingTracker(100)
    numbers: set[int] = set()
    for i in range(3 * MOST_CLEARED):
        begin = 1000 * i + 1
        for step in (begin, begin + 100, begin + 200):
            changes, _ = tracker.update([one(begin=begin)], step)
            numbers |= {number for number, _ in changes}
        changes, _ = tracker.update([], begin + 300)
        assert changes[0][1] is not None and changes[0][1].end == begin + 200
    assert numbers == set(range(1, MOST_CLEARED + 1))


def test_one_that_overlaps_what_ended_goes_on() -> None:
    tracker = FindingTracker(100)
    for step in (1, 100, 200):
        tracker.update([one()], step)
    tracker.update([], 300)
    assert tracker.update([one(begin=200)], 400) == ([(1, one(begin=200))], [])
    tracker.update([], 500)
    changes, begun = tracker.update([one(begin=401)], 600)
    assert changes == [(2, one(begin=401))] and begun


# -- in the run file --------------------------------------------------------------------------------------------------


def record(path: Path, rows: Sequence[tuple[Any, ...]], **facts: Any) -> Path:
    live = LiveDiagnosis(MEASURES, Thresholds(), 1.0)
    writer = RunWriter(path, header(**facts), [Measure(name, name, "1", "") for name in MEASURES], diagnose=live.take)
    writer.set_layers(made_up_layers(LAYERS))
    live.know(made_up_layers(LAYERS))
    for row in rows:
        writer.step(*row)
    writer.close()
    return path


def test_findings_are_stored_and_read_as_they_are_and_computed_anew_only_by_other_thresholds(tmp_path: Path) -> None:
    block, _ = healthy()
    put(block, "dead", 0.8, 1)
    path = record(tmp_path / "a.gradtui", rows_of(block, FLAT))
    with open_run(path) as reader:
        stored = findings_of(reader)
        assert [finding.kind for finding in stored] == ["dead", "plateau"]
        assert stored == find(Evidence.of(reader)) == diagnose(reader) == diagnose(path) == diagnose(str(path))
        assert [finding.kind for finding in diagnose(reader, Thresholds(dead=0.9))] == ["plateau"]


def test_what_another_process_stored_stands(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "a.gradtui", header(), [Measure("m", "m", "1", "")])
    writer.finding(1, one("vanishing", end=600))
    writer.finding(2, one("a kind of somebody's", begin=9))
    writer.finding(3, one("dead"))
    writer.finding(3, None)
    writer.close()
    with open_run(writer.path) as reader:
        assert findings_of(reader) == [one("a kind of somebody's", begin=9), one("vanishing", end=600)]


def test_the_findings_of_an_older_run_which_stores_none_are_computed(tmp_path: Path) -> None:
    block, _ = healthy()
    put(block, "dead", 0.8, 1)
    path = record(tmp_path / "a.gradtui", rows_of(block, FLAT))
    with sqlite3.connect(path) as connection:  # as version 0.1.0 wrote it
        connection.executescript(
            "DROP TABLE findings; ALTER TABLE measures DROP COLUMN title; ALTER TABLE measures DROP COLUMN source;"
            " DELETE FROM header WHERE key IN ('options', 'thresholds'); PRAGMA user_version = 2"
        )
    connection.close()
    with open_run(path) as reader:
        assert reader.findings() is None
        assert [finding.kind for finding in findings_of(reader)] == ["dead", "plateau"]
