"""`gradtui train`: train a built-in net, and watch it."""

from __future__ import annotations

import argparse
from typing import Any

from gradtui.commands.open_viewer import add_viewer_flags, folder_of, view
from gradtui.errors import UsageError
from pretrain.loading import loading


def add_parser(commands: Any, is_given: bool) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "train",
        usage="gradtui train [options]",
        help="train a built-in net and watch how fast its layers learn",
        description="Train a built-in net in a process of its own and watch it; it goes on when you leave.",
        epilog="example: gradtui train --data digits --hidden 30,30,30,30 --activation sigmoid",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=train)
    if not is_given:
        return
    from gradtui.lab.flags import add_recipe_flags

    add_recipe_flags(parser)
    where = parser.add_argument_group("where and how it runs")
    where.add_argument("--headless", action="store_true", help="train here without the viewer, with a progress line")
    where.add_argument("--detach", action="store_true", help="start the training in the background, and return")
    add_viewer_flags(parser)


def train(options: argparse.Namespace) -> int:
    """Train behind the viewer, in the background, or here without it; returns the exit code."""
    from gradtui.lab import check_installed
    from gradtui.lab.flags import recipe_from_flags

    check_installed()
    recipe, folder = recipe_from_flags(options), folder_of(options)
    if options.headless and options.detach:
        raise UsageError("--headless trains here and --detach in the background: give one of them")
    if options.headless:
        from gradtui.lab.background import check_data
        from gradtui.runfolder import check_folder

        check_data(recipe)
        check_folder(folder)
        with loading():
            from gradtui.lab.headless import train_headless
        return train_headless(recipe, folder)
    if not options.detach:
        from gradtui.tui.terminal import check_terminal

        check_terminal()
    from gradtui.lab.background import launch_in

    launch = launch_in(folder, recipe)
    if options.detach:
        print(launch.path.stem)
        return 0
    return view(options, run=launch.path, launch=launch)
