"""Layers pretrained one at a time before the whole net is trained: a recipe's use of the package `pretrain`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from gradtui.lab.layer_kinds import layer_kind

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gradtui.lab.recipe import Recipe
    from gradtui.lab.tensors import Tensors
    from gradtui.record.recording import Recording
    from pretrain.greedy import LayerProgress

FINE_TUNING = "fine-tuning"  # the event at whose step the whole net begins to learn
NOISE = 0.1  # fraction of the inputs that a denoising layer does not see (Vincent et al. 2010, table 1)


def pretrain_layers(
    recipe: Recipe,
    model: nn.Module,
    tensors: Tensors,
    recording: Recording,
    generator: torch.Generator,
    on_step: Callable[[LayerProgress], None],
    should_stop: Callable[[], bool],
) -> bool:
    """Pretrain the hidden layers of a plain net, recorded step by step; False if it was stopped.

    Each pretraining layer shares the weights and biases of the net's layer, so that the recorder of the net sees them
    learn; the layers that are not in training have no gradients.
    """
    from gradtui.lab.pictures import Gallery
    from pretrain.greedy import train_greedily

    linears = [module for name, module in model.named_children() if name.startswith("fc")][:-1]
    layers = []
    for number, linear in enumerate(linears):
        layer = _layer(recipe, linear, number, generator)
        layer.weight = _shared(linear.weight, layer.weight)
        layer.bias = _shared(linear.bias, layer.bias)
        layers.append(layer)

    names = [name for name, _ in model.named_children() if name.startswith("fc")]
    gallery = Gallery(layers, names, tensors.images, recording)

    def begin(progress: LayerProgress) -> None:
        model.zero_grad()
        recording.follow(progress.optimizer)
        recording.event("pretraining", f"layer {progress.index + 1} of {progress.layers}: {recipe.pretrain}")

    def tell(progress: LayerProgress) -> None:
        gallery.show(progress.index, always=progress.epoch + 1 == progress.epochs)
        if progress.error is not None:
            name = "label_cost" if progress.output is not None else "reconstruction_error"
            recording.log({"epoch": 0.0, name: progress.error})

    supervised = layer_kind(recipe.pretrain).supervised
    targets: Any = tensors.targets
    if supervised and targets.dim() > 1:
        targets = targets.argmax(dim=1)
    result = train_greedily(
        layers,
        tensors.images,
        targets=targets if supervised else None,
        epochs=recipe.pretrain_epochs,
        batch_size=recipe.batch_size or len(tensors.images),
        generator=generator,
        on_layer=begin,
        on_step=on_step,
        on_epoch=tell,
        should_stop=should_stop,
    )
    model.zero_grad()
    recording.event(FINE_TUNING, "the whole net learns from here on")
    return result.finished


def _layer(recipe: Recipe, linear: Any, number: int, generator: torch.Generator) -> Any:
    from pretrain.settings import LayerSettings

    settings = LayerSettings(activation=cast("Any", recipe.activation), level=NOISE)
    # a sigmoid gives probabilities, as the pixels are; other units give any numbers
    bounded = number == 0 or recipe.activation == "sigmoid"
    kind = layer_kind(recipe.pretrain)
    return kind.make(linear.in_features, linear.out_features, settings, bounded=bounded, generator=generator)


def _shared(own: Any, started: nn.Parameter) -> nn.Parameter:
    """The net's parameter, with the initial values of the pretraining layer."""
    own.data.copy_(started.data)
    return cast("nn.Parameter", own)
