"""Every command and every example of the README, run as it stands there. (Its two install commands run in CI.)"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradtui import runs
from gradtui.diagnosis import FINDINGS
from gradtui.lab.experiments import EXPERIMENTS
from gradtui.lab.plan import Plan
from gradtui.lab.recipe import Recipe
from tests.end_to_end.terminal import Terminal
from tests.synthetic import make_run, speeds

SCRIPTS = Path(__file__).parents[1] / "run" / "scripts"
README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for language, block in BLOCKS
    if language == "sh"
    for line in block.splitlines()
    if line.startswith("gradtui")
]
EXAMPLES = [block for language, block in BLOCKS if language == "python"]


def test_the_readme_holds_what_these_tests_look_for() -> None:
    assert len(COMMANDS) >= 8 and len(EXAMPLES) == 4


def rows_of(heading: str) -> set[str]:
    """The names in the first column of a table."""
    table = README[README.index(f"| {heading} |") :].partition("\n\n")[0]
    return {name for line in table.splitlines()[2:] for name in re.findall(r"`([\w-]+)`", line.split("|")[1])}


def test_its_tables_have_every_experiment_and_every_finding() -> None:
    assert rows_of("experiment") == set(EXPERIMENTS) - {"nielsen", "mnist"}  # those of the book
    assert rows_of("finding") == set(FINDINGS)


def check_comparison(words: list[str], folder: Path) -> None:
    """Run a comparison with fewer epochs and recipes than the README's: what it prints and writes is what counts."""
    fewer = {"remedies": ["nothing", "tanh"], "losses": ["quadratic", "softmax"]}
    short = ["--epochs", "2", *(word for label in fewer.get(words[1], []) for word in ("--only", label))]
    done = subprocess.run(
        [sys.executable, "-m", "gradtui", *words, *short], capture_output=True, text=True, timeout=110, check=True
    )
    assert "speed ratio at the start" in done.stdout and "±" in done.stdout
    if "--html" in words:
        page = (folder / words[words.index("--html") + 1]).read_text()
        assert "<svg" in page and "nothing" in page


def check_run(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script of somebody's as the README says; `python` is the one that the tests run in."""
    sick = "--fail-on" in words
    shutil.copy(SCRIPTS / ("sick/nan.py" if sick else "raw_tensors.py"), folder / "train.py")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    done = subprocess.run([sys.executable, "-m", "gradtui", *words], capture_output=True, text=True, timeout=110)
    assert done.returncode == (10 if sick else 0), done.stderr
    (run,) = runs()
    assert run.status is not None and run.status.state == "finished" and run.layers


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command(
    words: list[str],
    runs_in_tmp: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "nielsen" in words:
        request.getfixturevalue("mnist_folder")
    if words[:1] in (["attach"], ["runs"], ["report"]):
        make_run(runs_in_tmp / "one.gradtui")
    if "remedies.compare" in words:
        Plan(runs_in_tmp / "remedies.compare", "Remedies", "", {"a": Recipe(), "b": Recipe(seed=1)}, (0,)).save()
    monkeypatch.chdir(tmp_path)
    if words[:1] == ["compare"] and "--view" not in words:
        check_comparison(words, tmp_path)
        return
    if words[:1] == ["run"]:
        check_run(words, tmp_path, monkeypatch)
        return
    with Terminal(*words) as terminal:
        if words == ["remedies"]:
            assert terminal.wait_for_exit() == 0
            assert re.search(r"\(\w+ et al\. 20[0-9]{2}\)", terminal.text), "who found it"
        elif words[:1] == ["compare"] or "remedies.compare" in words:
            terminal.wait_for("waiting")
            terminal.press("q")
            if words[:1] == ["compare"]:
                terminal.wait_for("is still training")
                terminal.press("s")
            assert terminal.wait_for_exit() == 0
        elif "--headless" in words:
            assert terminal.wait_for_exit(60) == 0
            assert "slower than fc4" in terminal.text and "gradtui attach" in terminal.text
        elif words[:1] == ["runs"]:
            assert terminal.wait_for_exit() == 0
            assert "finished" in terminal.text
        elif words[:1] == ["report"]:
            assert terminal.wait_for_exit() == 0
            assert "one: finished" in terminal.text
        else:
            terminal.wait_for("Vanishing gradient" if not words else "Learning speed")
            terminal.press("q")
            if words[:1] == ["train"]:
                terminal.wait_for("is still training")
                terminal.press("s")
            assert terminal.wait_for_exit() == 0


def test_recording_ones_own_training(runs_in_tmp: Path) -> None:
    import torch

    from gradtui import open_run

    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    names = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "batches": [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(20)],
        "cost": torch.nn.functional.cross_entropy,
    }
    exec(EXAMPLES[0], names)
    (run,) = runs(runs_in_tmp)
    assert run.status is not None and run.status.state == "finished" and run.layers == 2
    with open_run(run.path) as reader:
        assert len(reader.newer(0)) >= 1


@pytest.mark.parametrize("line", [line for line in EXAMPLES[1].splitlines() if " = " in line])
def test_recording_with_a_framework(line: str, runs_in_tmp: Path, tmp_path: Path) -> None:
    from tests.callbacks import as_in_readme

    (framework,) = re.findall(r"gradtui\.callbacks\.(\w+)\.", line)
    pytest.importorskip(framework, reason=f"needs pip install 'gradtui[{framework}]'")
    names = as_in_readme.before(framework, tmp_path)
    exec(EXAMPLES[1].splitlines()[0] + "\n" + line, names)
    as_in_readme.after(framework, names)
    (run,) = runs(runs_in_tmp)
    assert run.status is not None and run.status.state == "finished" and run.layers == 2


def test_pretraining_in_a_script() -> None:
    import torch

    names: dict[str, object] = {}
    torch.manual_seed(0)
    exec(EXAMPLES[2], names)
    net, data = names["net"], names["data"]
    with torch.no_grad():
        guessed = net(torch.from_numpy(data.test.images)).argmax(dim=1)  # type: ignore[operator, attr-defined]
    assert float((guessed == torch.from_numpy(data.test.labels)).double().mean()) > 0.9  # type: ignore[attr-defined]


def test_reading_a_run_without_gradtui(runs_in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(runs_in_tmp / "one.gradtui", steps=3).path
    assert "gradtui" not in EXAMPLES[3]
    exec(EXAMPLES[3], {"path": path})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[2].startswith("3 ")
    assert repr(speeds(3, 4)[0, 0]) in lines[2]
