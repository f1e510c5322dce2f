"""Whether a command is a Python, and how one is started that would not look for the recorder by itself."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STARTER = Path(__file__).parent / "record" / "startup" / "gradtui_starter.py"
PYTHON = re.compile(r"(python|pypy)[\d.]*t?(\.exe)?")
BLIND = frozenset("IES")  # -I and -E ignore PYTHONPATH, -S leaves out sitecustomize
NO_PROGRAM = frozenset("Vhx?")  # tell something and end, or change how the program is read
HAVE_VALUE = "WX"
FIRST_LINE = 500  # bytes of a script in which its interpreter is sought


@dataclass(frozen=True)
class PythonCommand:
    """A command that starts a Python.

    Attributes:
        python: the words that start it, without its options.
        options: for Python itself.
        program: what it runs, and the arguments of that; nothing for what comes from standard input.
    """

    python: tuple[str, ...]
    options: tuple[str, ...]
    program: tuple[str, ...]

    @property
    def is_blind(self) -> bool:
        """True if an option keeps it from looking for the recorder."""
        return bool(self._flags & BLIND)

    @property
    def can_be_led(self) -> bool:
        """True if it can be started in another way, so that it looks for the recorder first."""
        return not self._flags & NO_PROGRAM and (bool(self.program) or not sys.stdin.isatty())

    def led(self) -> list[str]:
        """The command with our starter before its program."""
        return [*self.python, *self.options, str(STARTER), *(self.program or ("-",))]

    @property
    def _flags(self) -> frozenset[str]:
        flags = ""
        for option in self.options:
            if option.startswith("-") and not option.startswith("--"):
                flags += re.split(f"[{HAVE_VALUE}]", option[1:], maxsplit=1)[0]
        return frozenset(flags)


def python_command(words: Sequence[str]) -> PythonCommand | None:
    """The command as that of a Python, by its name or by the first line of a script; None if it is another one."""
    before = _starts_with(words[0])
    if before is None:
        return None
    words = [*before, *words[1:]] if before else list(words)
    number = 1
    while number < len(words):
        word = words[number]
        if word == "--":
            return PythonCommand((words[0],), tuple(words[1:number]), tuple(words[number + 1 :]))
        if word == "-" or not word.startswith("-"):
            break
        taken = _words_of_option(word)
        if taken is None:  # -c or -m, perhaps after others, perhaps with the code in the same word
            return _with_code(words, number)
        number += taken
    return PythonCommand((words[0],), tuple(words[1:number]), tuple(words[number:]))


def _words_of_option(word: str) -> int | None:
    """How many words an option takes, None if the program begins in it."""
    if word.startswith("--"):
        return 2 if word == "--check-hash-based-pycs" else 1
    for place, letter in enumerate(word[1:], 2):
        if letter in "cm":
            return None
        if letter in HAVE_VALUE:
            return 1 if word[place:] else 2
    return 1


def _with_code(words: list[str], number: int) -> PythonCommand:
    word = words[number]
    place = min(place for place in map(word.find, "cm") if place > 0)
    options = [*words[1:number], *([word[:place]] if place > 1 else [])]
    code = [word[place + 1 :]] if word[place + 1 :] else []
    return PythonCommand((words[0],), tuple(options), (f"-{word[place]}", *code, *words[number + 1 :]))


def _starts_with(command: str) -> list[str] | None:
    """The words that the first line of a script puts in front; none for a Python itself, None for anything else."""
    if PYTHON.fullmatch(Path(command).name):
        return []
    path = shutil.which(command)
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            line = file.read(FIRST_LINE).partition(b"\n")[0]
        if not line.startswith(b"#!"):
            return None
        words = shlex.split(line[2:].decode())
    except (OSError, ValueError):
        return None
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if word != "-S"]
    if not words or not PYTHON.fullmatch(Path(words[0]).name):
        return None
    return [*words, path]
