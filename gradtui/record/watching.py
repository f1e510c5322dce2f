"""`gradtui.watch`: one line that records a training."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gradtui.errors import one_line, say_on_stderr
from gradtui.format import listed
from gradtui.record.budget import Sampling
from gradtui.record.header import make_header, script_name
from gradtui.record.layers import ForwardTrace, LayerSpec
from gradtui.record.measures import MEASURES
from gradtui.record.recorder import Recorder
from gradtui.record.row_maker import RowMaker
from gradtui.runfile import RunWriter
from gradtui.runfolder import new_run_path, runs_folder

if TYPE_CHECKING:
    from gradtui.diagnosis import Finding, Thresholds
    from gradtui.record.watchdog import Watchdog

Models = nn.Module | Mapping[str, nn.Module]
Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


def watch(
    model: Models,
    optimizer: Optimizers,
    *,
    every: int | None = None,
    budget: float = 0.01,
    layers: str | Sequence[str] = "*",
    name: str | None = None,
    folder: str | Path | None = None,
    path: Path | None = None,
    recipe: dict[str, Any] | None = None,
    command: list[str] | None = None,
    total_steps: int | None = None,
    total_epochs: float | None = None,
    update_every: int | None = None,
    log_file: str | None = None,
    takes_commands: Sequence[str] = (),
    on_finding: Callable[[Finding], None] | None = None,
    thresholds: Thresholds | None = None,
) -> Recorder:
    """Record the training of `model` by `optimizer` from here on.

    A run file that cannot be made is told on stderr, and the training goes on unrecorded (`Recorder.path` is None).
    In distributed training only the process of rank 0 records. The recording ends when it is closed, when the program
    ends, or when the last optimizer is freed.

    Args:
        model: the model, or several by name, as the two of a GAN; layers are the modules that own parameters directly.
        optimizer: the optimizer whose steps are measured, or several.
        every: measure each so many steps; None measures as often as `budget` allows.
        budget: the share of the time that measuring may cost: all of it if `every` is None, else what costs more than
            the gradient norms: ‖θ‖ and the update ratio, and the activations.
        layers: record these layers only: shell patterns such as "encoder.*"; with "!" before it, leave them out.
        name: what the run is called; the script's name by default.
        folder: where runs live; by default `$GRADTUI_DIR` or the user data folder.
        path: the run file itself, instead of a new one in `folder`.
        recipe: everything that defines a built-in training, for the run's header.
        command: the command line that is shown; the process's own by default.
        total_steps: how many steps the training will take, if known.
        total_epochs: how many epochs it will take, if known.
        update_every: take ‖θ‖ and the update ratio each so many steps, instead of by budget.
        log_file: where the training's own output goes, if it is a file.
        takes_commands: what a viewer may ask, e.g. `["stop"]`, if the training looks at `stop_requested`.
        on_finding: called once for each finding of the diagnosis, in the training's thread right after a measured step
            or when the recorder is closed; what it raises ends the training.
        thresholds: the numbers that decide what is a finding.

    Raises:
        ValueError: `every`, `update_every` or `budget` is out of range.
    """
    sampling = Sampling(every, budget, update_every)
    about = {
        "recipe": recipe,
        "command": command,
        "total_steps": total_steps,
        "total_epochs": total_epochs,
        "log_file": log_file,
        "takes_commands": takes_commands,
    }
    watchdog = None
    if on_finding is not None:
        from gradtui.record.watchdog import Watchdog

        watchdog = Watchdog(on_finding, thresholds)
    recorder = new_recorder(sampling, name, folder, path, watchdog, **about)
    models = {"": model} if isinstance(model, nn.Module) else model
    optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    sources = [Filtered(ForwardTrace(one, root), pattern_list(layers)) for root, one in models.items()]
    for i, one in enumerate(optimizers):
        recorder.observe(one, *(sources if i == 0 else ()))
    _close_with_the_last(recorder, optimizers)
    return recorder


def new_recorder(
    sampling: Sampling,
    name: str | None,
    folder: str | Path | None,
    path: Path | None = None,
    watchdog: Watchdog | None = None,
    **about: Any,
) -> Recorder:
    """A recorder with a new run file; `about` goes into the header. One without a file if it cannot be made."""
    rows = RowMaker(watchdog)
    writer = None
    try:
        if is_first_rank():
            name = name or script_name(sys.argv)
            header = make_header(name, str(sampling), **about)
            where = Path(path) if path is not None else new_run_path(name, runs_folder(folder))
            writer = RunWriter(where, header, MEASURES, prepare=rows.prepare, on_rows=rows.look)
    except Exception as error:
        say_on_stderr(f"no run file ({one_line(error)}); training goes on unrecorded")
    return Recorder(writer, sampling, rows)


def is_first_rank() -> bool:
    """True for the process that records: rank 0, or one that is not distributed."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank() != 0)


def pattern_list(layers: str | Sequence[str]) -> list[str]:
    """Patterns from one string or several."""
    return [layers] if isinstance(layers, str) else list(layers)


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


def _close_with_the_last(recorder: Recorder, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    left = {id(optimizer) for optimizer in optimizers}

    def gone(key: int) -> None:
        left.discard(key)
        if not left:
            recorder.close()

    for optimizer in optimizers:
        weakref.finalize(optimizer, gone, id(optimizer)).atexit = False
