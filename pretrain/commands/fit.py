"""`fit`: layers trained one by one, then optionally the belief net by the up-down algorithm."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretrain.commands.early_checks import LAYERS_FILE
from pretrain.commands.training import Place, done_before, epochs_had, load_source, prepared, reporting, write_note
from pretrain.dbn import DBN
from pretrain.devices import device_of, generator_on
from pretrain.errors import DataError
from pretrain.greedy import LayerProgress, train_greedily
from pretrain.layers import LAYERS
from pretrain.limits import check_memory
from pretrain.parallel import processes
from pretrain.progress import Stop
from pretrain.protocols import Layer
from pretrain.rows import Rows
from pretrain.settings import FitCommand, decisive
from pretrain.stack import Stack, load_stack, save_stack

BYTES_A_WEIGHT = 12  # itself, its gradient and the optimizer's state of it, in float32


def fit(settings: FitCommand, folder: Path) -> int:
    """Train layers greedily into `folder`; returns the exit status."""
    stop, device = Stop(), device_of(settings.device)
    with prepared(settings), processes(device) as parallel, stop.listening():
        place = Place(folder, stop, parallel)
        settings = replace(settings, data=settings.data or "digits")
        data = load_source(settings)
        about = {"settings": decisive(settings), "image_shape": data.image_shape}
        layers: list[Layer] = []
        if done_before(place, "fit", folder / LAYERS_FILE, settings):
            stack = load_stack(folder / LAYERS_FILE)
            had = epochs_had(stack.about, settings, len(stack.layers))
            if had is None:
                place.say(f"{folder / LAYERS_FILE} exists already: nothing to do")
                return 0
            if settings.up_down_epochs:
                raise DataError("layers that were trained up and down cannot be trained further: use another folder")
            write_note(place, "fit", settings)
            layers, settings = list(stack.layers), replace(settings, epochs_before=tuple(had))
        # other numbers than those of the epochs before
        generator = generator_on(device, (settings.seed + sum(settings.epochs_before or (0,))) % 2**64)
        rows = data.train.rows(device, settings.scale)
        labels = None
        if settings.label_units or LAYERS[settings.unit].supervised:
            labels = data.train.needs_labels(data.name)
        classes = 0 if labels is None else int(labels.max()) + 1
        label_units = classes if settings.label_units else 0
        layers = layers or make_layers(settings, rows.columns, label_units, generator)
        for layer in layers:
            _module(layer).to(device)
        finished = _fit_layers(settings, place, layers, rows, labels, generator)
        recognition: tuple[nn.Linear, ...] = ()
        if finished and settings.up_down_epochs:
            net = Stack(layers).belief_net()
            net.untie()
            _module(net).to(device)
            finished = _fit_up_down(settings, place, net, rows, labels, generator)
            recognition = tuple(net.recognition)
        if not finished:
            place.say(f"stopped; run the same command again to continue from {folder}")
            return stop.code
        if place.first:
            save_stack(folder / LAYERS_FILE, Stack(layers, about, recognition))
            for name in ("up-down", "fit"):
                (folder / f"{name}.checkpoint").unlink(missing_ok=True)
        place.say(f"trained: {folder / LAYERS_FILE}")
    return 0


def _fit_layers(
    settings: FitCommand, place: Place, layers: list[Layer], rows: Rows, labels: Any, generator: torch.Generator
) -> bool:
    epochs = list(settings.epochs) * len(layers) if len(settings.epochs) == 1 else list(settings.epochs)
    # the work of a layer is that of its matrix products
    costs = [count * layer.inputs * layer.outputs for count, layer in zip(epochs, layers, strict=False)]
    with reporting(place, "fit", sum(costs)) as reporter:

        def on_step(progress: LayerProgress) -> None:
            share = progress.step / (progress.steps_an_epoch * progress.epochs)
            done = sum(costs[: progress.index]) + share * costs[progress.index]
            reporter.progress.update(done, f"layer {progress.index + 1} of {len(layers)}")

        def on_epoch(progress: LayerProgress) -> None:
            reporter.epoch("error", progress.error, progress.epoch, progress.epochs, layer=progress.index + 1)

        def on_layer(progress: LayerProgress) -> None:
            reporter.begin(progress.epoch, progress.index + 1, settings.epochs_before)

        return train_greedily(
            layers,
            rows,
            settings,
            targets=labels if LAYERS[settings.unit].supervised else None,
            label_units=labels if settings.label_units else None,
            epochs=epochs,
            epochs_before=settings.epochs_before or 0,
            generator=generator,
            on_step=on_step if sys.stderr.isatty() else None,
            on_epoch=on_epoch,
            on_layer=on_layer,
            should_stop=place.stop,
            checkpoint=place.folder / "fit.checkpoint",
        ).finished


def _fit_up_down(
    settings: FitCommand, place: Place, net: DBN, rows: Rows, labels: Any, generator: torch.Generator
) -> bool:
    with reporting(place, "up-down", settings.up_down_epochs) as reporter:

        def on_step(progress: LayerProgress) -> None:
            reporter.progress.update(progress.step / progress.steps_an_epoch, "up and down")

        def on_epoch(progress: LayerProgress) -> None:
            reporter.epoch("error", progress.error, progress.epoch, progress.epochs)

        return train_greedily(
            [net],
            rows,
            label_units=labels if settings.label_units else None,
            epochs=settings.up_down_epochs,
            batch_size=settings.batch_size,
            generator=generator,
            memory=settings.memory,
            on_step=on_step if sys.stderr.isatty() else None,
            on_epoch=on_epoch,
            on_layer=lambda progress: reporter.begin(progress.epoch),
            should_stop=place.stop,
            checkpoint=place.folder / "up-down.checkpoint",
            checkpoint_every=settings.checkpoint_every,
        ).finished


def make_layers(settings: FitCommand, columns: int, label_units: int, generator: torch.Generator) -> list[Layer]:
    """New layers for data of `columns` columns, with `label_units` label units at the top; raises `DataError`."""
    kind, made = LAYERS[settings.unit], []
    # a sigmoid gives probabilities, as pixels are; other units give any numbers
    bounded = settings.visible == "bernoulli"
    units = (columns, *settings.layers)
    weights = sum(inputs * outputs for inputs, outputs in pairwise(units))
    check_memory(BYTES_A_WEIGHT * weights, f"layers of {', '.join(f'{one:,}' for one in units[:6])} units")
    for index, (inputs, outputs) in enumerate(pairwise(units)):
        labels = label_units if index == len(settings.layers) - 1 else 0
        layer = kind.make(
            inputs + labels, outputs, settings, bounded=bounded, label_units=labels, generator=generator
        )  # fmt: skip
        bounded = layer.activation == "sigmoid"
        made.append(layer)
    return made


def _module(layer: Any) -> nn.Module:
    assert isinstance(layer, nn.Module)
    return layer
