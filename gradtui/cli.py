"""The `gradtui` command. Thin: each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gradtui import __version__
from gradtui.errors import GradtuiError, UsageError

if TYPE_CHECKING:
    from gradtui.recorded_command import Launched

DESCRIPTION = """\
See how fast every layer of a neural network learns, live in the terminal.

  gradtui                     experiments and runs, to pick from
  gradtui train               train a deep net, and watch its layers
  gradtui compare remedies    train the same net with one remedy at a time, and say which one helped
  gradtui run python …        record the training in any command of yours, unmodified
  gradtui attach              watch the newest run that is training, from any terminal
"""
EPILOG = """\
Runs live in $GRADTUI_DIR, or in your data folder; --dir names another place.
From a script of your own, without gradtui run:  recorder = gradtui.watch(model, optimizer)
"""
FOLDER_HELP = "where runs live (default: $GRADTUI_DIR or your data folder)"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other error, instead of the usage and a line."""
        raise UsageError(f"{message}; `{self.prog} --help` tells what there is")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. Errors of the user's are one line on stderr."""
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        # `gradtui` alone needs no parser, and is to start in a blink
        options = build_parser(given).parse_args(given) if given else argparse.Namespace(run=_home)
        return int(options.run(options))
    except GradtuiError as error:
        print(f"gradtui: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # the reader of our output has gone, e.g. `gradtui runs | head -1`; keep Python from saying so at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def build_parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for the words that were given: the many flags of `train` are loaded only where it is among them."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser("gradtui", description=DESCRIPTION, epilog=EPILOG, formatter_class=formatter)
    parser.add_argument("--version", action="version", version=f"gradtui {__version__}")
    _add_viewer_flags(parser)
    parser.set_defaults(run=_home)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_train(commands, with_flags="train" in given)
    _add_run(commands)
    _add_compare(commands, with_flags="compare" in given)
    _add_remedies(commands)
    _add_attach(commands)
    _add_runs(commands)
    _add_report(commands)
    return parser


def _add_train(commands: Any, *, with_flags: bool) -> None:
    train = commands.add_parser(
        "train",
        usage="gradtui train [options]",
        help="train a built-in net and watch how fast its layers learn",
        description="Train a built-in net in a process of its own and watch it; it goes on when you leave.",
        epilog="example: gradtui train --data digits --hidden 30,30,30,30 --activation sigmoid",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.set_defaults(run=_train)
    if not with_flags:
        return
    from gradtui.lab.flags import add_recipe_flags

    add_recipe_flags(train)
    where = train.add_argument_group("where and how it runs")
    where.add_argument("--headless", action="store_true", help="train here without the viewer, with a progress line")
    where.add_argument("--detach", action="store_true", help="start the training in the background, and return")
    _add_viewer_flags(train)


def _add_compare(commands: Any, *, with_flags: bool) -> None:
    compare = commands.add_parser(
        "compare",
        usage="gradtui compare [WHAT ...] [options]",
        help="train recipes side by side, over several seeds, and tabulate which remedy worked",
        description="Train recipes side by side. What is done is kept: the same command goes on where it was stopped.",
        epilog="examples: gradtui compare remedies --seeds 5 --html remedies.html\n"
        "          gradtui compare --hidden 30x10 --with relu,he --with batch-norm --with residual",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.set_defaults(run=_compare)
    if not with_flags:
        return
    from gradtui.lab.experiments import EXPERIMENTS
    from gradtui.lab.flags import add_recipe_flags

    names = ", ".join(EXPERIMENTS)
    compare.add_argument(
        "what",
        metavar="WHAT",
        nargs="*",
        help=f"an experiment ({names}), one recipe of it (NAME/RECIPE), or a file with a recipe as JSON; without any, "
        "one recipe is made of the flags",
    )
    how = compare.add_argument_group("what is compared, and how")
    how.add_argument("--with", metavar="REMEDIES", action="append", help="add the first recipe with these remedies")
    how.add_argument("--only", metavar="RECIPE", action="append", help="leave out all others; may be given again")
    how.add_argument("--name", help="what the comparison is called (default: as the experiment)")
    how.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds for each recipe (default: 3)")
    how.add_argument("--tune", choices=["lr"], help="give each recipe the rate of a sweep that validates best")
    how.add_argument("--target-cost", type=float, metavar="C", help="training cost whose epoch is told")
    how.add_argument("--jobs", type=int, default=-1, metavar="N", help="trainings at a time (default: one a core)")
    how.add_argument(
        "--backend",
        default="loky",
        metavar="WHERE",
        help="loky: processes here (default); dask://HOST:PORT or ray://HOST:PORT: a cluster",
    )
    out = compare.add_argument_group("what comes out")
    out.add_argument("--view", action="store_true", help="train in the background, and watch side by side")
    out.add_argument("--json", action="store_true", help="print table and runs as JSON")
    out.add_argument("--csv", type=Path, metavar="FILE", help="write one line for each run")
    out.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots, in one file")
    add_recipe_flags(compare, experiment=False)
    _add_viewer_flags(compare)


RUN_DESCRIPTION = """\
Record the trainings in any command that you have, unmodified:

  gradtui run python train.py --epochs 90
  gradtui run torchrun --nproc-per-node 8 train.py
  gradtui run --watch python -m my_project.train       # with the viewer beside it
  gradtui run --fail-on nan,exploding python train.py  # exit code 10 if the training falls ill

Every Python process of the command is looked into when it imports torch; its optimizers, or the changes of its
parameters, show what it trains. Exit code, signals and streams stay the command's own. With --fail-on, which looks once
the command has ended well, exit code 10 stands for a finding and 11 for nothing that was recorded.
"""


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="record the training in any command, unmodified: gradtui run python train.py",
        description=RUN_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="gradtui run [options] COMMAND …",
    )
    from gradtui.options import add_record_flags

    add_record_flags(run)
    run.add_argument("--watch", action="store_true", help="open the viewer: in a pane beside it under tmux, else here")
    run.add_argument(
        "--fail-on",
        metavar="FINDINGS",
        help="end with exit code 10 if the run has one of these findings, e.g. nan,exploding; or any",
    )
    run.add_argument("--dir", metavar="FOLDER", default=argparse.SUPPRESS, help=FOLDER_HELP)
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command, as you would type it")
    run.set_defaults(run=_run)


def _add_remedies(commands: Any) -> None:
    remedies = commands.add_parser(
        "remedies",
        help="list every remedy: what it changes, why it should work, who found it",
        description="List the remedies, for `gradtui train --with` and `gradtui compare --with`.",
    )
    remedies.add_argument("family", nargs="?", metavar="FAMILY", help="only these, e.g. activation or weights")
    remedies.add_argument("--json", action="store_true", help="one JSON array, for scripts")
    remedies.set_defaults(run=_remedies)


def _add_attach(commands: Any) -> None:
    attach = commands.add_parser(
        "attach",
        help="watch a run: the newest live one, or those that are named",
        description="Watch a run, live or ended. Any number of viewers may watch the same run.",
    )
    attach.add_argument(
        "names",
        metavar="RUN",
        nargs="*",
        help="an id from `gradtui runs`, the start of one, or a file; several are shown side by side, as is a "
        "comparison (NAME.compare)",
    )
    attach.add_argument("--wait", action="store_true", help="wait for a run file that is not there yet")
    _add_viewer_flags(attach)
    attach.set_defaults(run=_attach)


def _add_runs(commands: Any) -> None:
    listing = commands.add_parser(
        "runs",
        help="list comparisons and runs: live ones first",
        description="List comparisons, then runs, live ones first; tab-separated in a pipe.",
    )
    listing.add_argument("--json", action="store_true", help="one JSON array, for scripts")
    listing.add_argument("--dir", metavar="FOLDER", default=argparse.SUPPRESS, help=FOLDER_HELP)
    listing.set_defaults(run=_runs)


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="one run in words: its findings, and how fast each layer learns",
        description="Say what ails a run: its findings with the numbers that prove them, and its layers.",
    )
    report.add_argument("name", metavar="RUN", nargs="?", help="as for `gradtui attach` (default: the newest run)")
    report.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    report.add_argument("--dir", metavar="FOLDER", default=argparse.SUPPRESS, help=FOLDER_HELP)
    report.set_defaults(run=_report)


def _add_viewer_flags(parser: argparse.ArgumentParser) -> None:
    viewer = parser.add_argument_group("the viewer")
    # SUPPRESS keeps a subcommand from overwriting what was given before its name
    left_alone = argparse.SUPPRESS
    viewer.add_argument("--dir", metavar="FOLDER", default=left_alone, help=FOLDER_HELP)
    viewer.add_argument(
        "--fps",
        type=float,
        metavar="N",
        default=left_alone,
        help="pictures a second at most (default: 4); a slow link is noticed, and gets fewer by itself",
    )
    viewer.add_argument(
        "--ascii",
        action="store_true",
        default=left_alone,
        help="draw with ASCII alone (default: if the locale is not UTF-8)",
    )


def _home(options: argparse.Namespace) -> int:
    return _view(options)


def _attach(options: argparse.Namespace) -> int:
    from gradtui.tui.terminal import check_terminal

    check_terminal()
    from gradtui.recorded_command import Awaited
    from gradtui.run_request import newest_starting
    from gradtui.runfolder import any_run, find_run, runs

    folder = _runs_folder(options)
    if not options.names:
        starting = newest_starting(folder)
        if starting is not None and all(run.started < starting[0] for run in runs(folder)):
            return _view(options, run=starting[1], launch=Awaited(starting[1]))
        any_run(folder)
        return _view(options, newest=True)
    if len(options.names) == 1 and options.names[0].rstrip("/").endswith(".compare"):
        return _view(options, comparison=_comparison(options.names[0].rstrip("/"), folder))
    if options.wait and len(options.names) == 1 and not Path(options.names[0]).exists():
        path = Path(options.names[0]).absolute()
        return _view(options, run=path, launch=Awaited(path))
    from gradtui.runfile.summary import RunMetadata

    found = [find_run(name, folder) for name in options.names]
    for run in found:
        RunMetadata(run).close()  # a file that is no run is said here, and not on a full screen
    return _view(options, run=found[0]) if len(found) == 1 else _view(options, comparison=found)


def _comparison(name: str, folder: Path) -> Path:
    from gradtui.lab.plan import load_plan

    path = next((path for path in (Path(name).expanduser(), folder / name) if path.is_dir()), folder / name)
    load_plan(path)  # one that cannot be read is said here, and not on a full screen
    return path


def _train(options: argparse.Namespace) -> int:
    from gradtui.lab import check_installed
    from gradtui.lab.flags import recipe_from_flags

    check_installed()
    recipe = recipe_from_flags(options)
    folder = _runs_folder(options)
    if options.headless and options.detach:
        raise UsageError("--headless trains here and --detach in the background: give one of them")
    if options.headless:
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
    return _view(options, run=launch.path, launch=launch)


def _run(options: argparse.Namespace) -> int:
    from gradtui.run_command import run_command

    return run_command(options, _runs_folder(options), lambda **what: _view(options, **what))


def _compare(options: argparse.Namespace) -> int:
    from gradtui.lab import check_installed
    from gradtui.lab.compare_command import compare_here, plan_from_flags

    check_installed()
    plan = plan_from_flags(options, _runs_folder(options))
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
    return _view(options, comparison=plan.folder)


def _remedies(options: argparse.Namespace) -> int:
    from gradtui.listing import remedies_as_json, remedies_as_table

    print(remedies_as_json(options.family) if options.json else remedies_as_table(options.family, sys.stdout.isatty()))
    return 0


def _report(options: argparse.Namespace) -> int:
    from gradtui.report import report
    from gradtui.runfolder import find_run
    from gradtui.tui.text import clean

    text = report(find_run(options.name, _runs_folder(options)), as_json=options.json, terminal=sys.stdout.isatty())
    print("\n".join(clean(line) if options.json or sys.stdout.isatty() else line for line in text.split("\n")))
    return 0


def _runs(options: argparse.Namespace) -> int:
    from gradtui.lab.plan import comparisons, summarise_comparison
    from gradtui.listing import as_json, as_table
    from gradtui.runfolder import runs

    folder, found = _runs_folder(options), runs(_folder(options))
    if _folder(options) is not None and not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    compared = [summarise_comparison(path) for path in comparisons(folder)]
    if options.json:
        print(as_json(found, compared))
    else:
        print(as_table(found, folder, compared, terminal=sys.stdout.isatty()))
    return 0


def _view(
    options: argparse.Namespace,
    run: Path | None = None,
    newest: bool = False,
    launch: Launched | None = None,
    comparison: Path | Sequence[Path] | None = None,
) -> int:
    from gradtui.tui.terminal import check_terminal

    check_terminal()
    from gradtui.tui.app import GradtuiApp
    from gradtui.tui.ascii import wants_ascii

    frames = getattr(options, "fps", 4.0)
    if not 0.1 <= frames <= 60:
        raise UsageError(f"--fps {frames:g}: give a number from 0.1 to 60")
    app = GradtuiApp(
        _runs_folder(options),
        run=run,
        newest=newest,
        launch=launch,
        comparison=comparison,
        frames_per_second=frames,
        ascii_only=getattr(options, "ascii", False) or wants_ascii(),
    )
    last_line = app.run()
    if last_line:
        print(last_line)
    return app.return_code or 0


def _folder(options: argparse.Namespace) -> str | None:
    return getattr(options, "dir", None)


def _runs_folder(options: argparse.Namespace) -> Path:
    from gradtui.runfolder import runs_folder

    return runs_folder(_folder(options))
