"""The `gradtui` command: its parser, and errors in one line. `gradtui.commands` has the subcommands."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from errno import ENOSPC
from typing import TYPE_CHECKING

from gradtui import __version__, commands
from gradtui.commands.open_viewer import add_viewer_flags, folder_of, view
from gradtui.errors import GradtuiError, one_line, say_on_stderr

if TYPE_CHECKING:
    from gradtui.command_parser import CommandParser

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
LONGEST = 800  # characters of an error
PREFIX = "cli_"  # of the modules of subcommands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. An error that the user can fix is one line on stderr."""
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        # `gradtui` alone needs no parser: it starts as fast as it can
        options = build_parser(given).parse(given) if given else argparse.Namespace(run=view)
        _tidy(options)
        code = int(options.run(options))
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where an error can be told, and not when Python ends
        return code
    except GradtuiError as error:
        text = str(error)
        # a value that was given may stand in it, however long; what is wrong with it stands at the end
        say_on_stderr(text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}")
        return error.exit_code
    except BrokenPipeError:
        # the reader of our output has gone, e.g. `gradtui runs | head -1`
        _drop_output()
        return 0
    except OSError as error:
        if error.errno != ENOSPC:  # of a path that cannot be: too long a name, a folder that may not be entered
            say_on_stderr(one_line(error))
            return 1
        _drop_output()
        say_on_stderr(f"cannot write the output: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        return 130


def _tidy(options: argparse.Namespace) -> None:
    """Delete what processes that were killed have left in the folder of runs."""
    from gradtui.leftovers import clear_leftovers

    with contextlib.suppress(GradtuiError):  # the command says it
        clear_leftovers(folder_of(options))


def _drop_output() -> None:
    """Keep Python from writing the rest, and from telling of it, at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no stream, or none with a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser(given: Sequence[str]) -> CommandParser:
    """The parser for the words that were given."""
    from importlib import import_module
    from pkgutil import iter_modules

    from gradtui.command_parser import CommandParser

    formatter = argparse.RawDescriptionHelpFormatter
    parser = CommandParser("gradtui", description=DESCRIPTION, epilog=EPILOG, formatter_class=formatter)
    parser.add_argument("--version", action="version", version=f"gradtui {__version__}")
    add_viewer_flags(parser)
    parser.set_defaults(run=view, parser=parser)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in iter_modules(commands.__path__):
        if module.name.startswith(PREFIX):
            is_given = module.name.removeprefix(PREFIX) in given
            import_module(f"{commands.__name__}.{module.name}").add_parser(subparsers, is_given)
    for subparser in subparsers.choices.values():
        subparser.set_defaults(parser=subparser)
    return parser
