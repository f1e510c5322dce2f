"""Greedy layer-wise training: each layer learns from what the layers below make of the data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own name for it
from torch.optim import SGD, Optimizer

from pretrain.checkpoint import Keeper, fits
from pretrain.data import DataError
from pretrain.epochs import BatchSampler
from pretrain.nets import output_layer
from pretrain.parallel import batch, current, reduce
from pretrain.rows import Data, Labelled, Mapped, Rows, bytes_of, check_rows, gathered, rows_of
from pretrain.schedule import Schedule, at, for_each, hinton_momentum, load_optimizer, named, set_rates
from pretrain.targets import Targets, check_labels, targets_of

GIGABYTE = 1 << 30
FEW = 10_000  # rows that a layer sees to set its first parameters by

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
PassOn = Literal["probabilities", "samples"]


class Layer(Protocol):
    """What can be trained greedily: an `nn.Module` with these, such as `RBM` and `Autoencoder`."""

    inputs: int
    outputs: int

    def encode(self, x: Tensor) -> Tensor:
        """What the layer above learns from: probabilities or values [batch, outputs]."""

    def sample_code(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The same, drawn at random [batch, outputs]."""

    def decode(self, h: Tensor) -> Tensor:
        """The inputs [batch, inputs] as a code [batch, outputs] has them."""

    def fill_gradient(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Puts the gradient of the cost, mean over the batch, into `.grad`.

        Returns [] the squared reconstruction error, mean over the images. In data-parallel training both are means over
        all processes (`pretrain.parallel`).
        """

    def check(self, x: Tensor) -> None:
        """Raises `DataError` for what this layer cannot learn from."""

    def encoder(self) -> list[nn.Module]:
        """`encode` as plain modules, with copies of the weights."""

    def decoder(self) -> list[nn.Module]:
        """`decode` as plain modules, with copies of the weights."""

    def state(self) -> dict[str, Tensor]:
        """What training carries from step to step beside the parameters."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes what `state` gave."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As `nn.Module` has it."""


@runtime_checkable
class OwnOptimizer(Protocol):
    """A layer that knows which optimizer suits it."""

    def default_optimizer(
        self, parameters: Iterable[nn.Parameter], learning_rate: float | None, momentum: float | None
    ) -> Optimizer:
        """One for these parameters, with what is not None; the rest is the layer's own choice."""

    def default_momentum(self) -> Schedule | None:
        """The momentum where none is given; None leaves it to `default_optimizer`."""


@runtime_checkable
class OwnStart(Protocol):
    """A layer whose first parameters depend on the data."""

    def start_from(self, x: Tensor) -> None:
        """Sets them by these examples [n, inputs], unless they were set before."""


@dataclass(frozen=True)
class LayerProgress:
    """Where the training of a layer stands, as the callbacks see it.

    `on_layer`: the layer is about to begin, or to go on after a checkpoint. `on_step`: the gradient is in `.grad`, the
    optimizer has not stepped yet. `on_epoch`: an epoch is over.
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
    """The errors [layer][epoch], and whether the training came to its end.

    The error is the squared reconstruction error an image; in supervised training, the cross-entropy a label, in nats.
    """

    errors: list[list[float]] = field(default_factory=list)
    finished: bool = False


@dataclass(frozen=True)
class _Settings:
    """What stays the same from layer to layer."""

    layers: Sequence[Layer]
    labels: Targets | None
    classes: int
    batch_size: int
    generator: torch.Generator
    keeper: Keeper
    on_step: OnProgress | None
    on_epoch: OnProgress | None
    on_layer: OnProgress | None
    should_stop: Callable[[], bool]

    def few(self, rows: Rows) -> Tensor:
        """Some rows from all over; looking at them draws nothing."""
        state = self.generator.get_state()
        step = max(1, len(rows) // FEW)
        x = rows.take(torch.arange(0, len(rows), step)[:FEW])
        self.generator.set_state(state)
        return x


def train_greedily(
    layers: Sequence[Layer],
    data: Data,
    *,
    targets: Data | None = None,
    label_units: Data | None = None,
    epochs: int | Sequence[int] = 10,
    batch_size: int = 100,
    optimizer: OptimizerFactory | None = None,
    learning_rate: Schedule | Sequence[Schedule | None] | None = None,
    momentum: Schedule | Sequence[Schedule | None] | None = None,
    pass_on: PassOn = "probabilities",
    generator: torch.Generator | None = None,
    memory: int = GIGABYTE,
    on_step: OnProgress | None = None,
    on_epoch: OnProgress | None = None,
    on_layer: OnProgress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    checkpoint_every: float = 600.0,
    clock: Callable[[], float] = time.monotonic,
) -> GreedyResult:
    """Trains each of `layers` in its place, from the lowest up, on `data` [n, columns] (Hinton et al. 2006, Bengio et
    al. 2007).

    With `targets`, labels [n], it is the supervised way (Bengio et al. 2007, section 4.2 and appendix): each layer
    learns together with an output layer that guesses the label, which is then thrown away. The layers' `encode` must
    carry gradients for that.

    With `label_units`, labels [n], the top layer, a machine with a softmax group for its last visible units, learns
    them beside the features (Hinton et al. 2006, section 5).

    `epochs`, `learning_rate` and `momentum` may differ from layer to layer, the latter two from epoch to epoch. Without
    `optimizer` each layer has its own choice; one without any has SGD with rate 0.1 and `hinton_momentum`.

    Layers learn from the probabilities of those below, or from samples, drawn afresh whenever they are shown. Data and
    features that fit into `memory` bytes are read once and kept there; larger ones stream through the layers below,
    batch by batch, to the same result but for rounding. (Samples are never kept.)

    Within `pretrain.parallel.processes` the training is data-parallel: each process takes its part of every batch.

    All randomness is `generator`'s, on the layers' device; by default one seeded with 0. With `checkpoint`, the state
    is kept in that file every `checkpoint_every` seconds, at the end of each layer, and when `should_stop`, asked after
    every step, says so. If there is such a file, training goes on from it; on a CPU it ends with the same weights, bit
    for bit, as if it had never stopped.

    Raises `DataError` for data that the lowest layer cannot take, before any training, layers that do not fit
    together, and a checkpoint that is damaged or another training's.
    """
    label_count = 0 if label_units is None else _label_count(layers)
    _check_fit(layers, label_count)
    count = len(layers)
    lengths, rates = for_each(epochs, count, "epochs"), for_each(learning_rate, count, "learning_rate")
    momenta = for_each(momentum, count, "momentum")
    first = next(layers[0].parameters())
    if generator is None:
        generator = torch.Generator(first.device).manual_seed(0)
    rows = rows_of(data, first.device, first.dtype)
    tags = None
    if label_units is not None:
        tags = targets_of(label_units, len(rows), first.device)
        check_labels(tags, label_count)
        rows = Labelled(rows, tags.labels, label_count) if count == 1 else rows
    check_rows(rows, layers[0].check)
    labels = None if targets is None else targets_of(targets, len(rows), first.device)
    classes = 0 if labels is None else check_labels(labels)
    settings = {
        "training": "greedy" if labels is None else "greedy, supervised",
        "layers": [[layer.inputs, layer.outputs] for layer in layers],
        "examples": len(rows),
        "label_units": label_count,
        "epochs": lengths,
        "batch_size": batch_size,
        "learning_rate": [named(rate) for rate in rates],
        "momentum": [named(rate) for rate in momenta],
        "pass_on": pass_on,
    }
    keeper = Keeper(checkpoint, checkpoint_every, settings, clock)
    shared = _Settings(
        layers, labels, classes, batch_size, generator, keeper, on_step, on_epoch, on_layer, should_stop
    )  # fmt: skip
    features = _Features(rows, pass_on, memory, generator, first.dtype)
    kept, result = keeper.kept(), GreedyResult()
    if kept is not None:
        with fits(checkpoint):
            _restore_layers(layers, kept)
        result.errors = kept["errors"]
    for index, layer in enumerate(layers):
        if kept is None or index >= kept["layer"]:
            if index and tags is not None and index == count - 1:
                features.rows = Labelled(features.rows, tags.labels, label_count)
            if index:
                features.check(layer)
            training = _LayerTraining(shared, index, lengths[index], rates[index], momenta[index], optimizer, result)
            if not training.run(features.rows, kept if kept and index == kept["layer"] else None):
                return result
        if index + 1 < count:
            features.pass_through(layer)
    result.finished = True
    return result


class _LayerTraining:
    """The training of one layer, which can be left and taken up between any two steps."""

    def __init__(
        self,
        shared: _Settings,
        index: int,
        epochs: int,
        learning_rate: Schedule | None,
        momentum: Schedule | None,
        factory: OptimizerFactory | None,
        result: GreedyResult,
    ) -> None:
        self._shared, self._index, self._epochs, self._result = shared, index, epochs, result
        self._learning_rate, self._momentum = learning_rate, momentum
        self._layer = shared.layers[index]
        self._output: nn.Linear | None = None
        if shared.labels is not None:
            example = next(self._layer.parameters())
            self._output = output_layer(self._layer.outputs, shared.classes, example, shared.generator)
        self._optimizer = self._make_optimizer(factory)

    def run(self, rows: Rows, kept: dict[str, Any] | None) -> bool:
        """Trains to the end of the layer; False if it was stopped before."""
        shared = self._shared
        self._sampler = BatchSampler(len(rows), shared.batch_size, shared.generator)
        if kept is None:
            self._result.errors.append([])
            if isinstance(self._layer, OwnStart) and self._output is None:
                self._layer.start_from(shared.few(rows))
        else:
            with fits(shared.keeper.path):
                self._restore(kept)
        if shared.on_layer is not None and self._sampler.epoch < self._epochs:
            shared.on_layer(self._progress(None))
        while self._sampler.epoch < self._epochs:
            if not self._run_epoch(rows):
                self._keep()
                return False
        self._keep()
        return True

    def _run_epoch(self, rows: Rows) -> bool:
        """One epoch, or what is left of it; False if it was stopped."""
        shared, sampler = self._shared, self._sampler
        set_rates(self._optimizer, at(self._learning_rate, sampler.epoch), at(self._momentum, sampler.epoch))
        for indices in sampler.batches():
            shard = current().shard(len(indices))
            with batch(shard):
                own = indices[shard.own]
                error = self._fill_gradient(rows.take(own), own)
            if shared.on_step is not None:
                shared.on_step(self._progress(error.item()))  # waits for the device
            self._optimizer.step()
            sampler.count_step(error, len(indices))
            if sampler.step == sampler.steps:
                self._end_epoch()
            stop, due = current().agree(shared.should_stop(), shared.keeper.due())
            if stop:
                return False
            if due:
                self._keep()
        return True

    def _end_epoch(self) -> None:
        before = self._progress(None)
        mean = self._sampler.end_epoch()
        self._result.errors[self._index].append(mean)
        if self._shared.on_epoch is not None:
            self._shared.on_epoch(replace(before, error=mean))

    def _fill_gradient(self, x: Tensor, indices: Tensor) -> Tensor:
        if self._output is None:
            return self._layer.fill_gradient(x, self._shared.generator)
        assert self._shared.labels is not None
        self._optimizer.zero_grad()
        code = self._layer.encode(x)
        if not code.requires_grad:
            raise ValueError(f"{type(self._layer).__name__}.encode carries no gradients: train it without targets")
        cost = F.cross_entropy(self._output(code), self._shared.labels.take(indices))
        torch.autograd.backward(cost)
        return reduce([*self._layer.parameters(), *self._output.parameters()], cost.detach())

    def _progress(self, error: float | None) -> LayerProgress:
        return LayerProgress(
            cast(nn.Module, self._layer),
            self._index,
            len(self._shared.layers),
            self._optimizer,
            self._sampler.epoch,
            self._epochs,
            self._sampler.done,
            self._sampler.steps,
            error,
            self._output,
        )

    def _make_optimizer(self, factory: OptimizerFactory | None) -> Optimizer:
        parameters = list(self._layer.parameters())
        if self._output is not None:
            parameters += self._output.parameters()
        if factory is not None:
            return factory(parameters)
        rate = at(self._learning_rate, 0)
        if isinstance(self._layer, OwnOptimizer):
            if self._momentum is None:
                self._momentum = self._layer.default_momentum()
            return self._layer.default_optimizer(parameters, rate, at(self._momentum, 0))
        if self._momentum is None:
            self._momentum = hinton_momentum
        return SGD(parameters, lr=0.1 if rate is None else rate, momentum=hinton_momentum(0))

    def _keep(self) -> None:
        self._shared.keeper.keep(
            {
                "layer": self._index,
                "passes": self._sampler.state(),
                "errors": self._result.errors,
                "layers": [
                    {"parameters": dict(cast(nn.Module, layer).state_dict()), "state": layer.state()}
                    for layer in self._shared.layers
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


class _Features:
    """What the next layer learns from: the data, passed through the layers already trained."""

    def __init__(
        self, rows: Rows, pass_on: PassOn, memory: int, generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        self._pass_on, self._memory, self._generator, self._dtype = pass_on, memory, generator, dtype
        self._held = 0  # bytes that are ours, not the caller's
        self._below: list[Layer] = []  # between the base and the layer in training
        self._base = self._kept(rows)
        if self._base is not rows:
            self._held = bytes_of(rows, dtype)
        self.rows: Rows = self._base

    def pass_through(self, layer: Layer) -> None:
        """Adds a trained layer."""
        self._below.append(layer)
        below = list(self._below)
        self.rows = Mapped(self._base, lambda x: self._pass(below, x), layer.outputs)
        if self._pass_on == "probabilities":
            kept = self._kept(self.rows)
            if kept is not self.rows:
                self._base, self.rows, self._below = kept, kept, []
                self._held = bytes_of(kept, self._dtype)

    def check(self, layer: Layer) -> None:
        """Whether the layer can learn from these features; of those that stream, it looks at the first rows."""
        if isinstance(self.rows, (Mapped, Labelled)):
            state = self._generator.get_state()
            layer.check(self.rows.slice(0, min(len(self.rows), 1000)))
            self._generator.set_state(state)  # looking must not change the training
        else:
            check_rows(self.rows, layer.check)

    def _pass(self, layers: Sequence[Layer], x: Tensor) -> Tensor:
        with torch.no_grad():
            for layer in layers:
                x = layer.encode(x) if self._pass_on == "probabilities" else layer.sample_code(x, self._generator)
        return x

    def _kept(self, rows: Rows) -> Rows:
        return gathered(rows) if self._held + bytes_of(rows, self._dtype) <= self._memory else rows


def _check_fit(layers: Sequence[Layer], label_count: int) -> None:
    if not layers:
        raise DataError("there is no layer to train")
    for index, (below, layer) in enumerate(pairwise(layers), 1):
        inputs = layer.inputs - (label_count if index == len(layers) - 1 else 0)
        if below.outputs != inputs:
            raise DataError(f"layer {index} has {below.outputs} outputs, but layer {index + 1} takes {inputs} inputs")


def _label_count(layers: Sequence[Layer]) -> int:
    """How many label units the top layer has: a machine's softmax group, or a deep belief net's classes."""
    top = layers[-1] if layers else None
    count: int = getattr(top, "classes", 0) or sum(getattr(top, "groups", ()))
    if not count:
        raise DataError("the top layer has no label units: give it a softmax group, or leave the labels out")
    return count


def _restore_layers(layers: Sequence[Layer], kept: dict[str, Any]) -> None:
    for layer, held in zip(layers, kept["layers"], strict=True):
        cast(nn.Module, layer).load_state_dict(held["parameters"])
        layer.load_state(held["state"])
