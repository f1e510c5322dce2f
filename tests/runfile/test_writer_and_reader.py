"""What is written is what is read, by any number of readers, while it is written and after."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradtui.errors import RunFileError
from gradtui.runfile import NOT_MEASURED, RunReader, RunWriter, is_measured, open_run, request
from gradtui.runfile.blocks import as_pictures, fold, pad_layers
from gradtui.runfile.retention import SampleRetention
from tests.synthetic import MEASURES, header, layers, make_run, speeds, write_steps

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


def wait_for_rows(reader: RunReader, step: int) -> None:
    deadline = time.monotonic() + 5
    while (reader.span() or (0, 0))[1] < step:
        assert time.monotonic() < deadline, "the rows never came"
        time.sleep(0.02)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    block=arrays.arrays(np.float32, arrays.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=FLOATS),
    losses=st.lists(st.one_of(st.none(), st.floats()), min_size=6, max_size=6),
)
def test_any_measures_and_losses_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, block: np.ndarray, losses: list[float | None]
) -> None:
    rows, count, columns = block.shape
    path = tmp_path_factory.mktemp("run") / "any.gradtui"
    measures = [MEASURES[0]] * columns
    writer = RunWriter(path, header(), measures)
    writer.set_layers(layers(count))
    for step in range(rows):
        writer.step(step + 1, None, 0.5, losses[step], 0.1, block[step].tobytes())
    writer.close()
    with open_run(path) as reader:
        read = reader.newer(0)
        np.testing.assert_array_equal(read.measures.view(np.uint32), block.view(np.uint32))
        assert [None if not known else loss for known, loss in zip(read.loss_known, read.loss, strict=True)] == [
            None if loss is None else pytest.approx(loss, nan_ok=True) for loss in losses[:rows]
        ]
        assert np.isnan(read.epoch).all()


def test_layers_header_scalars_neurons_and_events_come_back(tmp_path: Path) -> None:
    writer = make_run(
        tmp_path / "a.gradtui", names=["[red]", "\x1b[2J", "名前", "x" * 300], close=False, recipe={"seed": 1}
    )
    writer.event("note", "[bold]hello\x1b[0m", 5)
    writer.scalar(7, 0.5, "val_loss", float("nan"))
    writer.close("stopped", "by hand")
    with open_run(writer.path) as reader:
        assert [layer.name for layer in reader.layers()] == ["[red]", "\x1b[2J", "名前", "x" * 300]
        assert reader.layers()[0].shapes == {"weight": (30, 30), "bias": (30,)}
        assert reader.header.recipe == {"seed": 1}
        assert (reader.status().state, reader.status().detail) == ("stopped", "by hand")
        assert [(e.kind, e.text, e.step) for e in reader.events()] == [("note", "[bold]hello\x1b[0m", 5)]
        series, mark = reader.scalars()
        assert np.isnan(series["val_loss"].value[0])
        assert series["val_accuracy"].step.tolist() == list(range(100, 1001, 100))
        assert reader.scalars(mark) == ({}, mark)
        sample = reader.neurons(1000)
        assert sample is not None and sample.step == 1000
        expected = np.sin(np.arange(30) + 2).astype(np.float32) * speeds(1000, 4)[2, 0]
        np.testing.assert_array_equal(sample.bias_grad[2], expected)


def test_a_reader_follows_by_asking_for_what_is_newer(tmp_path: Path) -> None:
    writer = make_run(tmp_path / "a.gradtui", steps=300, close=False)
    with open_run(writer.path) as reader:
        wait_for_rows(reader, 300)
        assert reader.status().live
        assert reader.newer(0).step.tolist() == list(range(1, 301))
        write_steps(writer, 301, 350, 4)
        wait_for_rows(reader, 350)
        newer = reader.newer(300)
        assert newer.step.tolist() == list(range(301, 351))
        np.testing.assert_array_equal(newer.measures[-1], speeds(350, 4))
    writer.close()


def test_many_readers_at_once_see_the_same_rows(tmp_path: Path) -> None:
    writer = make_run(tmp_path / "a.gradtui", steps=10, close=False)
    seen: list[int] = []

    def follow() -> None:
        with open_run(writer.path) as reader:
            last = 0
            while last < 3000:
                rows = reader.newer(last)
                if len(rows):
                    assert rows.step[0] == last + 1
                    last = int(rows.step[-1])
                time.sleep(0.01)
            seen.append(last)

    readers = [threading.Thread(target=follow) for _ in range(4)]
    for reader in readers:
        reader.start()
    for first in range(11, 3000, 100):
        write_steps(writer, first, min(3000, first + 99), 4)
        time.sleep(0.01)
    for reader in readers:
        reader.join(20)
    writer.close()
    assert seen == [3000] * 4


def test_the_overview_of_a_long_run_is_thin_and_loses_no_spike(tmp_path: Path) -> None:
    path = tmp_path / "long.gradtui"
    writer = RunWriter(path, header(), MEASURES)
    writer.set_layers(layers(3))
    steps = 20_000
    values = np.random.default_rng(0).random((steps, 3, 2), dtype=np.float32)
    values[7_777, 1, 0] = 1e6
    values[12_345, 2, 1] = np.nan
    values[:, 0, 1] = NOT_MEASURED
    for step in range(steps):
        writer.step(step + 1, None, step / 100, float(step), 0.1, values[step].tobytes())
    writer.close()
    with open_run(path) as reader:
        thin = reader.overview()
        assert len(thin) < 1000
        assert thin.first_step[0] == 1 and thin.last_step[-1] == steps
        assert (thin.first_step[1:] == thin.last_step[:-1] + 1).all()
        assert thin.maximum[:, 1, 0].max() == np.float32(1e6)
        assert np.isnan(thin.maximum[:, 2, 1]).sum() == 1
        assert thin.minimum[:, 2, 0].min() == values[:, 2, 0].min()
        assert not is_measured(thin.maximum[:, 0, 1]).any()
        assert np.nanmax(thin.loss_maximum) == steps - 1
        whole = reader.window(7_000, 8_000)
        np.testing.assert_array_equal(whole.maximum, values[6_999:8_000])


def test_fold_and_padding_against_brute_force() -> None:
    rng = np.random.default_rng(1)
    block = rng.random((50, 4, 3), dtype=np.float32)
    block[rng.random(block.shape) < 0.3] = NOT_MEASURED
    block[:, 2, 2] = NOT_MEASURED
    block[7, 0, 0] = np.nan
    block[8, 1, 1] = np.inf
    low, high, mean = fold(block, block, block)
    for layer in range(4):
        for measure in range(3):
            column = [v for v in block[:, layer, measure] if is_measured(np.array([v], np.float32))[0]]
            if not column:
                assert not is_measured(low)[layer, measure] and not is_measured(high)[layer, measure]
                continue
            assert low[layer, measure] == min(v for v in column if not np.isnan(v))
            assert mean[layer, measure] == pytest.approx(np.mean(column), nan_ok=True)
            if any(np.isnan(v) for v in column):
                assert np.isnan(high[layer, measure])
            else:
                assert high[layer, measure] == max(column)
    padded = pad_layers([block[0, :2].tobytes(), None], 4, 3)
    np.testing.assert_array_equal(padded[0, :2], block[0, :2])
    assert not is_measured(padded[0, 2:]).any() and not is_measured(padded[1]).any()


def test_a_viewer_asks_the_training_to_stop(tmp_path: Path) -> None:
    writer = make_run(tmp_path / "a.gradtui", close=False)
    request(writer.path, "stop")
    deadline = time.monotonic() + 5
    while not writer.commands and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(writer.commands) == ["stop"]
    writer.close()


def test_neuron_samples_thin_out_with_the_length_of_a_run_and_the_newest_stays() -> None:
    thinning = SampleRetention(1000, 1 << 20)
    kept: set[int] = set()
    for step in range(20_000):  # one sample a second, over five hours and a half
        for gone in thinning.obsolete([(step, 0, b"")], float(step)):
            kept.remove(gone)
        kept.add(step)
    assert 19_999 in kept
    assert len(kept) < 6000


def test_the_file_is_readable_without_gradtui(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a.gradtui").path
    db = sqlite3.connect(path)
    names = [name for (name,) in db.execute("SELECT name FROM measures ORDER BY position")]
    (count,) = db.execute("SELECT count(*) FROM layers").fetchone()
    (blob,) = db.execute("SELECT measures FROM steps ORDER BY step DESC LIMIT 1").fetchone()
    np.testing.assert_array_equal(np.frombuffer(blob, "<f4").reshape(count, len(names)), speeds(1000, 4))
    db.close()


def test_an_ended_run_is_one_file(tmp_path: Path) -> None:
    make_run(tmp_path / "a.gradtui")
    assert [path.name for path in tmp_path.glob("a.gradtui*")] == ["a.gradtui"]


def test_writing_over_an_existing_run_is_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a.gradtui").path
    with pytest.raises(FileExistsError):
        RunWriter(path, header(), MEASURES)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello, this is no database at all", "is not a gradtui run"),
        (b"SQLite format 3\0" + b"garbage" * 500, "damaged or cut short"),
    ],
)
def test_a_garbage_file_is_one_clear_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.gradtui"
    path.write_bytes(content)
    with pytest.raises(RunFileError, match=says) as caught:
        open_run(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=20))
def test_a_cut_or_damaged_run_never_raises_anything_but_run_file_error(
    tmp_path_factory: pytest.TempPathFactory, keep: float, flips: list[tuple[float, int]]
) -> None:
    global _whole
    folder = tmp_path_factory.mktemp("damaged")
    if not _whole:
        _whole = make_run(folder / "whole.gradtui", steps=200).path.read_bytes()
    damaged = bytearray(_whole[: int(len(_whole) * keep)])
    for place, value in flips:
        if damaged:
            damaged[int(place * (len(damaged) - 1))] = value
    path = folder / "damaged.gradtui"
    path.write_bytes(bytes(damaged))
    try:
        with open_run(path) as reader:
            reader.layers()
            reader.status()
            reader.overview()
            reader.scalars()
            reader.neurons(100)
            reader.events()
    except RunFileError as error:
        assert "\n" not in str(error)


_whole = b""


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.gradtui"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (x)")
    db.close()
    with pytest.raises(RunFileError, match="not a gradtui run"):
        open_run(path)


def test_a_run_of_a_newer_gradtui_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a.gradtui").path
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(RunFileError, match="upgrade gradtui"):
        open_run(path)


def test_a_run_in_a_read_only_folder_opens(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a.gradtui").path
    tmp_path.chmod(0o500)
    try:
        with open_run(path) as reader:
            assert reader.span() == (1, 1000)
    finally:
        tmp_path.chmod(0o700)


def test_finding_the_ends_of_a_run_does_not_read_it(tmp_path: Path) -> None:
    work = []
    for steps in (100, 20_000):
        with open_run(make_run(tmp_path / f"{steps}.gradtui", steps=steps).path) as reader:
            counted: list[None] = []
            reader._connection.set_progress_handler(lambda seen=counted: seen.append(None), 10)
            assert reader.span() == (1, steps)
            reader.at(steps)
            reader.newer(steps - 1)
            work.append(len(counted))
    assert work[1] <= work[0] + 2, "SQLite's own steps must not grow with the length of the run"


@given(
    values=arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 5)),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    )
)
def test_pictures_are_bytes_between_their_least_and_their_largest_value(values: np.ndarray) -> None:
    made = as_pictures(3, "filters", "fc1", values)
    assert (made.count, made.rows, made.columns) == values.shape
    known = np.where(np.isfinite(values), values, 0).astype(np.float64)
    if not known.size:
        return
    assert made.signed == bool((known < 0).any())
    assert made.low <= known.min() and known.max() <= made.high
    back = made.low + np.frombuffer(made.pixels, np.uint8).reshape(values.shape) / 255 * (made.high - made.low)
    assert np.abs(back - known).max() <= (made.high - made.low) / 255 / 2 * 1.001 + 1e-12


def test_the_newest_pictures_of_each_kind_come_back_and_older_files_have_none(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run.gradtui", header(), MEASURES)
    writer.set_layers(layers(1))
    made = [as_pictures(step, name, "fc1", np.full((2, 3, 3), float(step))) for step in (1, 5) for name in ("b", "a")]
    for pictures in made:
        writer.pictures(pictures)
    writer.close()
    with open_run(writer.path) as reader:
        assert reader.pictures(0) == ()
        assert reader.pictures(4) == tuple(made[:2])
        assert reader.pictures(9) == tuple(made[2:])
    connection = sqlite3.connect(writer.path)
    connection.execute("DROP TABLE pictures")
    connection.commit()
    connection.close()
    with open_run(writer.path) as reader:
        assert reader.pictures(9) == ()
