"""The error that the commands print in one line."""

from __future__ import annotations

LONGEST = 300  # characters of a message


class DataError(ValueError):
    """Data, files or layers are missing, damaged or do not fit; the message is one line: what, where, what to do.

    What files say may stand in a message: characters that are not printable are replaced, and what is over `most`
    characters is left out in the middle.
    """

    def __init__(self, message: object = "", most: int = LONGEST) -> None:
        super().__init__(shown(str(message), most))


class SettingError(DataError):
    """A number is out of its range: the setting's name, what was given, and what is wanted."""

    def __init__(self, name: str, value: object, wanted: str) -> None:
        super().__init__(f"{name} is {short(value)}: give {wanted}")
        self.name, self.value, self.wanted = name, value, wanted

    def __reduce__(self) -> tuple[type[SettingError], tuple[str, object, str]]:
        return type(self), (self.name, self.value, self.wanted)


def shown(text: str, most: int = LONGEST) -> str:
    """A text in one line of printable characters, at most so many."""
    line = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in " ".join(text.split()))
    if len(line) <= most:
        return line
    start = most // 2
    return f"{line[:start]} … {line[-(most - start - 3) :]}"


def short(value: object) -> str:
    """A value in a message, at most 40 characters."""
    try:
        text = f"{value:g}" if isinstance(value, float) else repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:37]}…"
