"""`python -m pretrain`: layer-wise pretraining from the command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from errno import ENOSPC
from importlib import import_module
from pathlib import Path

from pretrain import what_is_missing
from pretrain.arguments import Parser
from pretrain.errors import DataError, shown
from pretrain.flags import add_flags, settings_of
from pretrain.loading import loading
from pretrain.settings import FinetuneCommand, FitCommand

EPILOG = """\
examples:
  python -m pretrain fit stack --data digits --layers 100,100 --epochs 30
  python -m pretrain finetune stack --data digits --learning-rate 0.01
  python -m pretrain evaluate stack --data digits
  torchrun --nproc-per-node 2 -m pretrain fit stack --data mnist --layers 500,500,2000

fit and finetune write checkpoints to the folder: after Ctrl-C, SIGTERM or a crash the same command continues, with the
same final weights; on a CPU, bit for bit.
"""


def make_parser() -> Parser:
    """The parser of all commands."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="python -m pretrain",
        description="Train layers one by one, then the whole net; sample, encode, evaluate.",
        epilog=EPILOG,
        formatter_class=layout,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        made.add_argument("folder", type=Path, help="the folder of the stack: layers, net, metrics, checkpoints")
        made.set_defaults(parser=made)
        return made

    add_flags(command("fit", "train layers, each on the outputs of those below"), FitCommand)
    add_flags(command("finetune", "train the whole net, starting from the layers that fit trained"), FinetuneCommand)
    evaluate = command("evaluate", "evaluate a stack, and its net if there is one, on the test set")
    evaluate.add_argument("--likelihood", action="store_true", help="log-probability by annealed importance sampling")
    evaluate.add_argument("--ais-chains", type=int, default=100, metavar="N", help="AIS chains (default: 100)")
    evaluate.add_argument("--ais-steps", type=int, default=14_500, metavar="N", help="AIS steps (default: 14500)")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    sample = command("sample", "draw samples from a stack of RBMs")
    sample.add_argument("--count", type=int, default=100, metavar="N", help="number of samples (default: 100)")
    sample.add_argument("--steps", type=int, default=1000, metavar="N", help="steps of Gibbs sampling (default: 1000)")
    sample.add_argument("--label", type=int, metavar="N", help="samples of this label (a net with label units)")
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="of the random numbers (default: 0)")
    sample.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.npy, or FILE.png for a picture")
    features = command("features", "encode data with the top layer, into an .npy file")
    features.add_argument("--out", type=Path, required=True, metavar="FILE.npy")
    for reader in (evaluate, features):
        reader.add_argument("--data", default="", metavar="DATA", help="the data (default: those of the training)")
        reader.add_argument(
            "--data-dir", type=Path, metavar="DIR", help="folder of MNIST's files (default: $GRADTUI_DATA)"
        )
        reader.add_argument("--labels", type=Path, metavar="FILE.npy", help="labels [n] for an .npy file")
        reader.add_argument("--scale", type=float, default=0.0, metavar="NUMBER", help="divide the data by this")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit status: 0, 1 after an error in one line, 2 after one in the arguments, 6 without torch,
    128 + n after signal n."""
    given = make_parser().parse(arguments)
    try:
        code = _run(given)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where an error can be told, and not when Python ends
        return code
    except DataError as error:
        return _say(str(error))
    except ModuleNotFoundError as error:
        return _say(what_is_missing(error), 6)
    except BrokenPipeError:
        # the reader of our output has gone
        _drop_output()
        return 0
    except MemoryError as error:
        return _say(f"there is not enough memory: {error}")
    except OSError as error:
        if error.errno != ENOSPC:
            raise
        _drop_output()
        return _say(f"cannot write the output: {error.strerror}")
    except KeyboardInterrupt:
        return 130


def _run(given: argparse.Namespace) -> int:
    # imported here: help and mistakes should not wait for torch
    from pretrain.commands import early_checks

    if given.command == "fit":
        chosen = settings_of(FitCommand, vars(given))
        early_checks.check_fit(chosen, given.folder)
        with loading():
            from pretrain.commands.fit import fit

        return fit(chosen, given.folder)
    if given.command == "finetune":
        settings = settings_of(FinetuneCommand, vars(given))
        early_checks.check_finetune(settings, given.folder)
        with loading():
            from pretrain.commands.finetune import finetune

        return finetune(settings, given.folder)
    early_checks.check_reader(given)
    with loading():
        command = getattr(import_module(f"pretrain.commands.{given.command}"), given.command)
    return int(command(given))


def _say(text: str, code: int = 1) -> int:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr itself may be gone
        print(f"pretrain: {shown(text)}", file=sys.stderr, flush=True)
    return code


def _drop_output() -> None:
    """Keep Python from writing the rest, and from telling of it, at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no stream, or none with a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run() -> None:
    """Ends the process with the status of `main`."""
    status = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # threads of gloo may outlive the interpreter, and then abort it (pytorch issue 190489): all is written by now
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
