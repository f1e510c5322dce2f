"""`gradtui attach`: watch a run, or several side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradtui.commands.open_viewer import add_viewer_flags, folder_of, view


def add_parser(commands: Any, is_given: bool) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "attach",
        help="watch a run: the newest live one, or those that are named",
        description="Watch a run, live or ended. Any number of viewers may watch the same run.",
    )
    parser.add_argument(
        "names",
        metavar="RUN",
        nargs="*",
        help="an id from `gradtui runs`, the start of one, or a file; several are shown side by side, as is a "
        "comparison (NAME.compare)",
    )
    parser.add_argument("--wait", action="store_true", help="wait for a run file that does not exist yet")
    add_viewer_flags(parser)
    parser.set_defaults(run=attach)


def attach(options: argparse.Namespace) -> int:
    """Open the viewer at what is named; returns the exit code."""
    from gradtui.tui.terminal import check_terminal

    check_terminal()
    from gradtui.recorded_command import Awaited
    from gradtui.run_request import newest_starting
    from gradtui.runfolder import any_run, find_run, runs

    folder = folder_of(options)
    if not options.names:
        starting = newest_starting(folder)
        if starting is not None and all(run.started < starting[0] for run in runs(folder)):
            return view(options, run=starting[1], launch=Awaited(starting[1]))
        any_run(folder)
        return view(options, newest=True)
    if len(options.names) == 1 and options.names[0].rstrip("/").endswith(".compare"):
        return view(options, comparison=_comparison(options.names[0].rstrip("/"), folder))
    if options.wait and len(options.names) == 1 and not Path(options.names[0]).exists():
        path = Path(options.names[0]).absolute()
        return view(options, run=path, launch=Awaited(path))
    from gradtui.runfile.summary import RunMetadata

    found = [find_run(name, folder) for name in options.names]
    for run in found:
        RunMetadata(run).close()  # a file that is no run is reported here, and not on a full screen
    return view(options, run=found[0]) if len(found) == 1 else view(options, comparison=found)


def _comparison(name: str, folder: Path) -> Path:
    from gradtui.lab.plan import load_plan

    path = next((path for path in (Path(name).expanduser(), folder / name) if path.is_dir()), folder / name)
    load_plan(path)  # one that cannot be read is reported here, and not on a full screen
    return path
