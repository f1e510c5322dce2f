"""What `fit` and `finetune` share: the folder, the output, the data."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pretrain.commands.early_checks import begun_before, check_same, data_folder
from pretrain.drafts import new_draft
from pretrain.errors import DataError, short
from pretrain.limits import are_more
from pretrain.parallel import Parallel
from pretrain.progress import Metrics, Progress, Stop
from pretrain.settings import DataSettings, decisive
from pretrain.sources import Source, source


@dataclass(frozen=True)
class Place:
    """The folder of a stack, the stop request, and which of several processes this is."""

    folder: Path
    stop: Stop
    parallel: Parallel

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.parallel.rank == 0

    def say(self, text: str) -> None:
        """Write a line to stderr, from one process only."""
        if self.first:
            print(text, file=sys.stderr, flush=True)


class Reporter:
    """Reports a training's progress on stderr, and in `metrics.jsonl` of the folder."""

    def __init__(self, place: Place, command: str, total: float) -> None:
        self._place, self._command = place, command
        self.progress = Progress(total, sys.stderr)
        self._metrics: Metrics | None = None
        self._started = time.monotonic()

    def begin(self, epoch: int, layer: int = 0, epochs_before: Sequence[int] = ()) -> None:
        """The training begins, or continues, at this epoch and layer; older lines of repeated epochs are removed.

        `epochs_before` are those that each layer had before all of them were trained further.
        """
        if self._metrics is None and self._place.first:
            command, start = self._command, (layer, epoch + 1)

            def before(line: Any) -> bool:
                of_layer, of_epoch = line.get("layer", 0), line.get("epoch", 0)
                had = epochs_before[of_layer - 1] if 0 < of_layer <= len(epochs_before) else 0
                return line.get("command") != command or of_epoch <= had or (of_layer, of_epoch) < start

            self._metrics = Metrics(self._place.folder / "metrics.jsonl", before)

    def epoch(self, name: str, value: float | None, epoch: int, epochs: int, **more: Any) -> None:
        """An epoch, counted from 0, has ended; raises `DataError` if its error is NaN or infinite."""
        seconds = round(time.monotonic() - self._started, 2)
        self._started = time.monotonic()
        assert value is not None
        if self._place.first:
            assert self._metrics is not None
            line = {"command": self._command, **more, "epoch": epoch + 1, "epochs": epochs, name: value}
            self._metrics.write(**line, seconds=seconds)
            where = f"layer {more['layer']}, epoch" if "layer" in more else "epoch"
            held = more.get("validation_error")
            tail = "" if held is None else f"\tvalidation error {held:.4f}"
            self.progress.line(f"{where} {epoch + 1} of {epochs}\t{name} {value:.4f}{tail}\t{seconds:.1f} s")
        if not math.isfinite(value):
            raise DataError(
                f"the training has diverged: the {name} of epoch {epoch + 1} is {value}; use a smaller --learning-rate"
                f" and start again, in another folder or without {self._place.folder}/*.checkpoint"
            )

    def close(self) -> None:
        """Close the output."""
        self.progress.close()
        if self._metrics is not None:
            self._metrics.close()


@contextmanager
def reporting(place: Place, command: str, total: float) -> Iterator[Reporter]:
    """A reporter, closed afterwards."""
    reporter = Reporter(place, command, total)
    try:
        yield reporter
    finally:
        reporter.close()


@contextmanager
def prepared(settings: DataSettings) -> Iterator[None]:
    """Within, torch uses the number of threads of the settings."""
    threads = torch.get_num_threads()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load_source(settings: DataSettings) -> Source:
    """The data of the settings."""
    labels = Path(settings.labels) if settings.labels else None
    return source(settings.data or "digits", data_folder(settings.data_dir), labels)


def done_before(place: Place, command: str, result: Path, settings: DataSettings) -> bool:
    """Whether `result` exists already; if not, write the settings to the folder.

    Raises `DataError` if the folder's result, or its training that was stopped, has other settings.
    """
    if begun_before(place.folder, command, result):
        check_same(place.folder, command, settings)
    if result.exists():
        return True
    write_note(place, command, settings)
    return False


def epochs_had(about: Mapping[str, Any], settings: Any, count: int) -> list[int] | None:
    """The epochs that the result which is known by `about` has had, one number for each layer; None if that is all.

    Raises `DataError` if these are no numbers, or more than those of the settings.
    """
    before = about.get("settings")
    had: Any = before.get("epochs") if isinstance(before, dict) else None
    if not are_more(settings.epochs, had):
        raise DataError(f"it was trained for {short(had)} epochs, not {settings.epochs}: use another folder")
    if are_more(had, settings.epochs):
        return None
    numbers = had if isinstance(had, list) else [had]
    return numbers * count if len(numbers) == 1 else numbers


def write_note(place: Place, command: str, settings: DataSettings) -> None:
    """Write the settings to the folder, as those of what is trained there."""
    note = place.folder / f"{command}.json"
    if place.first:
        try:
            place.folder.mkdir(parents=True, exist_ok=True)
            draft = new_draft(note)
            draft.write_text(json.dumps(decisive(settings), indent=1) + "\n")
            draft.replace(note)
        except OSError as error:
            raise DataError(f"cannot write {note}: {error}") from error
