"""The parser of the `gradtui` command; `gradtui` alone starts without it."""

from __future__ import annotations

from typing import NoReturn

from gradtui.errors import UsageError
from pretrain.arguments import Parser
from pretrain.errors import shown


class CommandParser(Parser):
    """A parser whose errors are told as all others."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`: one line, with the command that tells more."""
        raise UsageError(f"{shown(message)}; see `{self.prog} --help`")
