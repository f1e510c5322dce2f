"""`gradtui report`: one run in words."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from gradtui.commands.open_viewer import add_folder_flag, folder_of


def add_parser(commands: Any, is_given: bool) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "report",
        help="one run in words: its findings, and how fast each layer learns",
        description="Say what is wrong with a run: its findings with their evidence, and its layers.",
    )
    parser.add_argument("name", metavar="RUN", nargs="?", help="as for `gradtui attach` (default: the newest run)")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    add_folder_flag(parser)
    parser.set_defaults(run=print_report)


def print_report(options: argparse.Namespace) -> int:
    """Print the report of a run; returns the exit code."""
    from gradtui.report import report
    from gradtui.runfolder import find_run

    path = find_run(options.name, folder_of(options))
    print(report(path, as_json=options.json, terminal=sys.stdout.isatty()))
    return 0
