"""`pip install gradtui` brings no torch: what needs none works, and the rest says in one line how to add it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gradtui.lab.plan import Plan
from gradtui.lab.recipe import Recipe
from tests.synthetic import make_run

ROOT = Path(__file__).parents[1]
OF_LAB = ["torch", "scipy", "sklearn", "matplotlib", "joblib", "safetensors", "jinja2", "tomli"]
BLOCK = f"import sys\nsys.modules.update(dict.fromkeys({OF_LAB}))  # None: cannot be imported\n"
MISSING = "cannot be imported"
PIP = "pip install 'gradtui[lab]'"
VIEW = """
import asyncio
from pathlib import Path
from gradtui.tui.app import GradtuiApp

async def show(text, **what):
    app = GradtuiApp(Path({folder!r}), **what)
    async with app.run_test(size=(140, 40)) as pilot:
        for _ in range(400):
            drawn = "".join(segment.text for strip in app.screen._compositor.render_strips() for segment in strip)
            if text in drawn:
                return
            await pilot.pause(0.05)
        raise AssertionError(drawn)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which nothing of the lab's extra can be imported."""
    words = [sys.executable, "-c", BLOCK + code]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=100)


def gradtui(*words: str) -> subprocess.CompletedProcess[str]:
    return python(f"from gradtui.cli import main\nsys.exit(main({list(words)}))")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--help", "gradtui attach"),
        ("runs", "one"),
        ("runs --json", '"one"'),
        ("report one", "one: finished"),
        ("report one --json", '"layers"'),
        ("remedies", "xavier"),
        ("train --help", "--hidden"),
        ("compare --help", "--seeds"),
    ],
)
def test_what_needs_no_torch_works_without_it(words: str, says: str, runs_in_tmp: Path) -> None:
    make_run(runs_in_tmp / "one.gradtui", steps=20)
    done = gradtui(*words.split())
    assert done.returncode == 0 and says in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("run=Path({folder!r}, 'one.gradtui')", "Learning speed"),
        ("newest=True", "Learning speed"),
        ("", "Vanishing gradient"),
        ("comparison=[Path({folder!r}, 'one.gradtui'), Path({folder!r}, 'two.gradtui')]", "two"),
        ("comparison=Path({folder!r}, 'both.compare')", "waiting"),
    ],
    ids=["run", "newest", "home", "two-runs", "comparison"],
)
def test_the_viewer_works_without_torch(what: str, text: str, runs_in_tmp: Path) -> None:
    for name in ("one", "two"):
        make_run(runs_in_tmp / f"{name}.gradtui", name=name, steps=20)
    Plan(runs_in_tmp / "both.compare", "Both", "", {"a": Recipe(), "b": Recipe(seed=1)}, (0,)).save()
    folder = str(runs_in_tmp)
    code = VIEW.format(folder=folder) + f"asyncio.run(show({text!r}, {what.format(folder=folder)}))"
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_gradtui_run_works_from_an_environment_without_torch(tmp_path: Path) -> None:
    done = gradtui("run", "true")
    assert done.returncode == 0 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words", ["train", "train --headless --epochs 1", "train --detach", "compare", "compare losses --view"]
)
def test_training_says_in_one_line_what_is_missing(words: str, runs_in_tmp: Path) -> None:
    done = gradtui(*words.split())
    assert done.returncode == 6 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("gradtui: torch ") and MISSING in done.stderr and PIP in done.stderr
    assert not list(runs_in_tmp.glob("*"))


@pytest.mark.parametrize("library", ["torch", "sklearn", "scipy", "joblib", "matplotlib", "jinja2"])
def test_each_library_of_the_lab_is_looked_for_before_a_training_starts(library: str) -> None:
    code = f"import sys\nsys.modules[{library!r}] = None\nfrom gradtui.cli import main\nsys.exit(main(['compare']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 6 and done.stderr.startswith(f"gradtui: {library} ") and PIP in done.stderr


@pytest.mark.parametrize("name", ["watch", "Recorder"])
def test_the_recorder_says_that_torch_is_missing(name: str) -> None:
    done = python(f"import gradtui\ngradtui.{name}")
    assert done.stderr.count("Traceback") == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("gradtui.errors.ExtraMissingError: torch ") and MISSING in line and PIP in line


def test_pretrain_says_that_torch_is_missing(tmp_path: Path) -> None:
    done = python("import pretrain\npretrain.RBM")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("ImportError: torch ") and MISSING in line and PIP in line
    words = ["fit", str(tmp_path / "stack"), "--data", "digits"]
    done = python(f"from pretrain.__main__ import main\nsys.exit(main({words}))")
    assert done.returncode == 6 and done.stderr.startswith("pretrain: ") and done.stderr.count("\n") == 1
    assert MISSING in done.stderr and PIP in done.stderr
    assert python("from pretrain.__main__ import main\nmain(['--help'])").returncode == 0


def test_the_extra_has_what_the_core_does_without() -> None:
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {_name(one) for one in project["dependencies"]}
    lab = {_name(one) for one in project["optional-dependencies"]["lab"]}
    assert core == {"numpy", "platformdirs", "plotext", "textual"}
    assert lab - {"rich", "scikit-learn"} == {*OF_LAB} - {"sklearn"} and "scikit-learn" in lab


def _name(requirement: str) -> str:
    return requirement.partition(";")[0].split(">")[0].split("[")[0].strip()
