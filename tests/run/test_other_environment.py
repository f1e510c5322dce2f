"""gradtui as a tool in an environment of its own, before the Python of another: torch there, and nothing of ours."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

import gradtui
from gradtui.runfile import open_run

PACKAGE = Path(gradtui.__file__).parent
OURS = ("gradtui", "pretrain", "__editable__", "textual", "rich", "plotext", "platformdirs", "pytest", "_virtualenv")
TRAINS = """
    import torch
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for step in range(20):
        optimizer.zero_grad()
        net(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
"""


def environment(folder: Path, *paths: Path) -> Path:
    """A virtual environment that has what lies in `paths`; its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "paths.pth").write_text("\n".join(map(str, paths)))
    return folder / "bin" / "python"


@dataclass
class Both:
    """The tool's Python and that of the other environment, with the folder of its libraries."""

    folder: Path
    tool: Path
    other: Path
    libraries: Path

    def run(self, *words: str, options: tuple[str, ...] = (), **variables: str) -> subprocess.CompletedProcess[str]:
        """`gradtui run` of the tool, with a bare environment."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "OMP_NUM_THREADS": "1", **variables}
        command = [str(self.tool), "-m", "gradtui", "run", "--every", "1", *options, *words]
        return subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=100)

    def script(self, text: str, name: str = "train.py") -> str:
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    @property
    def runs(self) -> list[Path]:
        return sorted((self.folder / "runs").glob("*.gradtui"))


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    import platformdirs
    import torch

    tool = tmp_path / "tool-libraries"
    for package in (PACKAGE, PACKAGE.with_name("pretrain")):
        shutil.copytree(package, tool / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("numpy", "numpy.libs"):
        if (path := Path(torch.__file__).parents[1] / name).exists():
            (tool / name).symlink_to(path)
    (tool / "platformdirs").symlink_to(Path(platformdirs.__file__).parent)
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for path in Path(torch.__file__).parents[1].iterdir():
        if not path.name.startswith(OURS) and path.suffix != ".pth":
            (libraries / path.name).symlink_to(path)
    tool_python = environment(tmp_path / "tool", tool)
    return Both(tmp_path, tool_python, environment(tmp_path / "other", libraries), libraries)


def older_gradtui(folder: Path, version: str) -> None:
    """Another gradtui in a folder of libraries."""
    (folder / "gradtui" / "record").mkdir(parents=True)
    (folder / "gradtui" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (folder / "gradtui" / "record" / "__init__.py").write_text("raise AssertionError('the two are mixed')\n")
    (folder / f"gradtui-{version}.dist-info").mkdir()
    (folder / f"gradtui-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: gradtui\nVersion: {version}\n"
    )


def test_a_tool_records_what_another_environment_trains(both: Both) -> None:
    # as transformers does; to look for torch does not hide its import from the recorder
    looks = "import importlib.util\nassert importlib.util.find_spec('torch').loader.path\n"
    loads = "import sys; print(*sorted({'textual', 'rich', 'plotext', 'platformdirs'} & {*sys.modules}))"
    where = "import gradtui; print(gradtui.__file__)"
    path = both.script(looks + textwrap.dedent(TRAINS) + f"{loads}\n{where}\nprint(sys.meta_path)\n")
    done = both.run(str(both.other), path, GRADTUI_DIR=str(both.folder / "runs"))
    assert done.returncode == 0 and done.stderr.count("\n") == 1, done.stderr
    loaded, file, finders = done.stdout.splitlines()
    assert not loaded and file == str(both.folder / "tool-libraries" / "gradtui" / "__init__.py")
    assert "sitecustomize" not in finders
    (run,) = both.runs
    with open_run(run) as reader:
        assert [layer.name for layer in reader.layers()] == ["0", "2"] and len(reader.last(99)) == 20


def test_a_script_with_a_shebang_and_its_own_watch_is_recorded_in_the_tool_s_folder(both: Both) -> None:
    text = textwrap.dedent(TRAINS).replace(
        "for step", "import gradtui\ngradtui.watch(net, optimizer, every=1)\nfor step"
    )
    path = both.script(f"#!{both.other}\n{text}", "train")
    Path(path).chmod(0o755)
    done = both.run(path, options=("--dir", str(both.folder / "runs")))
    assert done.returncode == 0 and not done.stderr
    (run,) = both.runs
    assert not list(run.parent.glob("*-starting"))
    with open_run(run) as reader:
        assert len(reader.last(99)) == 20


def test_an_older_gradtui_of_the_environment_is_not_mixed_with_the_tool_s(both: Both) -> None:
    older_gradtui(both.libraries, "0.0.1")
    both.script(TRAINS)
    # torchrun and its like start one process after another: it is said once
    path = both.script(
        "import torch, subprocess, sys\nsubprocess.run([sys.executable, 'train.py'], check=True)", "all.py"
    )
    done = both.run(str(both.other), path, GRADTUI_DIR=str(both.folder / "runs"))
    said = [line for line in done.stderr.splitlines() if "is not used" in line]
    assert done.returncode == 0 and len(both.runs) == 1, done.stderr
    assert len(said) == 1 and f"gradtui {gradtui.__version__}" in said[0] and "gradtui 0.0.1 in" in said[0]


def test_an_environment_without_numpy_is_told_how_to_add_it(both: Both) -> None:
    path = both.script("import sys\nsys.modules['numpy'] = None\n" + textwrap.dedent(TRAINS))
    done = both.run(str(both.other), path, GRADTUI_DIR=str(both.folder / "runs"))
    lines = [line for line in done.stderr.splitlines() if line.startswith("gradtui: nothing is recorded")]
    assert done.returncode == 0 and not both.runs
    assert len(lines) == 1 and f"{both.other} -m pip install numpy" in lines[0]


def test_a_python_that_is_too_old_is_told_and_runs_the_script_all_the_same(both: Both) -> None:
    (both.folder / "torch.py").write_text("")
    text = "import sys; sys.version_info = (3, 9, 0); sys.version = '3.9.0 (main)'; import torch; print('ran')"
    done = both.run(str(both.other), both.script(text), GRADTUI_DIR=str(both.folder / "runs"))
    assert done.stdout == "ran\n"
    assert "nothing is recorded: the recorder needs Python 3.10 or newer" in done.stderr and "is 3.9.0" in done.stderr


def test_what_runs_at_start_up_is_read_by_older_pythons() -> None:
    for path in [*(PACKAGE / "record" / "startup").glob("*.py"), PACKAGE / "run_notes.py"]:
        source = path.read_text()
        ast.parse(source, feature_version=(3, 7))
        assert "from __future__" not in source
