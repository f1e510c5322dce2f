"""`gradtui compare`: train recipes side by side, over several seeds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradtui.commands.open_viewer import add_viewer_flags, folder_of, view
from gradtui.errors import UsageError


def add_parser(commands: Any, is_given: bool) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "compare",
        usage="gradtui compare [WHAT ...] [options]",
        help="train recipes side by side, over several seeds, and tabulate which remedy worked",
        description="Train recipes side by side. Finished runs are kept: the same command resumes where it stopped.",
        epilog="examples: gradtui compare remedies --seeds 5 --html remedies.html\n"
        "          gradtui compare --hidden 30x10 --with relu,he --with batch-norm --with residual",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=compare)
    if not is_given:
        return
    from gradtui.lab.flags import add_recipe_flags

    _add_flags(parser)
    add_recipe_flags(parser, experiment=False)
    add_viewer_flags(parser)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from gradtui.lab.experiments import EXPERIMENTS

    names = ", ".join(EXPERIMENTS)
    parser.add_argument(
        "what",
        metavar="WHAT",
        nargs="*",
        help=f"an experiment ({names}), one recipe of it (NAME/RECIPE), or a file with a recipe as JSON; without any, "
        "one recipe is made of the flags",
    )
    how = parser.add_argument_group("what is compared, and how")
    how.add_argument("--with", metavar="REMEDIES", action="append", help="add the first recipe with these remedies")
    how.add_argument("--only", metavar="RECIPE", action="append", help="leave out all others; may be repeated")
    how.add_argument("--name", help="what the comparison is called (default: as the experiment)")
    how.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds for each recipe (default: 3)")
    how.add_argument("--tune", choices=["lr"], help="give each recipe the rate of a sweep that validates best")
    how.add_argument("--target-cost", type=float, metavar="C", help="tell the epoch that reaches this training cost")
    how.add_argument("--jobs", type=int, default=-1, metavar="N", help="trainings at a time (default: one a core)")
    how.add_argument(
        "--backend",
        default="loky",
        metavar="WHERE",
        help="loky: processes here (default); dask://HOST:PORT or ray://HOST:PORT: a cluster",
    )
    out = parser.add_argument_group("what comes out")
    out.add_argument("--view", action="store_true", help="train in the background, and watch side by side")
    out.add_argument("--json", action="store_true", help="print table and runs as JSON")
    out.add_argument("--csv", type=Path, metavar="FILE", help="write one line for each run")
    out.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots, in one file")


def compare(options: argparse.Namespace) -> int:
    """Train here, or in the background behind the viewer; returns the exit code."""
    from gradtui.lab import check_installed
    from gradtui.lab.compare_command import compare_here, plan_from_flags

    check_installed()
    plan = plan_from_flags(options, folder_of(options))
    if not options.view:
        return compare_here(plan, options)
    alone = ("tune", "json", "csv", "html")
    given = next((name for name in alone if getattr(options, name)), "backend" if options.backend != "loky" else "")
    if given:
        raise UsageError(f"--view trains in the background, as the recipes are: leave out --{given}, or --view")
    from gradtui.tui.terminal import check_terminal

    check_terminal()
    from gradtui.lab.background import launch_comparison

    launch_comparison(plan, options.jobs)
    return view(options, comparison=plan.folder)
