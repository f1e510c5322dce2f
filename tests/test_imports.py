"""Who may import whom, in a fresh interpreter and as import-linter's contracts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gradtui.callbacks import CALLBACKS

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "sklearn", "textual", "numpy", "plotext", "scipy"}


def loaded_after(code: str) -> set[str]:
    """The top-level modules of ours and of libraries that are loaded when `code` has run."""
    script = f"{code}\nimport sys\nprint('loaded', *sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def modules_of(package: str) -> list[str]:
    paths = sorted((ROOT / package.replace(".", "/")).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


def import_all(package: str) -> str:
    return "\n".join(f"import {name}" for name in modules_of(package))


def test_importing_gradtui_loads_nothing_heavy() -> None:
    assert not loaded_after("import gradtui") & HEAVY


@pytest.mark.parametrize("words", ["['--help']", "['--version']", "['train', '--help']", "['runs', '--help']"])
def test_help_and_version_load_nothing_heavy(words: str) -> None:
    code = f"from gradtui.cli import main\ntry:\n    main({words})\nexcept SystemExit:\n    pass"
    assert not loaded_after(code) & HEAVY


def test_listing_runs_loads_neither_numpy_nor_torch_nor_textual() -> None:
    assert not loaded_after("from gradtui.cli import main\nmain(['runs', '--json'])") & HEAVY


def test_the_viewer_loads_neither_torch_nor_scikit_learn() -> None:
    loaded = loaded_after(import_all("gradtui.tui") + "\nimport gradtui.cli, gradtui.view, gradtui.lab.background")
    assert "textual" in loaded
    assert not loaded & {"torch", "sklearn", "pretrain"}


def test_the_first_frame_is_drawn_without_numpy() -> None:
    assert not loaded_after("import gradtui.tui.app, gradtui.tui.screens.run, gradtui.tui.screens.home") & (
        HEAVY - {"textual"}
    )


def test_the_recorder_draws_nothing() -> None:
    loaded = loaded_after(import_all("gradtui.record"))
    assert "torch" in loaded
    assert not loaded & {"textual", "rich", "plotext"}


FRAMEWORKS = list(CALLBACKS)


def test_naming_the_callbacks_loads_no_framework() -> None:
    loaded = loaded_after("import gradtui.callbacks")
    assert not loaded & (HEAVY | {*FRAMEWORKS, "pytorch_lightning"})


def test_a_missing_framework_is_told_in_one_line() -> None:
    code = f"""
import sys
frameworks = {FRAMEWORKS}
sys.modules.update(dict.fromkeys([*frameworks, "pytorch_lightning"]))  # None: cannot be imported
import gradtui.callbacks
from gradtui.errors import GradtuiError
for framework in frameworks:
    try:
        getattr(gradtui.callbacks, framework)
    except GradtuiError as error:
        assert isinstance(error, ImportError) and len(str(error).splitlines()) == 1
        assert f"pip install 'gradtui[{{framework}}]'" in str(error), error
    else:
        raise AssertionError(framework)
"""
    loaded_after(code)


def test_pretrain_stands_alone() -> None:
    assert not loaded_after(import_all("pretrain")) & {"gradtui", "textual"}


def test_the_run_file_needs_numpy_and_the_standard_library_only() -> None:
    loaded = loaded_after(import_all("gradtui.runfile"))
    bare = loaded_after("import numpy, sqlite3, json")
    # what pip's editable installs load at start-up is in both
    assert loaded - bare - set(sys.stdlib_module_names) <= {"gradtui"}


def test_the_contracts_in_pyproject_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout
