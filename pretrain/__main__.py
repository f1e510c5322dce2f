"""`python -m pretrain`: layer-wise pretraining from the command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from pretrain import what_is_missing
from pretrain.errors import DataError
from pretrain.flags import add_flags, settings_of
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


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m pretrain",
        description="Train layers one by one, then the whole net; sample, encode, evaluate.",
        epilog=EPILOG,
        formatter_class=layout,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        made.add_argument("folder", type=Path, help="the folder of the stack: layers, net, metrics, checkpoints")
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
    """Runs a command; its exit status: 0, 1 after an error in one line, 6 without torch, 128 + n after signal n."""
    given = make_parser().parse_args(arguments)
    try:
        # imported here: help and mistakes should not wait for torch
        if given.command == "fit":
            from pretrain.commands.fit import fit

            return fit(settings_of(FitCommand, vars(given)), given.folder)
        if given.command == "finetune":
            from pretrain.commands.finetune import finetune

            return finetune(settings_of(FinetuneCommand, vars(given)), given.folder)
        command = getattr(import_module(f"pretrain.commands.{given.command}"), given.command)
        return int(command(given))
    except DataError as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"pretrain: {what_is_missing(error)}", file=sys.stderr)
        return 6


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
