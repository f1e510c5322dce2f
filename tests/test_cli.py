"""The `gradtui` command where there is no terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradtui.lab.plan import Plan, locked
from gradtui.lab.recipe import Recipe
from gradtui.runfile import NOT_MEASURED, Measure, RunWriter
from tests.synthetic import MEASURES, header, layers, make_run


def gradtui(*words: str, **kind: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gradtui", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        **kind,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    ("words", "tells"),
    [
        ((), ("train", "attach", "runs", "--fps", "--ascii", "--version")),
        (("train",), ("--experiment", "--hidden", "--activation", "--headless", "--detach", "--data-dir", "--lr")),
        (("attach",), ("RUN", "--dir")),
        (("runs",), ("--json",)),
    ],
)
def test_help_tells_every_flag(words: tuple[str, ...], tells: tuple[str, ...]) -> None:
    done = gradtui(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in tells)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("runs", "--jsn"), "unrecognized arguments: --jsn (did you mean --json?); see `gradtui runs --help`"),
        (("train", "--hiden", "9"), "unrecognized arguments: --hiden 9 (did you mean --hidden?); see `gradtui train"),
        (("run", "--evry", "5", "true"), "unrecognized arguments: --evry (did you mean --every?); see `gradtui run"),
        (("trian",), "argument COMMAND: there is no 'trian': did you mean train?"),
        (("train", "--net", "residul"), "argument --net: there is no 'residul': did you mean residual?"),
        (("train", "--net", "qqq"), "argument --net: there is no 'qqq': choose one of plain, residual, "),
        (("attach", "--fps", "x"), "argument --fps: 'x': give a number from 0.1 to 60; see `gradtui attach --help`"),
        (("--jsn",), "unrecognized arguments: --jsn; see `gradtui --help`"),
        (("run", "--every", "0", "true"), "--every 0: give a number of steps, 1 or more"),
        (("run", "--threshold", "dead", "true"), "--threshold 'dead': give a name and a number, e.g. dead=0.9"),
        (("run", "--threshold", "ded=1", "true"), "--threshold: there is no threshold 'ded': did you mean dead"),
    ],
)
def test_an_error_is_one_line_that_names_the_help_of_the_subcommand(words: tuple[str, ...], says: str) -> None:
    done = gradtui(*words)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"gradtui: {says}")


def test_a_subcommand_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from gradtui import cli, commands

    (tmp_path / "cli_greet.py").write_text(
        "def add_parser(commands, is_given):\n"
        "    parser = commands.add_parser('greet', help='say hello')\n"
        "    parser.set_defaults(run=lambda options: print(f'hello, {is_given}') or 3)\n"
    )
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    assert cli.main(["greet"]) == 3
    assert capsys.readouterr().out == "hello, True\n"
    assert "say hello" in cli.build_parser([]).format_help()


def test_version() -> None:
    from gradtui import __version__

    assert gradtui("--version").stdout == f"gradtui {__version__}\n"


def test_runs_are_tab_separated_in_a_pipe_and_json_for_scripts(runs_in_tmp: Path) -> None:
    make_run(runs_in_tmp / "one.gradtui")
    writer = make_run(runs_in_tmp / "two.gradtui", close=False)
    writer.step(2000, None, 2.0, float("nan"), 0.1, None)
    writer.close("failed", "ValueError: [red]")
    (runs_in_tmp / "three.gradtui").write_bytes(b"garbage")
    table = [line.split("\t") for line in gradtui("runs").stdout.splitlines()]
    assert table[0] == ["run", "state", "step", "loss", "accuracy", "layers", "started", "problem"]
    assert sorted((row[0], row[1]) for row in table[1:]) == [
        ("one", "finished"), ("three", "unreadable"), ("two", "failed")
    ]  # fmt: skip
    facts = {run["run"]: run for run in json.loads(gradtui("runs", "--json").stdout)}
    assert facts["one"]["step"] == 1000 and facts["one"]["layers"] == 4 and facts["one"]["accuracy"] > 0.8
    assert facts["two"]["loss"] == "nan" and facts["two"]["detail"] == "ValueError: [red]"
    assert "not a gradtui run" in facts["three"]["detail"]


def test_the_report_says_of_which_step_its_numbers_are(runs_in_tmp: Path) -> None:
    measures = [Measure("bias_grad_norm", "‖∂C/∂b‖", "1", ""), Measure("dead", "dead", "1", "", source="outputs")]
    writer = RunWriter(runs_in_tmp / "a.gradtui", header("a"), measures)
    writer.set_layers(layers(2))
    for step in range(1, 11):
        dead = 0.5 if step == 4 else NOT_MEASURED
        block = np.array([[0.1, dead], [0.2, NOT_MEASURED]], np.float32)
        writer.step(step, None, step / 10, 0.5 if step < 8 else None, 0.1, block.tobytes())
        writer.scalar(step, None, "loss G", 2.5 / step)
    writer.close()
    said = gradtui("report", "a").stdout
    assert (
        "10 steps, loss 0.5 in step 7;" in said and "dead: as of step 4" in said and "\nmetrics: loss G 0.25\n" in said
    )
    facts = json.loads(gradtui("report", "a", "--json").stdout)
    assert (facts["loss_step"], facts["activations_step"], facts["layers"][0]["dead"]) == (7, 4, 0.5)


def test_the_report_has_a_column_for_each_measure_that_was_taken(runs_in_tmp: Path) -> None:
    measures = [
        *MEASURES,
        Measure("param_norm", "‖θ‖", "1", "in the JSON alone"),
        Measure("spectral_norm", "σ₁(W)", "1", "somebody's", title="Spectral norm", source="parameters"),
        Measure("loudest", "max |a|", "1", "never taken", source="outputs"),
    ]
    writer = RunWriter(runs_in_tmp / "a.gradtui", header("a"), measures)
    writer.set_layers(layers(2))
    block = np.array([[0.1, 0.2, 3, 1.5, NOT_MEASURED], [0.3, 0.4, 4, NOT_MEASURED, NOT_MEASURED]], np.float32)
    writer.step(1, None, 0.1, 0.5, 0.1, block.tobytes())
    writer.close()
    table = [line.split("\t") for line in gradtui("report", "a").stdout.splitlines() if "\t" in line]
    assert table[0] == ["layer", "shape", "‖∂C/∂b‖", "‖Δθ‖/‖θ‖", "σ₁(W)"]
    assert [row[2:] for row in table[1:]] == [["0.1", "0.2", "1.5"], ["0.3", "0.4", ""]]
    facts = json.loads(gradtui("report", "a", "--json").stdout)
    assert facts["measures"][3] == {
        "name": "spectral_norm",
        "symbol": "σ₁(W)",
        "unit": "1",
        "definition": "somebody's",
        "title": "Spectral norm",
        "source": "parameters",
    }
    assert [layer["param_norm"] for layer in facts["layers"]] == [3.0, 4.0]


def test_a_report_as_json_is_whole_whatever_the_layers_are_called(runs_in_tmp: Path) -> None:
    names = ["x" * 10_000, 'quote " and, comma', "\x1b[31mred\x7f", "[bold]"]
    make_run(runs_in_tmp / "named.gradtui", steps=50, names=names)
    done = gradtui("report", "named", "--json")
    assert [layer["name"] for layer in json.loads(done.stdout)["layers"]] == names
    assert all(line.isprintable() for line in done.stdout.splitlines())


def test_a_long_run_without_layers_is_reported(runs_in_tmp: Path) -> None:
    writer = RunWriter(runs_in_tmp / "bare.gradtui", header("bare"), MEASURES)
    for step in range(1, 3000):
        writer.step(step, None, step / 1000, 0.5, 0.1, b"" if step % 2 else None)
    writer.close()
    done = gradtui("report", "bare")
    assert done.returncode == 0 and "2,999 steps, loss 0.5" in done.stdout


def test_a_folder_of_runs_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    done = gradtui("--dir", str(tmp_path / "nope"), "runs")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "there is no folder" in done.stderr


def test_comparisons_stand_before_the_runs(runs_in_tmp: Path) -> None:
    make_run(runs_in_tmp / "one.gradtui")
    plan = Plan(runs_in_tmp / "cures.compare", "Cures", "", {"a": Recipe(), "b": Recipe(activation="tanh")}, (0, 1))
    plan.save()
    make_run(plan.cells()[0].path)
    (runs_in_tmp / "torn.compare").mkdir()
    (runs_in_tmp / "torn.compare" / "plan.json").write_text("{")
    table = [line.split("\t") for line in gradtui("runs").stdout.splitlines()]
    assert sorted(row[:2] for row in table[1:3]) == [["cures.compare", "stopped"], ["torn.compare", "unreadable"]]
    assert {len(row) for row in table} == {8} and [row[0] for row in table[3:]] == ["one"]
    facts = {one["run"]: one for one in json.loads(gradtui("runs", "--json").stdout)}
    assert [facts[name]["kind"] for name in ("cures.compare", "one")] == ["comparison", "run"]
    assert (facts["cures.compare"]["runs"], facts["cures.compare"]["planned"]) == (1, 4)
    assert "damaged" in facts["torn.compare"]["detail"]
    with locked(plan.folder):
        assert "cures.compare\tlive" in gradtui("runs").stdout
    for cell in plan.cells()[1:]:
        make_run(cell.path)
    assert "cures.compare\tfinished" in gradtui("runs").stdout


def test_dir_is_taken_before_and_after_the_command(tmp_path: Path) -> None:
    make_run(tmp_path / "here.gradtui")
    assert "here" in gradtui("runs", "--dir", str(tmp_path)).stdout
    assert "here" in gradtui("--dir", str(tmp_path), "runs").stdout


def test_a_reader_that_goes_away_gets_no_traceback(runs_in_tmp: Path) -> None:
    for number in range(200):
        (runs_in_tmp / f"run{number}.gradtui").write_bytes(b"garbage")
    done = subprocess.run(
        f"{sys.executable} -m gradtui runs --json | head -n 1", shell=True, capture_output=True, text=True
    )
    assert done.stdout == "[\n" and done.stderr == ""


@pytest.mark.parametrize("words", [(), ("attach",), ("train",)])
def test_without_a_terminal_the_viewer_is_refused_in_one_line(words: tuple[str, ...], runs_in_tmp: Path) -> None:
    make_run(runs_in_tmp / "one.gradtui")
    done = gradtui(*words)
    assert done.returncode == 5 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "needs a terminal" in line and "--headless" in line
    assert [path.name for path in runs_in_tmp.iterdir()] == ["one.gradtui"], "no training was started"


def test_detached_training_is_started_named_and_listed(runs_in_tmp: Path) -> None:
    done = gradtui("train", "--detach", "--epochs", "1", "--train-size", "50")
    (name,) = done.stdout.split()
    assert done.returncode == 0
    log = runs_in_tmp / f"{name}.log"
    for _ in range(300):
        if "finished" in log.read_text():
            break
        subprocess.run(["sleep", "0.1"])
    assert f"{name}\tfinished\t5" in gradtui("runs").stdout
