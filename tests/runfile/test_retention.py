"""A long run stays small: the newest steps are whole, older ones get sparser, and the overview holds them all."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradtui.runfile import NOT_MEASURED, Limits, RunWriter, open_run
from gradtui.runfile import writer as writer_module
from gradtui.runfile.reader import WHOLE_UP_TO
from gradtui.runfile.retention import RetainedTables, SampleRetention, ended
from gradtui.runfile.schema import SCHEMA
from gradtui.tui.run_follower import RunFollower
from gradtui.tui.run_view import RunView
from gradtui.view import Snapshot
from tests.synthetic import MEASURES, header, layers, make_run, speeds, write_steps

SMALL = Limits(newest_rows=64, newest_values=16, bucket_rows=32, buckets=8, first_events=5, last_events=10)
any_run = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextmanager
def tables(limits: Limits) -> Iterator[tuple[sqlite3.Connection, RetainedTables]]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    connection.execute("INSERT INTO heartbeat VALUES (1, 0, 0, 0, NULL)")
    yield connection, RetainedTables(limits, 2)
    connection.close()


def survives(place: int, count: int, newest: int) -> bool:
    """The promise, word for word: among the newest 2^t × `newest` of `count` rows, and a multiple of 2^t."""
    return place == 0 or any(
        place % 2**t == 0 and place >= count - 2**t * newest for t in range(max(1, count).bit_length() + 1)
    )


@given(newest=st.sampled_from([2, 4, 16, 64]), count=st.integers(0, 2000))
def test_what_is_left_is_what_is_promised(newest: int, count: int) -> None:
    left = set(range(count)) - set(ended(0, count, newest))
    assert left == {place for place in range(count) if survives(place, count, newest)}
    assert len(left) <= newest / 2 * (math.log2(max(count / newest, 1)) + 4) + 1


@st.composite
def batches(draw: st.DrawFn) -> list[list[tuple[Any, ...]]]:
    """Rows of a run in batches of any size: steps with gaps, some with a loss only, some with fewer measures."""
    sizes = draw(st.lists(st.integers(1, 150), min_size=1, max_size=8))
    kinds = draw(st.lists(st.sampled_from(["whole", "partly", "loss"]), min_size=1, max_size=7))
    gap = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    made, step = [], draw(st.integers(0, 5))
    for size in sizes:
        batch = []
        for _ in range(size):
            block = rng.random((3, 2), dtype=np.float32)
            kind = kinds[step % len(kinds)]
            if kind == "partly":
                block[:, 1] = NOT_MEASURED
            batch.append(
                (step, None, step / 10, float(step), 0.1, None if kind == "loss" else block.tobytes(), 1 + step % 2)
            )
            step += int(rng.integers(1, gap + 1))
        made.append(batch)
    return made


def kind_of(row: tuple[Any, ...]) -> int:
    if row[5] is None:
        return 0
    return int((np.frombuffer(row[5], np.uint32)[:2] != NOT_MEASURED.view(np.uint32)).sum())


@any_run
@given(made=batches(), fails=st.sets(st.integers(0, 7), max_size=3))
def test_any_run_in_any_batches_keeps_its_newest_rows_and_an_overview_of_all(
    made: list[list[tuple[Any, ...]]], fails: set[int]
) -> None:
    everything = [row for batch in made for row in batch]
    with tables(SMALL) as (connection, written):
        for number, batch in enumerate(made):
            if number in fails:  # a transaction that fails leaves no trace, and is tried again
                before = written.copy()
                connection.execute("BEGIN")
                written.write_steps(connection, batch, 3)
                connection.execute("ROLLBACK")
                written = before
            connection.execute("BEGIN")
            written.write_steps(connection, batch, 3)
            connection.execute("COMMIT")
        assert written.rows == len(everything)
        kept = connection.execute(
            "SELECT step, epoch, time, loss, learning_rate, measures, optimizer FROM steps ORDER BY step"
        ).fetchall()
        by_kind: dict[int, list[tuple[Any, ...]]] = {}
        for row in everything:
            by_kind.setdefault(kind_of(row), []).append(row)
        promised = [
            row
            for rows in by_kind.values()
            for place, row in enumerate(rows)
            if survives(place, len(rows), SMALL.newest_rows)
        ]
        assert kept == sorted(promised)
        assert everything[-SMALL.newest_rows :] == kept[-SMALL.newest_rows :]
        gone = {row[0] for row in everything} - {row[0] for row in kept}
        assert connection.execute("SELECT whole_after FROM heartbeat").fetchone() == (max(gone, default=None),)

        buckets = connection.execute(
            "SELECT first_step, last_step, rows, loss_minimum, loss_maximum, maximum FROM envelope ORDER BY first_step"
        ).fetchall()
        widths = [rows for _, _, rows, *_ in buckets]
        assert widths == sorted(widths, reverse=True)
        assert all(widths.count(rows) < (SMALL.buckets if rows == widths[0] else 2) for rows in widths)
        place = 0
        for first, last, rows, low, high, maximum in buckets:
            covered = everything[place : place + rows]
            assert (first, last, low, high) == (covered[0][0], covered[-1][0], covered[0][3], covered[-1][3])
            blocks = [np.frombuffer(row[5], np.float32) for row in covered if row[5] is not None]
            if blocks:
                np.testing.assert_array_equal(np.frombuffer(maximum, np.float32), np.fmax.reduce(blocks))
            place += rows
        assert len(everything) - place < SMALL.bucket_rows, "the rest is whole in steps"


@any_run
@given(
    values=st.lists(st.tuples(st.sampled_from("abc"), st.floats()), max_size=400),
    size=st.integers(1, 90),
)
def test_old_values_of_each_metric_thin_out_and_events_between_the_first_and_the_last_go(
    values: list[tuple[str, float]], size: int
) -> None:
    with tables(SMALL) as (connection, written):
        rows = [(step, None, name, value) for step, (name, value) in enumerate(values)]
        for start in range(0, len(rows), size):
            assert written.write_scalars(connection, rows[start : start + size]) == ""
            written.write_events(connection, [(0.0, step, "note", "x") for step, *_ in rows[start : start + size]])
        for name in "abc":
            all_steps = [row[0] for row in rows if row[2] == name]
            kept = connection.execute("SELECT step FROM scalars WHERE name = ? ORDER BY scalar", (name,)).fetchall()
            assert [step for (step,) in kept] == [
                step for place, step in enumerate(all_steps) if survives(place, len(all_steps), SMALL.newest_values)
            ]
        events = [step for (step,) in connection.execute("SELECT step FROM events ORDER BY event")]
        every = list(range(len(rows)))
        assert events == (every if len(rows) <= 15 else every[:5] + every[-10:])


def test_metrics_of_ever_new_names_are_told_once_and_left_out() -> None:
    with tables(Limits(metrics=3)) as (connection, written):
        told = [written.write_scalars(connection, [(n, None, f"m{n}", 1.0), (n, None, "m0", 1.0)]) for n in range(9)]
        assert [text for text in told if text] == ["more than 3 metrics: 'm3' and others are not recorded"]
        assert connection.execute("SELECT count(DISTINCT name), count(*) FROM scalars").fetchone() == (3, 12)


def test_large_samples_are_kept_less_often() -> None:
    def kept(size: int) -> int:
        thinning, steps = SampleRetention(1000, 1 << 20), set()
        for step in range(5000):
            for gone in thinning.obsolete([(step, 0, b"x" * size)], float(step)):
                steps.remove(gone)
            steps.add(step)
        assert 4999 in steps
        return len(steps)

    assert kept(100) > 1000
    assert kept(100_000) < 100


def test_samples_of_one_batch_thin_out_too() -> None:
    with tables(Limits(samples=10)) as (connection, written):
        for second in range(100):
            rows = [(second * 10 + i, layer, b"1234") for i in range(10) for layer in range(2)]
            written.write_samples(connection, "neurons", rows, float(second))
        steps = [step for (step,) in connection.execute("SELECT DISTINCT step FROM neurons ORDER BY step")]
        assert steps[-1] == 999 and len(steps) < 60


def test_a_net_of_many_layers_keeps_fewer_steps_whole() -> None:
    limits = Limits()
    assert limits.whole_rows(8, 5) == limits.newest_rows
    assert limits.whole_rows(50, 10) == 16384
    assert limits.whole_rows(1000, 5) == 2048
    assert limits.whole_rows(100_000, 5) == limits.bucket_rows


@pytest.mark.parametrize("wrong", [{"newest_rows": 1000}, {"newest_rows": 256}, {"buckets": 7}])
def test_limits_under_which_rows_would_be_lost_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"power of two|bucket"):
        Limits(**wrong)


def written_run(path: Path, steps: int) -> Path:
    writer = RunWriter(path, header(), MEASURES, limits=SMALL)
    writer.set_layers(layers(4))
    for first in range(1, steps, 997):
        write_steps(writer, first, min(steps, first + 996), 4)
        while writer.waiting:
            time.sleep(0.001)
    writer.close()
    return path


def test_a_thinned_run_is_read_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_EVERY", 0.005)
    steps = 20_000
    path = written_run(tmp_path / "a.gradtui", steps)
    with open_run(path) as reader:
        assert reader.recorded() == steps and reader.span() == (1, steps)
        assert not reader.is_whole(0) and reader.is_whole(steps - 64) and not reader.is_whole(steps - 66)
        kept = reader.newer(0)
        assert len(kept) < 400 and kept.step[0] == 1
        np.testing.assert_array_equal(kept.measures, [speeds(step, 4) for step in kept.step])
        distance, age = np.diff(kept.step), steps - kept.step[:-1]
        assert (distance <= np.maximum(1, age / 16)).all(), "as far apart as they are old, no further"

        walked, cursor = [], 0
        while len(row := reader.after(cursor)):
            cursor = int(row.step[0])
            walked.append(cursor)
        assert walked == kept.step.tolist()
        assert reader.at(9_999).step[0] == kept.step[kept.step <= 9_999][-1]

        overview = reader.overview()
        assert overview.first_step[0] == 1 and overview.last_step[-1] == steps
        assert (overview.first_step[1:] == overview.last_step[:-1] + 1).all()
        everything = np.array([speeds(step, 4) for step in range(1, steps + 1)])
        np.testing.assert_array_equal(overview.maximum.max(axis=0), everything.max(axis=0))
        np.testing.assert_array_equal(overview.minimum.min(axis=0), everything.min(axis=0))
        assert (reader.window(steps - 50, steps).rows == 1).all()
        assert (reader.window(1, 10_000).rows > 1).any(), "thinned rows do not stand for all of them"

    view = RunView(RunFollower(lambda: path))
    assert view.poll()
    snapshot = view.next(changed=True, ready=True)
    view.close()
    assert isinstance(snapshot, Snapshot) and (snapshot.first_step, snapshot.step) == (1, steps)
    assert snapshot.curves.first_step[0] == 1 and snapshot.curves.last_step[-1] == steps
    assert len(kept) < WHOLE_UP_TO, "the window is told to be thinned by the file, not by the number of its rows"


def test_readers_that_follow_meet_every_step_while_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_EVERY", 0.01)
    limits = Limits(newest_rows=2048, bucket_rows=32, buckets=8)
    writer = RunWriter(tmp_path / "a.gradtui", header(), MEASURES, limits=limits)
    writer.set_layers(layers(4))
    write_steps(writer, 1, 10, 4)
    trouble: list[str] = []

    def follow() -> None:
        with open_run(writer.path) as reader:
            last = 0
            while last < 15_000:
                rows = reader.newer(last)
                if not reader.is_whole(last):
                    trouble.append(f"too slow at {last}")
                if len(rows) and rows.step.tolist() != list(range(last + 1, last + 1 + len(rows))):
                    trouble.append(f"a gap after {last}")
                last = int(rows.step[-1]) if len(rows) else last
                back = reader.at(last // 2 + 1)
                if last and not (len(back) and np.array_equal(back.measures[0], speeds(int(back.step[0]), 4))):
                    trouble.append(f"nothing at {last // 2 + 1}")
                seen.append(last)
                time.sleep(0.005)

    seen: list[int] = []
    reader = threading.Thread(target=follow)
    reader.start()
    for first in range(11, 15_001, 100):
        write_steps(writer, first, min(15_000, first + 99), 4)
        while first > (seen[-1] if seen else 0) + 1000 and reader.is_alive():
            time.sleep(0.005)
    reader.join(30)
    writer.close()
    assert not trouble and seen[-1] == 15_000


def test_a_viewer_that_slept_starts_again_from_the_overview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_EVERY", 0.005)
    writer = RunWriter(tmp_path / "a.gradtui", header(), MEASURES, limits=SMALL)
    writer.set_layers(layers(4))
    view = RunView(RunFollower(lambda: writer.path))
    write_steps(writer, 1, 50, 4)
    while view.follower.newest is None:
        view.poll()
    for first in range(51, 5_000, 50):
        write_steps(writer, first, first + 49, 4)
        while writer.waiting:
            time.sleep(0.001)
    writer.close()
    view.poll()
    snapshot = view.next(changed=True, ready=True)
    view.close()
    assert isinstance(snapshot, Snapshot) and snapshot.last_step == 5_000
    curves = snapshot.curves
    assert curves.first_step[0] == 1
    assert (curves.first_step[1:] == curves.last_step[:-1] + 1).all()


def test_a_run_of_the_first_schema_is_read(tmp_path: Path) -> None:
    path = make_run(tmp_path / "old.gradtui", steps=6000).path
    connection = sqlite3.connect(path)
    connection.executescript(
        "DROP INDEX steps_place; DROP INDEX scalars_place; ALTER TABLE steps RENAME TO s; ALTER TABLE heartbeat RENAME"
        " TO h; CREATE TABLE steps (step INTEGER PRIMARY KEY, epoch REAL, time REAL, loss REAL, learning_rate REAL,"
        " measures BLOB); INSERT INTO steps SELECT step, epoch, time, loss, learning_rate, measures FROM s;"
        " CREATE TABLE heartbeat (one INTEGER PRIMARY KEY, time REAL, step INTEGER, rows INTEGER);"
        " INSERT INTO heartbeat SELECT one, time, step, rows FROM h; DROP TABLE s; DROP TABLE h;"
        " PRAGMA user_version = 1"
    )
    connection.close()
    with open_run(path) as reader:
        assert reader.recorded() == 6000 and reader.is_whole(0)
        assert len(reader.newer(0, 10_000)) == 6000
        assert reader.overview().rows.tolist() == [512] * 11 + [6000 - 11 * 512]
    follower = RunFollower(lambda: path)
    assert follower.poll() and not follower.problem
    follower.close()


def test_a_run_that_says_nothing_of_optimizers_is_read(tmp_path: Path) -> None:
    path = make_run(tmp_path / "old.gradtui", steps=6000).path
    connection = sqlite3.connect(path)  # as schema 3 had it
    gone = {"steps": ["optimizer"], "envelope": ["optimizers"], "layers": ["optimizers", "branches", "size"]}
    for table, columns in gone.items():
        known = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] not in columns]
        connection.executescript(
            f"CREATE TABLE old AS SELECT {', '.join(known)} FROM {table}; DROP TABLE {table};"
            f" ALTER TABLE old RENAME TO {table}"
        )
    connection.executescript("DROP TABLE schedules; DROP TABLE optimizers; PRAGMA user_version = 3")
    connection.close()
    with open_run(path) as reader:
        assert reader.schedules() == [] and [layer.optimizers for layer in reader.layers()] == [()] * 4
        assert set(reader.newer(0).optimizers.tolist()) == set(reader.overview().optimizers.tolist()) == {-1}
