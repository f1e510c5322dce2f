"""Comparisons: the same runs however they are started, kept when they are stopped, tabulated as they are."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gradtui.errors import GradtuiError, RunFileError
from gradtui.lab.experiments import EXPERIMENTS
from gradtui.lab.plan import Cell, Plan, comparisons, load_plan, locked, remove_comparison, running
from gradtui.lab.recipe import Recipe
from gradtui.lab.results import (
    HEADINGS,
    RunResult,
    as_cells,
    as_csv,
    as_json,
    estimate,
    result_of,
    results,
    speed_ratio,
    table,
)
from gradtui.lab.run_plan import plan_of, run_cells, tune_rates
from gradtui.lab.train import train
from gradtui.runfile import NOT_MEASURED, open_run

SHORT = Recipe(hidden=(8, 8), epochs=2, batch_size=50, train_size=200, every=1)
WILD = SHORT.but(activation="relu", init="he", cost="softmax", learning_rate=1e30)


def plan_in(folder: Path, seeds: int = 2, **recipes: Recipe) -> Plan:
    recipes = recipes or {"sigmoid": SHORT, "tanh": SHORT.adapted({"activation": "tanh"})}
    return plan_of(folder / "a.compare", "A title", "look", recipes, seeds, 2.0)


def begun(path: Path) -> float:
    """When the training of a run began: tells it from another one in the same place."""
    with open_run(path) as reader:
        return reader.header.started


def measures_of(path: Path) -> np.ndarray:
    with open_run(path) as reader:
        return reader.newer(0).measures[:, :, :3]


def test_a_run_is_the_same_bit_for_bit_alone_and_in_a_comparison_whatever_the_jobs(runs_in_tmp: Path) -> None:
    dropped = SHORT.but(dropout=0.3, activation="prelu", init="he", learning_rate=0.02)
    blocks = []
    for jobs in (1, 2):
        plan = plan_in(runs_in_tmp / str(jobs), plain=SHORT, dropped=dropped)
        run_cells(plan.cells(), jobs=jobs)
        blocks.append([measures_of(cell.path) for cell in plan.cells()])
    alone = [train(cell.recipe, folder=runs_in_tmp / "alone").path for cell in plan.cells()]
    for one, two, bare in zip(*blocks, alone, strict=True):
        assert bare is not None and len(one) == 8
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, measures_of(bare))


def test_what_is_done_is_not_trained_again_and_what_was_cut_short_is(runs_in_tmp: Path) -> None:
    plan = plan_in(runs_in_tmp)
    cells = plan.cells()
    train(cells[0].recipe, path=cells[0].path)
    # a training that was told to stop half-way is not done
    calls = iter(range(100))
    train(cells[1].recipe, path=cells[1].path, should_stop=lambda: next(calls) >= 3)
    kept, cut = (begun(cell.path) for cell in cells[:2])
    told: list[str] = []
    run_cells(cells, jobs=2, on_result=lambda cell, result: told.append(result.state))
    assert begun(cells[0].path) == kept and begun(cells[1].path) != cut
    assert told == ["finished"] * 4
    run_cells(cells, jobs=2, on_result=lambda cell, result: told.append(result.state))
    assert told == ["finished"] * 8 and begun(cells[0].path) == kept


def test_two_labels_of_one_training_share_its_run(runs_in_tmp: Path) -> None:
    plan = plan_in(runs_in_tmp, seeds=1, **{"a b": SHORT, "a-b": SHORT})
    run_cells(plan.cells(), jobs=2)
    assert len(list(plan.folder.glob("*.gradtui"))) == 1
    assert [result.state for result in results(plan)] == ["finished"] * 2


def test_deleting_a_comparison_leaves_what_is_not_its_own(runs_in_tmp: Path) -> None:
    plan = plan_in(runs_in_tmp, seeds=1)
    plan.save()
    run_cells(plan.cells(), jobs=1)
    (plan.folder / "tuning").mkdir()
    (plan.folder / "notes.txt").write_text("mine")
    remove_comparison(plan.folder)
    assert [path.name for path in plan.folder.iterdir()] == ["notes.txt"]
    (plan.folder / "notes.txt").unlink()
    remove_comparison(plan.folder)
    assert not plan.folder.exists()


def test_a_changed_recipe_is_another_run(runs_in_tmp: Path) -> None:
    first, second = plan_in(runs_in_tmp, a=SHORT), plan_in(runs_in_tmp, a=SHORT.but(epochs=3))
    assert {c.path for c in first.cells()}.isdisjoint(c.path for c in second.cells())
    assert [c.path for c in first.cells()] == [c.path for c in plan_in(runs_in_tmp, a=SHORT).cells()]


def test_divergence_is_a_result_with_its_step_and_layer(runs_in_tmp: Path) -> None:
    plan = plan_in(runs_in_tmp, wild=WILD, tame=SHORT)
    run_cells(plan.cells(), jobs=1)
    wild, tame = table(plan, results(plan))
    assert wild.remark.startswith("diverged at step ") and " in fc" in wild.remark and "2 of 2 seeds" in wild.remark
    assert wild.runs == tame.runs == 2 and tame.remark == ""
    assert wild.speed_ratio_end is None and wild.speed_ratio_start is not None


def test_the_table_says_what_the_runs_say(runs_in_tmp: Path) -> None:
    plan = plan_in(runs_in_tmp, seeds=3, a=SHORT)
    accuracies = []
    for cell in plan.cells():
        result = train(cell.recipe, path=cell.path)
        assert result.test_accuracy is not None
        accuracies.append(result.test_accuracy)
    (row,) = table(plan, results(plan))
    assert row.accuracy is not None and row.accuracy.count == 3
    assert row.accuracy.mean == pytest.approx(np.mean(accuracies))
    # t(0.975, 2) = 4.302652729…, from the tables
    half = 4.302652729749464 * np.std(accuracies, ddof=1) / math.sqrt(3)
    assert row.accuracy.half_width == pytest.approx(half)
    assert row.epochs_to_target is not None or row.reached_target == 0
    with open_run(plan.cells()[0].path) as reader:
        rows = reader.newer(0)
        speeds = rows.measures[:, :, 0].astype(float)
        first = result_of(plan.cells()[0], 3.0)
        assert first.speed_ratio_start == pytest.approx(speeds[0].max() / speeds[0].min())
        assert first.speed_ratio_end == pytest.approx(speeds[-8:].mean(0).max() / speeds[-8:].mean(0).min())
        pace = (rows.time[-1] - rows.time[0]) / (rows.step[-1] - rows.step[0])
        assert first.seconds_per_step == pytest.approx(pace)
        costs = reader.scalars()[0]["train_cost"]
        reached = [e for e, c in zip(costs.epoch, costs.value, strict=True) if c <= 3.0]
        assert first.epochs_to_target == (reached[0] if reached else None)


def test_a_speed_ratio_is_of_the_layers_that_are_measured() -> None:
    speeds = np.array([[1.0, NOT_MEASURED, 4.0], [3.0, NOT_MEASURED, 4.0]], np.float32)
    assert speed_ratio(speeds) == 2.0
    assert speed_ratio(np.array([[0.0, 1.0]], np.float32)) == math.inf
    assert math.isnan(speed_ratio(np.array([[math.nan, 1.0]], np.float32)) or 0.0)
    assert speed_ratio(np.array([[1.0]], np.float32)) is None and speed_ratio(np.empty((0, 3), np.float32)) is None


def test_an_interval_needs_two_seeds() -> None:
    assert estimate([]) is None
    one = estimate([0.5])
    assert one is not None and (one.mean, one.half_width, one.count) == (0.5, None, 1)
    two = estimate([0.0, 1.0])
    assert two is not None and two.half_width == pytest.approx(12.706204736 / 2, rel=1e-6)


def test_an_interval_is_shown_from_three_seeds_on() -> None:
    plan = Plan(Path("a.compare"), "", "", {"a": SHORT}, (0, 1, 2))
    found = [RunResult("a", seed, 0.1, "finished", accuracy=accuracy) for seed, accuracy in enumerate((0.1, 0.2, 0.3))]
    column = HEADINGS.index("95 %")
    shown = [as_cells(table(plan, found[:count])[0])[column] for count in (1, 2, 3)]
    half_width = 4.302652729696142 * 10.0 / math.sqrt(3)  # t(0.975, 2) from tables
    assert shown == ["", "", f"±{half_width:.1f}"]


def test_json_and_csv_hold_every_run_and_no_nan(runs_in_tmp: Path) -> None:
    plan = plan_in(runs_in_tmp, wild=WILD, tame=SHORT)
    run_cells(plan.cells(), jobs=1)
    found = results(plan)
    facts = json.loads(as_json(plan, found), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert [row["label"] for row in facts["table"]] == ["wild", "tame"]
    assert len(facts["runs"]) == 4 and facts["runs"][1]["accuracy"] == found[1].accuracy
    odd = [dataclasses.replace(found[0], speed_ratio_start=math.inf, speed_ratio_end=math.nan, accuracy=None)]
    (run,) = json.loads(as_json(plan, odd))["runs"]
    assert (run["speed_ratio_start"], run["speed_ratio_end"], run["accuracy"]) == ("inf", "nan", None)
    rows = list(csv.DictReader(io.StringIO(as_csv(plan, found))))
    assert [(row["label"], int(row["seed"])) for row in rows] == [(r.label, r.seed) for r in found]


def test_each_recipe_takes_the_rate_that_validates_best(runs_in_tmp: Path) -> None:
    relu = SHORT.adapted({"activation": "relu", "init": "he", "cost": "softmax"}).but(epochs=6)
    plan = plan_in(runs_in_tmp, seeds=1, relu=relu, sigmoid=SHORT)
    rates, told = (1e-6, 0.1, 1e6), list[tuple[str, float, RunResult]]()
    tuned = tune_rates(
        plan, jobs=2, rates=rates, on_result=lambda cell, result: told.append((cell.label, cell.recipe.rate, result))
    )
    assert tuned.tuned and tuned.recipes["relu"].learning_rate == 0.1
    # the same budget for all: each rate once, as long as the training itself, with a seed that is not compared
    assert sorted((label, rate) for label, rate, _ in told) == sorted((k, r) for k in plan.recipes for r in rates)
    assert len(list((plan.folder / "tuning").glob("*.gradtui"))) == 6
    assert not {cell.recipe.seed for cell in plan.cells()} & {result.seed for *_, result in told}
    best = max((r for label, _, r in told if label == "sigmoid"), key=lambda r: (not r.diverged, r.validation or 0))
    chosen = next(r for label, rate, r in told if label == "sigmoid" and rate == tuned.recipes["sigmoid"].rate)
    assert chosen.validation == best.validation


def test_a_plan_comes_back_as_it_was_saved(runs_in_tmp: Path) -> None:
    plan = plan_in(runs_in_tmp)
    plan.save()
    assert load_plan(plan.folder) == plan
    assert comparisons(runs_in_tmp) == [plan.folder]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 99}', '{"version": 1, "recipes": []}'])
def test_a_damaged_plan_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(RunFileError) as caught:
        load_plan(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_two_processes_cannot_run_the_same_comparison(tmp_path: Path) -> None:
    assert running(tmp_path) is None
    with locked(tmp_path):
        assert running(tmp_path) == os.getpid()
        with pytest.raises(GradtuiError, match="another process"), locked(tmp_path):
            pass
    assert running(tmp_path) is None


# -- the command ----------------------------------------------------------------------------------------------------


def start(*words: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gradtui", "compare", "--dir", str(folder), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


FLAGS = ("--hidden", "8x2", "--train-size", "200", "--batch-size", "50", "--with", "relu,he", "--with", "batch-norm")


def test_the_command_prints_stable_lines_and_writes_its_reports(tmp_path: Path) -> None:
    process = start(*FLAGS, "--epochs", "2", "--seeds", "2", "--csv", str(tmp_path / "runs.csv"), folder=tmp_path)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "") and "\x1b" not in out and "\r" not in out
    lines = [line.split("\t") for line in out.splitlines()]
    heading = next(i for i, line in enumerate(lines) if line[0] == "recipe")
    assert sorted((line[0], line[1]) for line in lines[:heading]) == sorted(
        (label, seed) for label in ("nothing", "relu + he", "batch-norm") for seed in "01"
    )
    assert [line[0] for line in lines[heading + 1 :]] == ["nothing", "relu + he", "batch-norm"]
    assert {line[4] for line in lines[heading + 1 :]} == {"2"}
    assert len(list(csv.DictReader((tmp_path / "runs.csv").open()))) == 6
    again = start(*FLAGS, "--epochs", "2", "--seeds", "2", "--json", folder=tmp_path)
    facts = json.loads(again.communicate(timeout=60)[0])
    assert [row["runs"] for row in facts["table"]] == [2, 2, 2]


def test_signals_keep_what_is_done_and_the_same_command_goes_on(tmp_path: Path) -> None:
    # enough to do after the first ones that a busy machine cannot end it before the signal comes
    others = ("--with", "relu,he", "--with", "tanh", "--with", "batch-norm")
    words = ("--hidden", "8x2", *others, "--seeds", "1", "--jobs", "1")
    kept: dict[Path, float] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(*words, "--epochs", "25", folder=tmp_path)
        assert process.stdout is not None and process.stderr is not None
        for _ in range(len(kept) + 1):
            assert process.stdout.readline().split("\t")[3] == "finished"
        os.killpg(process.pid, number)  # as a terminal sends it: to the workers too
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "of 4 trainings are kept; the same command goes on" in err and "Traceback" not in err
        (folder,) = tmp_path.glob("*.compare")
        deadline = time.monotonic() + 20
        while running(folder) is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        now = {cell.path: begun(cell.path) for cell in load_plan(folder).cells() if result_of(cell, None).over}
        assert len(now) > len(kept) and {path: now[path] for path in kept} == kept
        kept = now
    again = start(*words, "--epochs", "25", folder=tmp_path)
    again.communicate(timeout=100)
    assert again.returncode == 0
    cells = load_plan(folder).cells()
    assert all(result_of(cell, None).over for cell in cells) and len(cells) == 4
    assert {path: begun(path) for path in kept} == kept


def test_workers_stop_when_the_command_is_killed(tmp_path: Path) -> None:
    process = start("--hidden", "8x2", "--with", "tanh", "--seeds", "1", "--epochs", "100000", folder=tmp_path)

    def running_now() -> list[str]:
        found = list(tmp_path.glob("*.compare/*.gradtui"))
        return [result_of(Cell("", Recipe(), path), None).state for path in found]

    def wait_until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 40
        while not condition():
            assert time.monotonic() < deadline, running_now()
            time.sleep(0.1)

    wait_until(lambda: running_now().count("live") == 2)
    process.kill()
    process.communicate()
    wait_until(lambda: running_now() == ["stopped"] * 2)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("nonsense", 2, "nonsense"),
        ("remedies/nonsense", 2, "nonsense"),
        ("missing.json", 2, "missing.json"),
        ("remedies --only nonsense", 2, "--only"),
        ("--with nonsense", 2, "there is no remedy 'nonsense'"),
        ("--with rbm,residual", 2, "--pretrain rbm is for plain layers"),
        ("--seeds 0", 2, "--seeds"),
        ("--jobs 0", 2, "--jobs"),
        ("--backend threads", 2, "--backend"),
        ("--csv /nowhere/at/all.csv", 1, "/nowhere/at"),
        ("mnist --data-dir /nowhere", 4, "/nowhere"),
        ("--view", 5, "terminal"),
        ("--view --tune lr", 2, "leave out --tune"),
        ("--view --backend dask://x", 2, "leave out --backend"),
    ],
)
def test_bad_words_are_one_line_and_an_exit_code(words: str, code: int, says: str, tmp_path: Path) -> None:
    process = start(*words.split(), folder=tmp_path)
    _, err = process.communicate(timeout=60)
    (line,) = err.splitlines()
    assert process.returncode == code and line.startswith("gradtui") and says in line
    assert not list(tmp_path.glob("*.compare/*.gradtui"))


def test_any_recipes_can_be_compared_experiments_parts_of_them_and_files(tmp_path: Path) -> None:
    from gradtui.cli import build_parser
    from gradtui.lab.compare_command import plan_from_flags

    def plan(*words: str) -> Plan:
        parser = build_parser(["compare", *words])
        return plan_from_flags(parser.parse_args(["compare", *words]), tmp_path)

    (tmp_path / "mine.json").write_text(json.dumps({"hidden": [7], "activation": "gelu"}))
    mine = str(tmp_path / "mine.json")
    together = plan("remedies/tanh", "remedies/nothing", mine, "--with", "selu,lecun", "--epochs", "5", "--seeds", "4")
    assert list(together.recipes) == ["tanh", "nothing", "mine", "selu + lecun"]
    assert {recipe.epochs for recipe in together.recipes.values()} == {5} and together.seeds == (0, 1, 2, 3)
    assert together.recipes["mine"].hidden == (7,) and together.recipes["selu + lecun"].hidden == (30,) * 10
    whole = plan("remedies", "--only", "tanh", "--only", "adam")
    assert list(whole.recipes) == ["tanh", "adam"] and whole.target_cost is not None
    for name in EXPERIMENTS:
        of_mnist = plan(name, "--data", "mnist").recipes
        assert {recipe.data for recipe in of_mnist.values()} <= {"mnist", "adding", "point"}
    mnist = plan("vanishing", "--data", "mnist")
    assert {recipe.data for recipe in mnist.recipes.values()} == {"mnist"}
    assert all(3 <= recipe.epochs < 60 for recipe in mnist.recipes.values()), "about as many steps as on the digits"
    named = plan("--hidden", "8x2", "--with", "tanh", "--name", "mine-too")
    assert (named.name, list(named.recipes)) == ("mine-too", ["nothing", "tanh"])
    assert list(plan(mine, "--with", "tanh", "--name", "other").recipes) == ["mine", "tanh"]
