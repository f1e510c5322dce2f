"""Settings from flags and TOML files; flags take precedence."""

from __future__ import annotations

import argparse
import difflib
import math
import sys
from collections.abc import Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any, TypeVar

from pretrain.errors import DataError, SettingError, short
from pretrain.limits import LIMITS
from pretrain.settings import choices_of, flags_of, renamed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
_NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def add_flags(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Add a flag for each setting; those that are not given are left out of the namespace."""
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="read settings from a file; flags override it")
    for setting in flags_of(kind):
        told, default = setting.metadata, _in_units_of_the_flag(setting)
        help = told["help"].replace("{data}", kind.usual_data)
        if _is_shown(default) and "(default" not in help:
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            help += f" (default: {shown})"
        names = ["--" + name.replace("_", "-") for name in (setting.name, told["was"]) if name]
        options: dict[str, Any] = {"dest": setting.name, "default": argparse.SUPPRESS, "help": help}
        if isinstance(default, bool):
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = _whole_numbers if isinstance(default, tuple) else type(default)
            if choices_of(setting):
                options["choices"] = choices_of(setting)
            else:
                options["metavar"] = told["metavar"] or ("N" if isinstance(default, int) else "NUMBER")
        parser.add_argument(*names, **options)


def settings_of(kind: type[T], given: Mapping[str, Any]) -> T:
    """The settings of a namespace that `add_flags` filled, and of the TOML file that it names.

    Raises `DataError` for a file that cannot be read, for unknown or invalid settings in it, and for numbers that are
    out of range.
    """
    path = given.get("config")
    table = {} if path is None else _table(path)
    known = {setting.name: setting for setting in flags_of(kind)}
    values: dict[str, Any] = {}
    for name, value in table.items():
        (key,) = renamed(kind, {name.replace("-", "_"): value})
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; the settings are {', '.join(known)}"
            raise DataError(f"{path}: unknown setting {name!r}{hint}")
        values[key] = _checked(known[key], value, f"{path}: {name}")
    values.update({name: value for name, value in given.items() if name in known})
    try:
        return kind(**{name: _in_units_of_the_function(known[name], value) for name, value in values.items()})
    except SettingError as error:
        flag = error.name.replace("_", "-")
        where = f"--{flag}" if error.name in given or path is None else f"{path}: {flag}"
        value = values.get(error.name, error.value)
        told = error.value if isinstance(value, tuple) else value  # as it was given, in the units of the flag
        raise DataError(f"{where} {short(told)}: give {error.wanted}") from error


def _in_units_of_the_flag(setting: Field[Any]) -> Any:
    """The default as the flag has it."""
    default, told = setting.default, setting.metadata
    if default is None:
        return told["unset"]
    return default / told["factor"] if told["factor"] != 1 else default


def _in_units_of_the_function(setting: Field[Any], value: Any) -> Any:
    told = setting.metadata
    limit = LIMITS.get(setting.name)
    if limit is not None and limit.is_off_at_0 and value == 0:
        return None
    if told["factor"] == 1:
        return value
    if not math.isfinite(value * told["factor"]):
        raise SettingError(setting.name, value, LIMITS[setting.name].words)
    return round(value * told["factor"]) if type(setting.default) is int else value * told["factor"]


def _is_shown(default: Any) -> bool:
    return not isinstance(default, bool) and default not in ("", 0, -1.0)


def _table(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            table: dict[str, Any] = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    return table


def _checked(setting: Field[Any], value: Any, where: str) -> Any:
    """A value of a TOML file, of the setting's type."""
    default, choices = _in_units_of_the_flag(setting), choices_of(setting)
    if isinstance(default, tuple):
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in values):
            raise DataError(f"{where} must be whole numbers, not {value!r}")
        return tuple(values)
    kinds = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise DataError(f"{where} must be {_NOUNS[type(default)]}, not {value!r}")
    if choices and value not in choices:
        raise DataError(f"{where} must be one of {', '.join(choices)}, not {value!r}")
    return float(value) if isinstance(default, float) else value


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{short(text)} is not a list of whole numbers, such as 500,500,2000"
        ) from None
