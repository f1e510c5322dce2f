"""The table of docs/launching.md: in what way the Python that trains is started, and that it is looked into or told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradtui.options import RecordOptions
from gradtui.python_command import python_command
from gradtui.recorded_command import prepare
from gradtui.runfile import open_run
from tests.run.test_launch import TRAINS, recorded, run, script

LOOKS = """
import sys
seen = any(type(finder).__name__ == "TorchFinder" for finder in sys.meta_path)
print(__name__, sys.argv[1:], "looked into" if seen else "not looked into")
"""
SEEN = "__main__ ['a', '-c'] looked into\n"
BIN = Path(sys.executable).parent


def looks(folder: Path, *words: str, text: str = LOOKS, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command in which PY, SCRIPT and FOLDER stand for a Python, a script that tells what it sees, its folder."""
    path = script(folder, text, "looks.py")
    named = {"PY": sys.executable, "SCRIPT": path, "FOLDER": str(folder), "CODE": LOOKS, "BIN": str(BIN)}
    for name, value in named.items():
        words = tuple(word.replace(name, value) for word in words)
    return run(folder, *words, cwd=folder, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", ["", "-I", "-S", "-E", "-P", "-sE", "-Bu -X dev -S", "-W error -I"])
@pytest.mark.parametrize("program", ["SCRIPT", "-m looks", "-c CODE", "-", "FOLDER/program"])
def test_a_python_is_looked_into_however_it_is_started(flags: str, program: str, tmp_path: Path) -> None:
    if "P" in flags and sys.version_info < (3, 11):
        pytest.skip("-P is of Python 3.11")
    if program == "-m looks" and {"-P", "-I"} & {*flags.split()}:
        pytest.skip("without the folder in which it runs, Python does not find the module either")
    (tmp_path / "program").mkdir()
    script(tmp_path / "program", LOOKS, "__main__.py")
    done = looks(tmp_path, "PY", *flags.split(), *program.split(), "a", "-c", input=LOOKS if program == "-" else "")
    assert done.stdout == SEEN and done.returncode == 0, done.stderr
    assert done.stderr == "gradtui: nothing was recorded: torch was not imported\n"


@pytest.mark.parametrize(
    "words",
    [
        ("sh", "-c", "PY SCRIPT a -c"),
        ("make", "-s", "train"),
        ("nohup", "PY", "SCRIPT", "a", "-c"),
        ("env", "X=1", "PY", "SCRIPT", "a", "-c"),
        ("PY", "-c", "import os; os.execv('PY', ['PY', 'SCRIPT', 'a', '-c'])"),
        ("PY", "-I", "-c", "import subprocess; subprocess.run(['PY', 'SCRIPT', 'a', '-c'])"),
        ("FOLDER/launcher", "a", "-c"),
    ],
    ids=["shell", "make", "nohup", "env", "exec", "subprocess", "first line with -I"],
)
def test_a_python_that_something_else_starts_is_looked_into(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(f"train:\n\t{sys.executable} looks.py a -c\n")
    (tmp_path / "launcher").write_text(f"#!{sys.executable} -sI\n{LOOKS}")
    (tmp_path / "launcher").chmod(0o755)
    done = looks(tmp_path, *words)
    assert SEEN in done.stdout and done.returncode == 0, done.stderr
    assert done.stderr.endswith("gradtui: nothing was recorded: torch was not imported\n")


def test_torchrun_and_accelerate_start_pythons_that_are_looked_into(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    for words in (("torchrun", "--nproc-per-node", "2"), ("accelerate", "launch", "--num_processes", "1", "--cpu")):
        done = looks(tmp_path, f"BIN/{words[0]}", *words[1:], "SCRIPT", "a", "-c")
        assert done.stdout.count(SEEN) == (2 if words[0] == "torchrun" else 1), done.stderr
        # the launcher itself has imported torch
        assert "nothing was recorded: no optimizer took a step" in done.stderr


def test_uv_starts_a_python_that_is_looked_into(tmp_path: Path) -> None:
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    done = looks(tmp_path, "uv", "run", "--offline", "--no-project", "--python", "PY", "SCRIPT", "a", "-c")
    assert done.stdout == SEEN, done.stderr


def test_the_kernel_of_a_notebook_is_looked_into(tmp_path: Path) -> None:
    """As a Jupyter server starts it: a child that runs a module, in which cells are executed as `__main__`."""
    kernel = "import sys\nexec(compile(sys.stdin.read(), '<cell>', 'exec'), vars(sys.modules['__main__']))\n"
    script(tmp_path, kernel, "kernel.py")
    server = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'kernel', 'a', '-c'])"
    assert looks(tmp_path, "PY", "-c", server, input=LOOKS).stdout == SEEN


def test_a_sitecustomize_of_its_own_does_not_hide_a_python(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    script(tmp_path / "own", "print('mine')", name="sitecustomize.py")
    done = looks(tmp_path, "PY", "SCRIPT", "a", "-c", variables={"PYTHONPATH": str(tmp_path / "own")})
    assert done.stdout.endswith(f"mine\n{SEEN}")


def test_a_child_that_does_not_look_is_told(tmp_path: Path) -> None:
    done = looks(tmp_path, "sh", "-c", "PY -I SCRIPT a -c")
    assert "not looked into" in done.stdout
    assert done.stderr.count("\n") == 1 and "started no Python that can be looked into; -I, -S and -E" in done.stderr


@pytest.mark.parametrize("flag", ["-I", "-S", "-E"])
def test_a_program_that_fails_fails_as_alone(flag: str, tmp_path: Path) -> None:
    path = script(tmp_path, LOOKS + "\ndef fail():\n    raise ValueError('mine')\nfail()\n", "fails.py")
    alone = subprocess.run([sys.executable, flag, path], capture_output=True, text=True)
    done = run(tmp_path, sys.executable, flag, path)
    assert alone.stderr in done.stderr and done.stderr.count("\n") == alone.stderr.count("\n") + 1
    assert done.returncode == 1


def test_an_isolated_training_is_recorded_and_told_once_it_is(tmp_path: Path) -> None:
    path = script(tmp_path, TRAINS + "    print('step', step, flush=True)\n", steps=20, spoil="")
    done = run(tmp_path, sys.executable, "-I", path, options=("--every", "1"))
    (found,) = recorded(tmp_path)
    assert done.stderr == f"gradtui: recording to {found.stem}; watch it with `gradtui attach {found.stem}`\n"
    with open_run(found) as reader:
        assert [layer.name for layer in reader.layers()] == ["0", "2"] and len(reader.last(99)) == 20


def test_why_nothing_was_recorded_is_said(tmp_path: Path) -> None:
    bare = subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")])
    assert bare.returncode == 0
    python = str(tmp_path / "bare" / "bin" / "python")
    done = run(tmp_path, python, "-c", "try:\n    import torch\nexcept ImportError:\n    print('none')")
    assert done.stdout == "none\n"
    assert done.stderr == f"gradtui: nothing was recorded: torch is not installed in {python}\n"
    done = run(tmp_path, sys.executable, "-c", "import torch; print(torch.ones(1).item())")
    assert done.stdout == "1.0\n" and "nothing was recorded: no optimizer took a step" in done.stderr
    assert run(tmp_path, "echo", "hello").stderr.startswith("gradtui: nothing was recorded: the command started no")


@pytest.mark.parametrize(
    ("command", "led"),
    [
        ("python train.py -I", None),
        ("python -m pkg -E", None),
        ("python -Xfrozen_modules=off -Wdefault::SyntaxWarning train.py", None),
        ("python -V -I", None),
        ("python -I -x train.py", None),
        ("trainer -I x", None),
        ("python3.12 -Im pkg -E", "python3.12 -I STARTER -m pkg -E"),
        ("python -Xdev -EcX=1 y", "python -Xdev -E STARTER -c X=1 y"),
        ("python -W error -S -- train.py -m", "python -W error -S STARTER train.py -m"),
        ("python -I", "python -I STARTER -"),
    ],
)
def test_only_a_python_that_would_not_look_is_started_in_another_way(command: str, led: str | None) -> None:
    found = python_command(command.split())
    if led is None:
        assert found is None or not (found.is_blind and found.can_be_led)
    else:
        assert found is not None and found.is_blind
        words = ["STARTER" if word.endswith("gradtui_starter.py") else word for word in found.led()]
        assert words == led.split()


def test_a_run_keeps_its_name_when_its_python_is_led(tmp_path: Path) -> None:
    path = script(tmp_path, "", "mine.py")
    command = prepare([sys.executable, "-I", path], RecordOptions(folder=tmp_path))
    assert command.run_id.startswith("mine-") and command.tells and os.fspath(path) in command.words
