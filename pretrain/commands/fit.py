"""`fit`: layers trained one by one, and after them the belief net up and down."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretrain.autoencoder import Autoencoder
from pretrain.commands.training import LAYERS, Place, done_before, load_source, prepared, telling, told
from pretrain.data import DataError
from pretrain.dbn import DBN
from pretrain.devices import device_of, generator_on
from pretrain.greedy import Layer, LayerProgress, train_greedily
from pretrain.negative import GradientEstimator
from pretrain.parallel import processes
from pretrain.progress import Stop
from pretrain.rbm import RBM
from pretrain.rows import Rows
from pretrain.schedule import Schedule, linear
from pretrain.settings import FitSettings
from pretrain.stack import Stack, save_stack

CODER_RATE = 0.001  # of Adam
CODERS = {"autoencoder": "plain", "supervised": "plain", "denoising": "denoising"}


def fit(settings: FitSettings, folder: Path) -> int:
    """Trains layers greedily into `folder`; returns the exit status."""
    stop, device = Stop(), device_of(settings.device)
    with prepared(settings), processes(device) as parallel, stop.listening():
        place = Place(folder, stop, parallel)
        settings = replace(settings, data=settings.data or "digits")
        data = load_source(settings)
        about = {"settings": told(settings), "image_shape": data.image_shape}
        if done_before(place, "fit", folder / LAYERS, told(settings)):
            place.say(f"{folder / LAYERS} is there already: nothing to do")
            return 0
        generator = generator_on(device, settings.seed)
        rows = data.train.rows(device, settings.scale or None)
        labels = None
        if settings.label_units or settings.unit == "supervised":
            labels = data.train.needs_labels(data.name)
        classes = 0 if labels is None else int(labels.max()) + 1
        layers = make_layers(settings, rows.columns, classes if settings.label_units else 0, generator)
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
            place.say(f"stopped; the same command goes on from {folder}")
            return stop.code
        if place.first:
            save_stack(folder / LAYERS, Stack(layers, about, recognition))
            for name in ("up-down", "fit"):
                (folder / f"{name}.checkpoint").unlink(missing_ok=True)
        place.say(f"trained: {folder / LAYERS}")
    return 0


def _fit_layers(
    settings: FitSettings, place: Place, layers: list[Layer], rows: Rows, labels: Any, generator: torch.Generator
) -> bool:
    epochs = list(settings.epochs) * len(layers) if len(settings.epochs) == 1 else list(settings.epochs)
    # the work of a layer is that of its matrix products
    costs = [count * layer.inputs * layer.outputs for count, layer in zip(epochs, layers, strict=False)]
    with telling(place, "fit", sum(costs)) as teller:

        def on_step(progress: LayerProgress) -> None:
            share = progress.step / (progress.steps_an_epoch * progress.epochs)
            done = sum(costs[: progress.index]) + share * costs[progress.index]
            teller.progress.update(done, f"layer {progress.index + 1} of {len(layers)}")

        def on_epoch(progress: LayerProgress) -> None:
            teller.epoch("error", progress.error, progress.epoch, progress.epochs, layer=progress.index + 1)

        def on_layer(progress: LayerProgress) -> None:
            teller.begin(progress.epoch, progress.index + 1)

        return train_greedily(
            layers,
            rows,
            targets=labels if settings.unit == "supervised" else None,
            label_units=labels if settings.label_units else None,
            epochs=settings.epochs[0] if len(settings.epochs) == 1 else settings.epochs,
            batch_size=settings.batch_size or 100,
            learning_rate=_rates(settings, layers, epochs),
            momentum=None if settings.momentum < 0 else settings.momentum,
            pass_on=settings.pass_on,  # type: ignore[arg-type]  # the settings know the choices
            generator=generator,
            memory=round(settings.memory * 1e9),
            on_step=on_step if sys.stderr.isatty() else None,
            on_epoch=on_epoch,
            on_layer=on_layer,
            should_stop=place.stop,
            checkpoint=place.folder / "fit.checkpoint",
            checkpoint_every=60 * settings.checkpoint_every,
        ).finished


def _rates(settings: FitSettings, layers: list[Layer], epochs: list[int]) -> list[Schedule | None]:
    """The learning rate of each layer; None is the layer's own choice."""
    if not settings.decay:
        return [settings.learning_rate or None] * len(layers)
    usual = [layer.usual_rate if isinstance(layer, RBM) else CODER_RATE for layer in layers]
    return [linear(settings.learning_rate or rate, count) for rate, count in zip(usual, epochs, strict=False)]


def _fit_up_down(
    settings: FitSettings, place: Place, net: DBN, rows: Rows, labels: Any, generator: torch.Generator
) -> bool:
    with telling(place, "up-down", settings.up_down_epochs) as teller:

        def on_step(progress: LayerProgress) -> None:
            teller.progress.update(progress.step / progress.steps_an_epoch, "up and down")

        def on_epoch(progress: LayerProgress) -> None:
            teller.epoch("error", progress.error, progress.epoch, progress.epochs)

        return train_greedily(
            [net],
            rows,
            label_units=labels if settings.label_units else None,
            epochs=settings.up_down_epochs,
            batch_size=settings.batch_size or 100,
            generator=generator,
            memory=round(settings.memory * 1e9),
            on_step=on_step if sys.stderr.isatty() else None,
            on_epoch=on_epoch,
            on_layer=lambda progress: teller.begin(progress.epoch),
            should_stop=place.stop,
            checkpoint=place.folder / "up-down.checkpoint",
            checkpoint_every=60 * settings.checkpoint_every,
        ).finished


def make_layers(settings: FitSettings, columns: int, classes: int, generator: torch.Generator) -> list[Layer]:
    """New layers for data of so many columns, with `classes` label units at the top; raises `DataError`."""
    sizes = (columns, *settings.layers)
    try:
        if settings.unit == "rbm":
            return _rbms(settings, sizes, classes, generator)
        if classes:
            raise ValueError("label units belong to machines: take unit rbm, or leave label-units out")
        made: list[Layer] = []
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            # what a sigmoid gives are probabilities, as pixels are; what others give are numbers
            bounded = settings.visible == "bernoulli" if index == 0 else settings.activation == "sigmoid"
            made.append(
                Autoencoder(
                    inputs,
                    outputs,
                    kind=CODERS.get(settings.unit, settings.unit),  # type: ignore[arg-type]
                    tied=not settings.untied,
                    activation=settings.activation,  # type: ignore[arg-type]
                    cost="cross-entropy" if bounded else "squared",
                    noise=settings.noise,  # type: ignore[arg-type]
                    level=settings.level,
                    contraction=settings.contraction,
                    target=settings.sparsity_target,
                    generator=generator,
                )
            )
        return made
    except ValueError as error:
        raise DataError(str(error)) from error


def _rbms(settings: FitSettings, sizes: tuple[int, ...], classes: int, generator: torch.Generator) -> list[Layer]:
    training = GradientEstimator(
        method=settings.method,  # type: ignore[arg-type]
        steps=settings.steps,
        chains=settings.chains,
        temperatures=settings.temperatures,
        burn_in=settings.burn_in,
        fast_rate=settings.fast_rate,
        centred=settings.centred,
        clip=settings.clip or None,
        weight_cost=settings.weight_cost,
        l1_cost=settings.l1_cost,
        sparsity_cost=settings.sparsity_cost,
        sparsity_target=settings.sparsity_target,
        products=settings.precision,  # type: ignore[arg-type]
    )
    made: list[Layer] = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        top = index == len(sizes) - 2
        # what rectified units give are numbers
        unbounded = settings.visible == "gaussian" if index == 0 else settings.hidden == "rectified"
        made.append(
            RBM(
                inputs + (classes if top else 0),
                outputs,
                visible="gaussian" if unbounded else "bernoulli",
                hidden=settings.hidden,  # type: ignore[arg-type]
                groups=(classes,) if top and classes else (),
                estimator=training,
                generator=generator,
            )
        )
    return made


def _module(layer: Any) -> nn.Module:
    assert isinstance(layer, nn.Module)
    return layer
