"""`gradtui remedies`: every remedy, for a person, for a pipe, and as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def add_parser(commands: Any, is_given: bool) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "remedies",
        help="list every remedy: what it changes, why it should work, who found it",
        description="List the remedies, for `gradtui train --with` and `gradtui compare --with`.",
    )
    parser.add_argument("family", nargs="?", metavar="FAMILY", help="only these, e.g. activation or weights")
    parser.add_argument("--json", action="store_true", help="one JSON array, for scripts")
    parser.set_defaults(run=print_remedies)


def print_remedies(options: argparse.Namespace) -> int:
    """Print the remedies of a family, or all; raises `UsageError` if there is no such family."""
    from gradtui.remedies import of_family

    if options.json:
        print(json.dumps([remedy.to_json() for remedy in of_family(options.family)], indent=2, ensure_ascii=True))
    else:
        print(_table(options.family, sys.stdout.isatty()))
    return 0


def _table(family: str | None, terminal: bool) -> str:
    """By family for a terminal, tab-separated for a pipe."""
    from gradtui.remedies import FAMILIES, of_family

    found = of_family(family)
    if not terminal:
        header = "remedy\tfamily\twhat\twhy\tsource"
        return "\n".join([header, *("\t".join((r.name, r.family, r.what, r.why, r.source)) for r in found)])
    lines = []
    for name in dict.fromkeys(remedy.family for remedy in found):
        lines.append(f"{name.upper()}  {FAMILIES.get(name, '')}")
        lines += [f"  {r.name:<20}{r.what}\n{'':22}{r.why} ({r.source})" for r in found if r.family == name]
        lines.append("")
    return "\n".join(lines).rstrip()
