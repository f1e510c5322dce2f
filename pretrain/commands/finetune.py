"""`finetune`: the layers that `fit` trained, trained together as one net."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretrain.commands.early_checks import LAYERS_FILE, NET_FILE
from pretrain.commands.reading import trained_with
from pretrain.commands.training import Place, done_before, epochs_had, load_source, prepared, reporting, write_note
from pretrain.devices import device_of, generator_on
from pretrain.errors import DataError
from pretrain.finetuning import NetProgress
from pretrain.finetuning import finetune as train
from pretrain.nets import classifier, deep_autoencoder
from pretrain.objective import evaluate
from pretrain.parallel import processes
from pretrain.progress import Stop
from pretrain.rbm import RBM
from pretrain.settings import FinetuneCommand, decisive
from pretrain.sources import DataSplit, hold_out
from pretrain.stack import Stack, load_net, load_stack, save_net


def finetune(settings: FinetuneCommand, folder: Path) -> int:
    """Train the layers in `folder` as a whole net; returns the exit status."""
    stop, device = Stop(), device_of(settings.device)
    with prepared(settings), processes(device) as parallel, stop.listening():
        place = Place(folder, stop, parallel)
        stack = load_stack(folder / LAYERS_FILE)
        settings = with_data_of(settings, stack)
        data = load_source(settings)
        about = {"settings": decisive(settings), "task": settings.task, "image_shape": data.image_shape}
        before, had = _trained_before(place, settings)
        if had == settings.epochs and before is not None:
            place.say(f"{folder / NET_FILE} exists already: nothing to do")
            return 0
        settings = replace(settings, epochs_before=had)
        generator = generator_on(device, (settings.seed + settings.epochs_before) % 2**64)
        learnt, validation = data.train, data.validation
        if validation is None and settings.validation:
            learnt, validation = hold_out(learnt, settings.validation, settings.seed)
        scale = settings.scale
        classify = settings.task == "classify"
        labels = learnt.needs_labels(data.name) if classify else None
        net = (before or make_net(settings, stack, labels, generator)).to(device)
        held: Any = None
        if validation is not None:
            images = validation.rows(device, scale)
            held = (images, validation.needs_labels(data.name)) if classify else images
        with reporting(place, "finetune", settings.epochs) as reporter:

            def on_step(progress: NetProgress) -> None:
                reporter.begin(progress.epoch)
                reporter.progress.update(progress.step / progress.steps_an_epoch, "fine-tuning")

            def on_epoch(progress: NetProgress) -> None:
                reporter.begin(progress.epoch)
                error = progress.error
                reporter.epoch("cost", progress.cost, progress.epoch, progress.epochs, validation_error=error)

            result = train(
                net,
                learnt.rows(device, scale),
                labels,
                settings,
                validation=held,
                generator=generator,
                on_step=on_step if sys.stderr.isatty() else None,
                on_epoch=on_epoch,
                should_stop=stop,
                checkpoint=folder / "finetune.checkpoint",
            )
        if not result.finished:
            place.say(f"stopped; run the same command again to continue from {folder}")
            return stop.code
        if place.first:
            save_net(folder / NET_FILE, net, about)
            (folder / "finetune.checkpoint").unlink(missing_ok=True)
        place.say(f"trained: {folder / NET_FILE}")
        if place.first and data.test is not None and (data.test.labels is not None or not classify):
            _say_test_error(place, net, data.test, device, scale, classify)
    return 0


def _trained_before(place: Place, settings: FinetuneCommand) -> tuple[nn.Sequential | None, int]:
    """The net that was trained in this folder before, and its epochs; None and 0 if there is none."""
    path = place.folder / NET_FILE
    if not done_before(place, "finetune", path, settings):
        return None, 0
    net, about = load_net(path)
    had = epochs_had(about, settings, 1)
    if had is None:
        return net, settings.epochs
    write_note(place, "finetune", settings)
    return net, had[0]


def with_data_of(settings: FinetuneCommand, stack: Stack) -> FinetuneCommand:
    """The settings; if they name no data, with those of the layers' training."""
    if settings.data:
        return settings
    data, labels, scale = (trained_with(stack, name) for name in ("data", "labels", "scale"))
    if not data:
        raise DataError("the layers do not say what they were trained on: name the data with --data")
    return replace(settings, data=data, labels=settings.labels or labels or "", scale=settings.scale or scale or None)


def _say_test_error(
    place: Place, net: nn.Sequential, test: DataSplit, device: torch.device, scale: float | None, classify: bool
) -> None:
    error = evaluate(net, test.rows(device, scale), test.labels if classify else None)
    place.say(f"test error {100 * error:.2f} %" if classify else f"squared test error {error:.3f} per example")


def make_net(settings: FinetuneCommand, stack: Stack, labels: Any, generator: torch.Generator) -> nn.Sequential:
    """The plain net of a stack, for the task; raises `DataError` for a stack that cannot be one."""
    layers = list(stack.layers)
    if settings.task == "autoencode":
        try:
            return deep_autoencoder(layers, linear_code=False)
        except ValueError as error:
            raise DataError(str(error)) from error
    top = layers[-1]
    if isinstance(top, RBM) and top.groups:
        layers[-1] = top.without_label_units()
    return classifier(
        layers,
        int(labels.max()) + 1,
        generator,
        dropout=settings.dropout,
        input_dropout=settings.input_dropout,
    )
