"""The viewer, as subcommands open it, and the flags that those share."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradtui.errors import UsageError
from gradtui.format import printable

if TYPE_CHECKING:
    from gradtui.recorded_command import Launched


def add_folder_flag(parser: Any) -> None:
    """Add `--dir`, which may stand before the subcommand too."""
    # SUPPRESS keeps a subcommand from overwriting what was given before its name
    parser.add_argument(
        "--dir",
        metavar="FOLDER",
        default=argparse.SUPPRESS,
        help="where runs live (default: $GRADTUI_DIR or your data folder)",
    )


def add_viewer_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--dir`, and the flags that say how the viewer draws."""
    viewer = parser.add_argument_group("the viewer")
    add_folder_flag(viewer)
    viewer.add_argument(
        "--fps",
        type=_frames,
        metavar="N",
        default=argparse.SUPPRESS,
        help="frames a second at most (default: 4); a slow connection is detected, and gets fewer",
    )
    viewer.add_argument(
        "--ascii",
        action="store_true",
        default=argparse.SUPPRESS,
        help="draw with ASCII only (default: if the locale is not UTF-8)",
    )


def _frames(text: str) -> float:
    """Checked here, before a training is started that the viewer is to show."""
    with contextlib.suppress(ValueError):
        if 0.1 <= float(text) <= 60:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: give a number from 0.1 to 60")


def folder_of(options: argparse.Namespace) -> Path:
    """The folder of runs that `--dir` names, or the default one."""
    from gradtui.runfolder import runs_folder

    named = getattr(options, "dir", None)
    if named == "":  # of a variable that is not set: not meant to be the default
        raise UsageError("--dir is empty: name a folder, or leave it out")
    return runs_folder(named)


def view(
    options: argparse.Namespace,
    run: Path | None = None,
    newest: bool = False,
    launch: Launched | None = None,
    comparison: Path | Sequence[Path] | None = None,
) -> int:
    """Open the viewer, at the list of experiments and runs if nothing is named; returns the exit code."""
    from gradtui.tui.terminal import check_terminal

    check_terminal()
    from gradtui.tui.app import GradtuiApp
    from gradtui.tui.ascii import wants_ascii

    app = GradtuiApp(
        folder_of(options),
        run=run,
        newest=newest,
        launch=launch,
        comparison=comparison,
        frames_per_second=getattr(options, "fps", 4.0),
        ascii_only=getattr(options, "ascii", False) or wants_ascii(),
    )
    last_line = app.run()
    if last_line:
        print(printable(last_line))
    return app.return_code or 0
