"""A parser of command lines whose errors are one line, with what was probably meant. Standard library only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from pretrain.errors import short, shown


class Parser(argparse.ArgumentParser):
    """As `ArgumentParser`; an error is one line, without the usage, and names the nearest flag or value."""

    def error(self, message: str) -> NoReturn:
        """Print the line and end with status 2."""
        print(f"pretrain: {shown(message)}; see `{self.prog} --help`", file=sys.stderr)
        sys.exit(2)

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """As `parse_args`, but what is not known is an error of the subcommand, if that has set `parser`."""
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            parser = getattr(options, "parser", self)
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown, parser._option_string_actions)}")
        return options

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = list(action.choices or ())
        if action.choices is not None and value not in choices:
            meant = near(str(value), choices)
            told = f"did you mean {', '.join(meant)}?" if meant else f"choose one of {', '.join(map(str, choices))}"
            raise argparse.ArgumentError(action, f"there is no {short(value)}: {told}")


def near(name: str, known: Iterable[str]) -> list[str]:
    """The known names, at most three, that `name` may be a misspelling of."""
    from difflib import get_close_matches  # of no use until something is misspelt

    by_lower = {one.lower(): one for one in known}
    return [by_lower[found] for found in get_close_matches(name[:80].lower(), by_lower, n=3, cutoff=0.7)]


def _meant(unknown: Sequence[str], flags: Iterable[str]) -> str:
    flag = next((word.partition("=")[0] for word in unknown if word.startswith("-")), "")
    long = {one.lstrip("-"): one for one in flags if one.startswith("--")}
    found = near(flag.lstrip("-"), long) if flag else []
    return f" (did you mean {long[found[0]]}?)" if found else ""
