"""Every flag of every command with values that nobody means: taken, or refused in one line, before any work is done."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradtui import cli
from gradtui.recorded_command import Command
from pretrain.__main__ import main as pretrain
from pretrain.__main__ import make_parser

VALUES = ("-1", "0", "nan", "1e400", "", "x" * 5000, "9" * 5000, "\x1b[31m\n[[\udcff")
GRADTUI = {
    "train": ["--headless"], "compare": ["--jobs=1"], "run": [], "attach": [], "runs": [], "report": [], "remedies": [],
}  # fmt: skip
PRETRAIN = ("fit", "finetune", "evaluate", "sample", "features")


class Worked(Exception):  # noqa: N818  an event, not an error
    """The command has checked everything, and begins its work."""


def begin(*_: object, **__: object) -> None:
    raise Worked


def flags_of(parser: argparse.ArgumentParser, command: str) -> list[str]:
    """The flags of a subcommand that take a value."""
    (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return [
        action.option_strings[-1]
        for action in commands.choices[command]._actions
        if action.option_strings and action.nargs != 0
    ]


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch, runs_in_tmp: Path) -> Iterator[None]:
    """Neither trainings nor viewers begin; a terminal seems to be there."""
    import gradtui.lab.compare_command
    import gradtui.lab.headless
    import gradtui.tui.app
    import gradtui.tui.terminal

    monkeypatch.setattr(gradtui.lab.headless, "train_headless", begin)
    monkeypatch.setattr(gradtui.lab.compare_command, "run_cells", begin)
    monkeypatch.setattr(gradtui.tui.app, "GradtuiApp", begin)
    monkeypatch.setattr(gradtui.tui.terminal, "check_terminal", lambda: None)
    monkeypatch.setattr(Command, "replace_this_process", begin)
    monkeypatch.setattr(Command, "start", begin)
    return


def check(program: str, main: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(words)
    except (Worked, SystemExit) as end:
        code = 0 if isinstance(end, Worked) else end.code
    said = capsys.readouterr().err
    shown = [word[:60] for word in words]
    if code:
        assert said.startswith(f"{program}: ") and said.endswith("\n"), shown
        assert said[:-1].isprintable() and len(said) < 830, (shown, said)


@pytest.mark.parametrize("command", GRADTUI)
def test_gradtui_takes_a_value_or_refuses_it_in_one_line(
    command: str, no_work: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = flags_of(cli.build_parser([command]), command)
    if command == "compare":  # the flags of a recipe are those of train
        flags = [flag for flag in flags if flag not in flags_of(cli.build_parser(["train"]), "train")]
    assert len(flags) >= (1 if command != "remedies" else 0)
    rest = ["true"] if command == "run" else []
    for flag in [*flags, "--nosuch"]:
        for value in VALUES:
            check("gradtui", cli.main, [command, *GRADTUI[command], f"{flag}={value}", *rest], capsys)
    for value in VALUES:  # a name, an experiment, a family, a command that is not there
        check("gradtui", cli.main, [command, value], capsys)


@pytest.mark.parametrize("command", PRETRAIN)
def test_pretrain_takes_a_value_or_refuses_it_in_one_line(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pretrain.__main__.loading", begin)  # whatever is told, is told before
    needed = {"sample": ["--out=x.npy"], "features": ["--out=x.npy"]}.get(command, [])
    flags = flags_of(make_parser(), command)
    assert len(flags) > 3
    (tmp_path / "s").mkdir()
    if command != "fit":
        (tmp_path / "s" / "layers.safetensors").touch()
    for flag in [*flags, "--nosuch"]:
        for value in VALUES:
            check("pretrain", pretrain, [command, "s", *needed, f"{flag}={value}"], capsys)
    for value in VALUES:
        check("pretrain", pretrain, [command, value, *needed], capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "s"], "nothing is written"
