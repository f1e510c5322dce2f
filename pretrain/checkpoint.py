"""A training's state in one file, from which it continues as if it had never stopped.

A safetensors file; values other than tensors are JSON in its header, so that a single rename replaces both.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor

from pretrain.drafts import new_draft
from pretrain.errors import DataError
from pretrain.limits import are_more
from pretrain.parallel import current

VERSION = 1
_RENAMED = {"pass_on": "propagate"}  # settings whose name in checkpoints of 0.1.0 was another
# what reading something that is damaged or forged may raise, beside `OSError`
DAMAGES = (
    SafetensorError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError,
)  # fmt: skip
_PLAIN = (str, int, float, bool, type(None))


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write both to `path`, atomically, even if the computer stops.

    `facts` is what JSON can hold; floats, NaN and infinities included, come back bit for bit. Raises `DataError` when
    the folder cannot be written to.
    """
    # clones: tensors that share memory, such as tied weights, are refused by the format
    held = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    text = json.dumps(facts)
    header = {"pretrain": str(VERSION), "crc32": str(_checksum(held, text)), "facts": text}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = new_draft(path)
        with draft.open("wb") as file:
            file.write(safetensors.save(held, header))
            file.flush()
            os.fsync(file.fileno())  # the rename must not reach the disk before the bytes
        draft.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise DataError(f"cannot write the checkpoint {path}: {error}") from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts that `save` wrote, the tensors on the CPU.

    Raises `DataError` if the file is missing, damaged, something else, or of another version.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path} is not a file")
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if "pretrain" not in header:
                raise DataError(f"{path} is not a checkpoint of pretrain")
            if header["pretrain"] != str(VERSION):
                raise DataError(
                    f"{path} is a checkpoint of version {header['pretrain']}, this program reads version {VERSION}:"
                    " continue with the program that wrote it, or start again with another file"
                )
            # clones: those of the file lie where they lie in it, and products of vectors that are not aligned in memory
            # as torch aligns its own round differently
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  it is no mapping
        if header["crc32"] != str(_checksum(tensors, header["facts"])):
            raise DataError(f"{path} is damaged: its content does not fit its checksum")
        facts = _parsed(header["facts"])
    except OSError as error:
        raise DataError(f"cannot read the checkpoint {path}: {error}") from error
    except DataError:
        raise
    except DAMAGES as error:
        raise DataError(f"{path} is damaged, or not a checkpoint: {error}") from error
    return tensors, facts


def _parsed(text: str) -> dict[str, Any]:
    facts = json.loads(text)
    if not isinstance(facts, dict):
        raise TypeError("its facts are no object")
    return facts


def pack(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Any nest of dicts, lists, tuples, tensors and plain values, as tensors by name and the rest, fit for JSON.

    An optimizer's `state_dict` is such a nest. Raises `TypeError` for other objects.
    """
    tensors: dict[str, Tensor] = {}

    def flatten(node: Any, name: str) -> Any:
        if isinstance(node, Tensor):
            tensors[name] = node
            return {"tensor": name}
        if isinstance(node, dict):
            # as pairs: the keys of an optimizer's state are numbers, which JSON would turn into strings
            return {"dict": [[key, flatten(value, f"{name}.{key}")] for key, value in node.items()]}
        if isinstance(node, (list, tuple)):
            kind = "list" if isinstance(node, list) else "tuple"
            return {kind: [flatten(value, f"{name}.{index}") for index, value in enumerate(node)]}
        if isinstance(node, _PLAIN):
            return node
        raise TypeError(f"{name} is {type(node).__name__}, which a checkpoint cannot hold")

    rest = flatten(tree, "state")
    return tensors, rest


def unpack(tensors: Mapping[str, Tensor], rest: Any) -> Any:
    """The nest that `pack` was given."""
    if not isinstance(rest, dict):
        return rest
    ((kind, content),) = rest.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpack(tensors, value) for key, value in content}
    values = [unpack(tensors, value) for value in content]
    return values if kind == "list" else tuple(values)


class Keeper:
    """Writes a training's state to `path`, every `every` seconds of `clock`; without a path, does nothing.

    `settings` are those that must be the same for the training to continue; `epochs` may be more than before.
    """

    def __init__(
        self,
        path: Path | None,
        every: float,
        settings: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self._every, self._clock = path, every, clock
        # through JSON and back, so that tuples and lists compare as the file will hold them
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.before: dict[str, Any] = {}  # the settings of the state that is kept
        self._last = clock()

    def due(self) -> bool:
        """Whether it is time to write the state again."""
        return self.path is not None and self._clock() - self._last >= self._every

    def keep(self, tree: Mapping[str, Any]) -> None:
        """Write `tree`, a nest that `pack` takes."""
        if self.path is None or current().rank:
            return  # of several processes the first writes the state of all
        tensors, rest = pack(dict(tree))
        save(self.path, tensors, {"settings": self._settings, "rest": rest})
        self._last = self._clock()

    def kept(self) -> dict[str, Any] | None:
        """The state that was written last, or None.

        Raises `DataError` if the file is damaged or belongs to a training with other settings.
        """
        if self.path is None or not self.path.exists():
            return None
        tensors, facts = load(self.path)
        theirs = facts.get("settings")
        if not isinstance(theirs, dict) or "rest" not in facts:
            raise DataError(f"{self.path} is not a checkpoint of a training")
        theirs = {_RENAMED.get(name, name): value for name, value in theirs.items()}
        for name in sorted({*self._settings, *theirs}):
            mine, other = self._settings.get(name), theirs.get(name)
            if mine != other and not (name == "epochs" and are_more(mine, other)):
                raise DataError(
                    f"{self.path} belongs to another training: its {name} is {other}, this one's {mine};"
                    " use the same settings, or another file"
                )
        self.before = theirs
        try:
            tree = unpack(tensors, facts["rest"])
            if not isinstance(tree, dict):
                raise TypeError("its state is no dictionary")
        except DAMAGES as error:
            raise DataError(f"{self.path} is damaged: {error}") from error
        return tree


@contextmanager
def fits(path: Path | None) -> Iterator[None]:
    """Raise one `DataError` for any error of restoring a state that does not fit the training."""
    try:
        yield
    except DAMAGES as error:
        if isinstance(error, DataError):
            raise
        said = " ".join(str(error).split())  # torch lists what does not fit over several lines
        raise DataError(f"{path} does not fit this training: {said}") from error


def _checksum(tensors: Mapping[str, Tensor], text: str) -> int:
    """CRC-32 of all content: the format itself detects a truncated file, but not a flipped bit."""
    sum_so_far = zlib.crc32(text.encode())
    for name in sorted(tensors):
        values = tensors[name]
        sum_so_far = zlib.crc32(f"{name} {values.dtype} {list(values.shape)}".encode(), sum_so_far)
        if values.numel():
            sum_so_far = zlib.crc32(values.reshape(-1).view(torch.uint8).numpy().data, sum_so_far)
    return sum_so_far


def _sync_folder(folder: Path) -> None:
    """Make the rename durable; Windows cannot open a folder, and does not need it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
