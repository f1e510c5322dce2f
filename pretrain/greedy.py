"""Greedy layer-wise training: each layer learns from the outputs of the layers below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own name for it
from torch.optim import SGD, Optimizer

from pretrain.checkpoint import Keeper, fits
from pretrain.epochs import BatchSampler
from pretrain.errors import DataError
from pretrain.layer_input import LayerInput
from pretrain.layers import check_saveable, kind_of
from pretrain.limits import check_numbers
from pretrain.nets import output_layer
from pretrain.parallel import batch, current, reduce
from pretrain.precision import tell_if_slow
from pretrain.protocols import Layer, OwnOptimizer, OwnStart
from pretrain.rows import Data, Labelled, Rows, check_rows, rows_of
from pretrain.schedule import Schedule, at, for_each, hinton_momentum, linear, load_optimizer, named, set_rates
from pretrain.settings import GreedySettings, with_changes
from pretrain.targets import Targets, check_labels, targets_of

FEW = 10_000  # rows from which a layer sets its first parameters
BATCH_SIZE = 100
DEFAULT_RATE = 0.1  # of a layer that has no choice of its own


@dataclass(frozen=True)
class LayerProgress:
    """The progress of a layer's training, for callbacks.

    `on_layer`: the layer is about to begin, or to continue from a checkpoint. `on_step`: the gradient is in `.grad`,
    the optimizer has not stepped yet. `on_epoch`: an epoch has ended.
    """

    layer: nn.Module
    index: int  # of the layer, from 0
    layers: int
    optimizer: Optimizer
    epoch: int  # from 0
    epochs: int
    step: int  # of this layer, from 0
    steps_an_epoch: int
    error: float | None  # of this batch, or mean over the epoch; None: nothing measured yet
    output: nn.Linear | None  # the temporary output layer of supervised training


OnProgress = Callable[[LayerProgress], None]


@dataclass
class GreedyResult:
    """The errors [layer][epoch], and whether the training finished.

    An error is the squared one of a reconstruction, per example; in supervised training the cross-entropy, in nats.
    """

    errors: list[list[float]] = field(default_factory=list)
    finished: bool = False


def train_greedily(
    layers: Sequence[Layer],
    data: Data,
    settings: GreedySettings | None = None,
    *,
    targets: Data | None = None,
    label_units: Data | None = None,
    **changes: Any,
) -> GreedyResult:
    """Train each of `layers` in place, from the lowest up, on `data` [n, columns] (Hinton et al. 2006, Bengio et al.
    2007).

    With `targets`, labels [n], the training is supervised (Bengio et al. 2007, section 4.2 and appendix): each layer
    learns together with an output layer that predicts the label and is then removed. The layers' `encode` must carry
    gradients.

    With `label_units`, labels [n], the top layer, an RBM with a softmax group for its last visible units, learns them
    together with the features (Hinton et al. 2006, section 5).

    `settings`, and keywords that change them, are those of `GreedySettings`. Without an `optimizer` each layer chooses
    its own; a layer that has no choice gets SGD with rate 0.1 and `hinton_momentum`.

    Layers learn from the probabilities of those below, or from samples (`propagate`), drawn again whenever they are
    read. Data and features that fit into `memory` bytes are read once; larger ones stream through the layers below,
    batch by batch, with the same result except for rounding. (Samples are never held.)

    Within `pretrain.parallel.processes` the training is data-parallel: each process takes its shard of every batch.

    With `checkpoint`, the state is written to that file every `checkpoint_every` seconds, at the end of each layer, and
    when `should_stop`, asked after every step, returns True. If the file exists, training continues from it; on a CPU
    it ends with the same weights, bit for bit, as an uninterrupted one. With more `epochs` than the file has, a
    training that has finished goes on: one layer as if it had never stopped; of several each goes on from its weights,
    from the lowest up, with a new optimizer. Without a file, `epochs_before` says from which epoch layers go on.

    Raises `TypeError` for unknown keywords, and `DataError`, before any training, for data that the lowest layer cannot
    take, layers that do not fit together, a checkpoint that is damaged or belongs to another training, and with
    `checkpoint` for layers whose class is not registered (`pretrain.register_layer`).
    """
    chosen = with_changes("train_greedily", GreedySettings, settings, changes)
    run, inputs = _prepared(layers, data, chosen, targets, label_units)
    result = GreedyResult()
    run, kept = _restored(run, result)
    for index, layer in enumerate(layers):
        if kept is None or index >= kept["layer"]:
            if index and run.label_units is not None and index == len(layers) - 1:
                inputs.append_labels(run.label_units.labels, run.label_count)
            if index:
                inputs.check(layer)
            training = _LayerTraining(run, index, result)
            if not training.run(inputs.rows, kept if kept and index == kept["layer"] else None):
                return result
        if index + 1 < len(layers):
            inputs.pass_through(layer)
    result.finished = True
    return result


@dataclass(frozen=True)
class _Run:
    """What stays the same from layer to layer."""

    layers: Sequence[Layer]
    settings: GreedySettings
    generator: torch.Generator
    keeper: Keeper
    labels: Targets | None
    classes: int
    label_units: Targets | None
    label_count: int
    epochs: list[int]
    begun: list[int]  # from which epoch each layer is trained
    rates: list[Schedule | None]
    momenta: list[Schedule | None]

    @property
    def batch_size(self) -> int:
        return self.settings.batch_size or BATCH_SIZE

    def few(self, rows: Rows) -> Tensor:
        """Some rows, evenly spaced; the generator stays where it is."""
        state = self.generator.get_state()
        step = max(1, len(rows) // FEW)
        x = rows.take(torch.arange(0, len(rows), step)[:FEW])
        self.generator.set_state(state)
        return x


def _prepared(
    layers: Sequence[Layer], data: Data, settings: GreedySettings, targets: Data | None, label_units: Data | None
) -> tuple[_Run, LayerInput]:
    """The settings and data, checked."""
    label_count = 0 if label_units is None else _label_count(layers)
    _check_fit(layers, label_count)
    if settings.checkpoint is not None:
        check_saveable(layers)
    count = len(layers)
    epochs, momenta = for_each(settings.epochs, count, "epochs"), for_each(settings.momentum, count, "momentum")
    begun = for_each(settings.epochs_before, count, "epochs_before")
    rates = for_each(settings.learning_rate, count, "learning_rate")
    if settings.decay:
        rates = [_decayed(layer, rate, most) for layer, rate, most in zip(layers, rates, epochs, strict=True)]
    first = next(layers[0].parameters())
    for layer in layers:
        tell_if_slow(getattr(getattr(layer, "estimator", None), "products", ""), first.device)
    generator = settings.generator
    if generator is None:
        generator = torch.Generator(first.device).manual_seed(0)
    rows, tags = rows_of(data, first.device, first.dtype), None
    if label_units is not None:
        tags = targets_of(label_units, len(rows), first.device)
        check_labels(tags, label_count)
        rows = Labelled(rows, tags.labels, label_count) if count == 1 else rows
    check_rows(rows, layers[0].check)
    labels = None if targets is None else targets_of(targets, len(rows), first.device)
    classes = 0 if labels is None else check_labels(labels)
    same = {
        "training": "greedy" if labels is None else "greedy, supervised",
        "layers": [[layer.inputs, layer.outputs] for layer in layers],
        "examples": len(rows),
        "label_units": label_count,
        "epochs": epochs,
        "epochs_before": begun if any(begun) else None,  # of older checkpoints it is unknown
        "batch_size": settings.batch_size or BATCH_SIZE,
        "learning_rate": [named(rate) for rate in rates],
        "momentum": [named(rate) for rate in momenta],
        "propagate": settings.propagate,
    }
    keeper = Keeper(settings.checkpoint, settings.checkpoint_every, same, settings.clock)
    run = _Run(layers, settings, generator, keeper, labels, classes, tags, label_count, epochs, begun, rates, momenta)
    return run, LayerInput(rows, settings.propagate, settings.memory, generator, first.dtype)


class _LayerTraining:
    """The training of one layer, which can be stopped and continued between any two steps."""

    def __init__(self, run: _Run, index: int, result: GreedyResult) -> None:
        self._run, self._index, self._result = run, index, result
        self._epochs, self._learning_rate, self._momentum = run.epochs[index], run.rates[index], run.momenta[index]
        self._layer = run.layers[index]
        self._output: nn.Linear | None = None
        if run.labels is not None:
            example = next(self._layer.parameters())
            self._output = output_layer(self._layer.outputs, run.classes, example, run.generator)
        self._optimizer = self._make_optimizer()

    def run(self, rows: Rows, kept: dict[str, Any] | None) -> bool:
        """Train to the end of the layer; False if it was stopped before."""
        run = self._run
        self._sampler = BatchSampler(len(rows), run.batch_size, run.generator)
        if kept is None:
            if len(self._result.errors) <= self._index:
                self._result.errors.append([])
            begun = self._sampler.epoch = run.begun[self._index]
            if isinstance(self._layer, OwnStart) and self._output is None and not begun:
                self._layer.start_from(run.few(rows))
        else:
            with fits(run.keeper.path):
                self._restore(kept)
        if run.settings.on_layer is not None and self._sampler.epoch < self._epochs:
            run.settings.on_layer(self._progress(None))
        while self._sampler.epoch < self._epochs:
            if not self._run_epoch(rows):
                self._keep()
                return False
        self._keep()
        return True

    def _run_epoch(self, rows: Rows) -> bool:
        """One epoch, or what is left of it; False if it was stopped."""
        settings, keeper, sampler = self._run.settings, self._run.keeper, self._sampler
        set_rates(self._optimizer, at(self._learning_rate, sampler.epoch), at(self._momentum, sampler.epoch))
        for indices in sampler.batches():
            shard = current().shard(len(indices))
            with batch(shard):
                own = indices[shard.own]
                error = self._fill_gradient(rows.take(own), own)
            if settings.on_step is not None:
                settings.on_step(self._progress(error.item()))  # waits for the device
            self._optimizer.step()
            sampler.count_step(error, len(indices))
            if sampler.step == sampler.steps:
                self._end_epoch()
            stop, due = current().agree(settings.should_stop(), keeper.due())
            if stop:
                return False
            if due:
                self._keep()
        return True

    def _end_epoch(self) -> None:
        before = self._progress(None)
        mean = self._sampler.end_epoch()
        self._result.errors[self._index].append(mean)
        if self._run.settings.on_epoch is not None:
            self._run.settings.on_epoch(replace(before, error=mean))

    def _fill_gradient(self, x: Tensor, indices: Tensor) -> Tensor:
        if self._output is None:
            return self._layer.fill_gradient(x, self._run.generator)
        assert self._run.labels is not None
        self._optimizer.zero_grad()
        code = self._layer.encode(x)
        if not code.requires_grad:
            raise ValueError(f"{type(self._layer).__name__}.encode carries no gradients: train it without targets")
        cost = F.cross_entropy(self._output(code), self._run.labels.take(indices))
        torch.autograd.backward(cost)
        return reduce([*self._layer.parameters(), *self._output.parameters()], cost.detach())

    def _progress(self, error: float | None) -> LayerProgress:
        return LayerProgress(
            cast(nn.Module, self._layer),
            self._index,
            len(self._run.layers),
            self._optimizer,
            self._sampler.epoch,
            self._epochs,
            self._sampler.done,
            self._sampler.steps,
            error,
            self._output,
        )

    def _make_optimizer(self) -> Optimizer:
        parameters = list(self._layer.parameters())
        if self._output is not None:
            parameters += self._output.parameters()
        if self._run.settings.optimizer is not None:
            return self._run.settings.optimizer(parameters)
        rate = at(self._learning_rate, 0)
        if isinstance(self._layer, OwnOptimizer):
            if self._momentum is None:
                self._momentum = self._layer.default_momentum()
            return self._layer.default_optimizer(parameters, rate, at(self._momentum, 0))
        if self._momentum is None:
            self._momentum = hinton_momentum
        return SGD(parameters, lr=DEFAULT_RATE if rate is None else rate, momentum=hinton_momentum(0))

    def _keep(self) -> None:
        if self._run.keeper.path is None:
            return
        self._run.keeper.keep(
            {
                "layer": self._index,
                "begun": self._run.begun,
                "passes": self._sampler.state(),
                "errors": self._result.errors,
                "layers": [
                    {
                        "kind": _kind_name(layer),
                        "parameters": dict(cast(nn.Module, layer).state_dict()),
                        "state": layer.state(),
                    }
                    for layer in self._run.layers
                ],
                "output": None if self._output is None else dict(self._output.state_dict()),
                "optimizer": [type(self._optimizer).__name__, self._optimizer.state_dict()],
            }
        )

    def _restore(self, kept: dict[str, Any]) -> None:
        self._sampler.load_state(kept["passes"])
        if self._output is not None:
            self._output.load_state_dict(kept["output"])
        load_optimizer(self._optimizer, *kept["optimizer"])


def _restored(run: _Run, result: GreedyResult) -> tuple[_Run, dict[str, Any] | None]:
    """Bring layers and errors back from the checkpoint; the state in it of the layer that is trained next, if any."""
    kept = run.keeper.kept()
    if kept is None:
        return run, None
    with fits(run.keeper.path):
        _restore_layers(run.layers, kept)
        result.errors = [[float(error) for error in of_layer] for of_layer in kept["errors"]]
        if type(kept["layer"]) is not int or not 0 <= kept["layer"] < len(result.errors):
            raise ValueError("it does not say what the errors of its layer were")
        return _continued(run, kept)


def _continued(run: _Run, kept: dict[str, Any]) -> tuple[_Run, dict[str, Any] | None]:
    """From where the layers go on: with as many epochs as before from the state that is kept, else see below."""
    count, told = len(run.layers), (kept.get("begun") or 0, run.keeper.before["epochs"])
    begun, then = (for_each(epochs, count, "epochs") for epochs in told)
    check_numbers([("epochs", [-1 if one is None else one for one in begun])])
    run = replace(run, begun=begun)
    if then == run.epochs or kept["layer"] == 0:
        return run, kept  # no layer below has epochs to make up for
    if kept["layer"] < count - 1 or kept["passes"]["epoch"] < then[-1]:
        stopped = f"{run.keeper.path} is of a training that was stopped in layer {kept['layer'] + 1}"
        raise DataError(f"{stopped}: let it finish its {max(then)} epochs first, then train for more")
    run.generator.set_state(kept["passes"]["generator"])
    return replace(run, begun=then), None


def _decayed(layer: Layer, rate: Schedule | None, epochs: int) -> Schedule:
    """The learning rate, or the layer's default, decayed linearly to zero."""
    if callable(rate):
        raise DataError("decay needs a number for the learning rate, not a schedule")
    start = getattr(layer, "default_rate", DEFAULT_RATE) if rate is None else rate
    return linear(start, max(1, epochs))


def _check_fit(layers: Sequence[Layer], label_count: int) -> None:
    if not layers:
        raise DataError("there is no layer to train")
    for index, (below, layer) in enumerate(pairwise(layers), 1):
        inputs = layer.inputs - (label_count if index == len(layers) - 1 else 0)
        if below.outputs != inputs:
            raise DataError(f"layer {index} has {below.outputs} outputs, but layer {index + 1} takes {inputs} inputs")


def _label_count(layers: Sequence[Layer]) -> int:
    """How many label units the top layer has: an RBM's softmax group, or a deep belief net's classes."""
    top = layers[-1] if layers else None
    count: int = getattr(top, "classes", 0) or sum(getattr(top, "groups", ()))
    if not count:
        raise DataError("the top layer has no label units: give it a softmax group, or leave the labels out")
    return count


def _kind_name(layer: Layer) -> str | None:
    """The name of the layer's kind; a deep belief net, which consists of layers, has none."""
    return None if hasattr(layer, "layers") else kind_of(layer).name


def _restore_layers(layers: Sequence[Layer], kept: dict[str, Any]) -> None:
    for number, (layer, held) in enumerate(zip(layers, kept["layers"], strict=True), 1):
        ours = _kind_name(layer)
        if held.get("kind", ours) != ours:  # checkpoints of 0.1.0 name no kinds
            raise ValueError(f"its layer {number} is of the kind {held['kind']!r}, this one of the kind {ours!r}")
        cast(nn.Module, layer).load_state_dict(held["parameters"])
        layer.load_state(held["state"])
