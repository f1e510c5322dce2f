"""`gradtui.watch`: one line that records a training."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gradtui.diagnosis import LiveDiagnosis
from gradtui.errors import one_line, say_on_stderr
from gradtui.format import listed
from gradtui.measures import run_measures
from gradtui.options import RecordKeywords, RecordOptions, record_options
from gradtui.record.budget import DIAGNOSIS_SHARE, Sampling
from gradtui.record.columns import Columns
from gradtui.record.header import RunFacts, make_header, script_name
from gradtui.record.layers import ForwardTrace, LayerSpec
from gradtui.record.patches import when_freed
from gradtui.record.recorder import Recorder
from gradtui.record.recording import Recording
from gradtui.record.row_maker import RowMaker
from gradtui.runfile import RunWriter
from gradtui.runfolder import release, reserve, runs_folder

if TYPE_CHECKING:
    from typing_extensions import Unpack

Models = nn.Module | Mapping[str, nn.Module]
Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


def watch(
    model: Models,
    optimizer: Optimizers,
    options: RecordOptions | None = None,
    *,
    total_steps: int | None = None,
    total_epochs: float | None = None,
    takes_commands: Sequence[str] = (),
    **changes: Unpack[RecordKeywords],
) -> Recorder:
    """Record the training of `model` by `optimizer` from here on.

    A run file that cannot be made is told on stderr, and the training goes on unrecorded (`Recorder.path` is None).
    In distributed training only the process of rank 0 records; it compares hashes of the replicas' parameters too.
    The recording ends when it is closed, when the program ends, or when the last optimizer is freed.

    Args:
        model: the model, or several by name, as the two of a GAN; layers are the modules that own parameters directly.
        optimizer: the optimizer whose steps are measured, or several.
        options: how to record, and where; by default `RecordOptions()`.
        total_steps: how many steps the training will take, if known.
        total_epochs: how many epochs it will take, if known.
        takes_commands: what a viewer may ask, e.g. `["stop"]`, if the training looks at `stop_requested`.
        **changes: fields of `RecordOptions` that differ from `options`, e.g. `every=1`.

    Raises:
        ValueError: an option is out of range.
    """
    facts = RunFacts(total_steps=total_steps, total_epochs=total_epochs, takes_commands=takes_commands)
    return Recorder(start_recording(model, optimizer, record_options(options, changes), facts=facts))


def start_recording(
    model: Models,
    optimizer: Optimizers,
    options: RecordOptions,
    *,
    path: Path | None = None,
    facts: RunFacts | None = None,
) -> Recording:
    """As `watch`, with the run file itself and all facts of a run: for the trainings of the lab."""
    recording = new_recording(options, path, facts)
    models = {"": model} if isinstance(model, nn.Module) else model
    optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    try:
        sources = [Filtered(ForwardTrace(one, root), options.layers) for root, one in models.items()]
    except Exception as error:
        recording.fail(error)
        sources = []
    for i, one in enumerate(optimizers):
        recording.observe(one, *(sources if i == 0 else ()))
    _close_with_the_last(recording, optimizers)
    return recording


def new_recording(options: RecordOptions, path: Path | None = None, facts: RunFacts | None = None) -> Recording:
    """A recording with a new run file, which is `path` if it is given; one without a file if it cannot be made."""
    writer, columns, rows = None, None, None
    try:
        columns = Columns(run_measures(options.measures))
        rows = RowMaker(_diagnosis(options, columns))
        if is_first_rank():
            name = options.name or script_name(sys.argv)
            header = make_header(name, options, facts or RunFacts())
            where = path or reserve(name, runs_folder(options.folder))
            try:
                writer = RunWriter(where, header, columns.measures, prepare=rows.prepare, diagnose=rows.diagnose)
            finally:
                release(where)
    except (TypeError, ValueError) as error:
        if columns is None:  # of a measure that is none
            raise
        say_on_stderr(f"no run file ({one_line(error)}); training goes on unrecorded")
    except Exception as error:
        say_on_stderr(f"no run file ({one_line(error)}); training goes on unrecorded")
    return Recording(writer, Sampling(options), rows, columns)


def _diagnosis(options: RecordOptions, columns: Columns) -> LiveDiagnosis:
    names = [measure.name for measure in columns.measures]
    return LiveDiagnosis(names, options.limits(), options.budget * DIAGNOSIS_SHARE, options.on_finding)


def is_first_rank() -> bool:
    """True for the process that records: rank 0, or one that is not distributed."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank() != 0)


@dataclass
class Filtered:
    """The layers of a source whose names fit."""

    source: Any
    patterns: Sequence[str]

    def specs(self) -> list[LayerSpec]:
        """Those layers; that there are none is said on stderr, because nothing of the model would be recorded."""
        specs = self.source.specs()
        kept = [spec for spec in specs if fits(_names(spec), self.patterns)]
        if specs and not kept:
            model, names = specs[0].root or "the model", listed([_names(spec)[-1] for spec in specs])
            patterns = " or ".join(self.patterns)
            say_on_stderr(f"no layer of {model} is called {patterns}, so none of it is recorded; it has {names}")
        return kept

    def remove(self) -> None:
        """Take the source's hooks off."""
        self.source.remove()


def _names(spec: LayerSpec) -> list[str]:
    """What a layer may be called: in its model, and where there are several models."""
    whole = ".".join(word for word in (spec.root, spec.name) if word)
    return [spec.name, whole] if spec.root and spec.name else [whole or spec.kind]


def fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """True if a name fits one of the patterns, or there are none but such with "!", and no name one of those."""
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]

    def fit(pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in names)

    return (not wanted or any(map(fit, wanted))) and not any(map(fit, unwanted))


def _close_with_the_last(recording: Recording, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    left = {id(optimizer) for optimizer in optimizers}

    def gone(key: int) -> None:
        left.discard(key)
        if not left:
            recording.close()

    for optimizer in optimizers:
        recording.at_close(when_freed(optimizer, gone, id(optimizer)).detach)
