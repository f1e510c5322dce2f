"""What a command can tell before torch is loaded, which takes seconds. Nothing here needs torch or writes a file.

Each function raises `DataError` for the first thing that is missing or cannot be.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from pretrain.data import mnist_paths
from pretrain.errors import DataError, short
from pretrain.limits import LIMITS, are_more
from pretrain.settings import DataSettings, FinetuneCommand, FitCommand, decisive, renamed

LAYERS_FILE, NET_FILE = "layers.safetensors", "net.safetensors"
_NAMED_DATA = ("digits", "mnist")


def check_fit(settings: FitCommand, folder: Path) -> None:
    """Device, folder, data and, if a training was stopped there, its settings."""
    check_device_name(settings.device)
    check_folder(folder)
    check_data(settings.data or "digits", data_folder(settings.data_dir), settings.labels)
    if begun_before(folder, "fit", folder / LAYERS_FILE):
        check_same(folder, "fit", settings, data=settings.data or "digits")


def check_finetune(settings: FinetuneCommand, folder: Path) -> None:
    """The same, and that there are layers."""
    check_device_name(settings.device)
    layers_file(folder)
    check_folder(folder)
    if settings.data:
        check_data(settings.data, data_folder(settings.data_dir), settings.labels)


def check_reader(given: argparse.Namespace) -> None:
    """Numbers, the layers, the data if they are named, and where the output goes."""
    for name in ("ais_chains", "ais_steps", "count", "label", "seed"):
        _check_number(given, name, LIMITS[name].holds, LIMITS[name].words)
    _check_number(given, "steps", LIMITS["epochs"].holds, LIMITS["epochs"].words)  # as many, or none
    if getattr(given, "scale", None):  # 0: as in the training
        _check_number(given, "scale", LIMITS["scale"].holds, LIMITS["scale"].words)
    out: Path | None = getattr(given, "out", None)
    if out is not None:
        endings = (".npy",) if given.command == "features" else (".npy", ".png")
        if out.suffix not in endings:
            raise DataError(f"{out}: the file name must end in {' or '.join(endings)}")
        check_folder(out.parent, must_exist=True)
    layers_file(given.folder)
    if getattr(given, "data", ""):
        check_data(given.data, data_folder(given.data_dir), given.labels)


def check_device_name(name: str) -> None:
    """Whether torch could have such a device; whether it is there, torch itself must say."""
    if not re.fullmatch(r"[a-z]+(:[0-9]{1,4})?", name):
        raise DataError(f"--device {short(name)}: give auto, or a device of torch, such as cpu, cuda:1, mps or xpu:0")


def check_folder(folder: Path, *, must_exist: bool = False) -> None:
    """Whether files can be made in the folder, or the folder itself."""
    try:
        where = folder
        while not must_exist and not where.exists() and where != where.parent:
            where = where.parent
        if not where.is_dir():
            reason = "is no folder" if where.exists() else "does not exist"
        else:
            reason = "" if os.access(where, os.W_OK | os.X_OK) else "is read-only"
    except OSError as error:  # a name that is too long, or a folder that may not be entered
        raise DataError(f"cannot write {folder}: {error.strerror}") from error
    if reason:
        raise DataError(f"cannot write {folder}: {where} {reason}")


def check_data(name: str, folder: Path | None, labels: str | Path | None) -> None:
    """Whether the data of this name are there; see `pretrain.sources.source`."""
    if name == "mnist":
        mnist_paths(folder)
    elif name not in _NAMED_DATA:
        path = Path(name)
        if path.suffix not in (".npy", ".npz"):
            raise DataError(f"unknown data {short(name)}: use digits, mnist, or an .npz or .npy file")
        _check_file(path)
    if labels:
        _check_file(Path(labels))


def data_folder(named: str | Path | None) -> Path | None:
    """Where MNIST's files are looked for."""
    folder = named or os.environ.get("GRADTUI_DATA")
    return Path(folder) if folder else None


def layers_file(folder: Path) -> Path:
    """The file of a folder's trained layers."""
    path = folder / LAYERS_FILE
    try:
        is_there = path.exists()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not is_there:
        raise DataError(f"{folder} holds no layers: train them with `python -m pretrain fit {folder}`")
    return path


def begun_before(folder: Path, command: str, result: Path) -> bool:
    """Whether the folder holds the command's result, or its training that was stopped."""
    note, begun = folder / f"{command}.json", folder / f"{command}.checkpoint"
    return note.exists() and (begun.exists() or result.exists())


def check_same(folder: Path, command: str, settings: DataSettings, **changes: Any) -> None:
    """Whether the training in the folder has the same settings, but for more epochs, which train it further."""
    note = folder / f"{command}.json"
    try:
        theirs = json.loads(note.read_text())
        if not isinstance(theirs, dict):
            raise DataError(f"{note} is damaged: delete this folder, or use another")
        theirs = renamed(settings, theirs)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {note}: {error}") from error
    for name, value in {**decisive(settings), **changes}.items():
        before = theirs.get(name)
        if before != value and not (name == "epochs" and are_more(value, before)):
            raise DataError(
                f"{folder} was trained with {name.replace('_', '-')} {before!r}, not {value!r}:"
                " use another folder, or delete this one"
            )


def _check_number(given: argparse.Namespace, name: str, holds: Any, wanted: str) -> None:
    value = getattr(given, name, None)
    if value is not None and not holds(value):
        raise DataError(f"--{name.replace('_', '-')} {short(value)}: give {wanted}") from None


def _check_file(path: Path) -> None:
    try:
        if not path.exists():
            raise DataError(f"the file {path} does not exist")
        if not path.is_file() or not os.access(path, os.R_OK):
            raise DataError(f"cannot read {path}: it is {'no file' if not path.is_file() else 'not readable'}")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
