"""Fine-tuning of a whole net, as a classifier or as a deep autoencoder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, Optimizer

from pretrain.checkpoint import Keeper, fits
from pretrain.conjugate import ConjugateGradients
from pretrain.epochs import BatchSampler
from pretrain.objective import Examples, Loss, Objective, Precision, seeded
from pretrain.parallel import batch, current, reduce
from pretrain.rows import Data
from pretrain.schedule import Schedule, at, named, set_rates

GIGABYTE = 1 << 30

Method = Literal["adam", "sgd", "lbfgs", "cg"]

# the rates where none is given; a reconstruction's cost is a sum over many inputs, a classification's one logarithm
RATES: dict[str, tuple[float, float]] = {"adam": (0.001, 0.001), "sgd": (0.1, 0.001), "lbfgs": (1.0, 1.0)}
SMALL_BATCH, LARGE_BATCH = 100, 1000  # the latter where a step searches along lines (Hinton & Salakhutdinov 2006)
LINE_SEARCHES = 3  # a batch (Hinton & Salakhutdinov 2006, supporting text)
LBFGS_ITERATIONS = 20  # a batch
MOMENTUM = 0.9


@dataclass(frozen=True)
class NetProgress:
    """Where fine-tuning stands, as the callbacks see it.

    `on_step`: the gradient is in `.grad`, the optimizer has not stepped yet (of a step that searches along lines, it is
    the gradient where the search begins). `on_epoch`: an epoch is over.
    """

    model: nn.Module
    optimizer: Optimizer
    epoch: int  # from 0
    epochs: int
    step: int  # from 0
    steps_an_epoch: int
    cost: float  # of this batch, or mean over the epoch, with dropout and before each step
    error: float | None  # on the validation set, in `on_epoch` alone


OnProgress = Callable[[NetProgress], None]


@dataclass
class Result:
    """Costs and errors by epoch, and whether the training came to its end.

    A cost is the mean over the training set, in nats or squared units an image. An error is on the validation set: the
    share of wrong answers, or the squared reconstruction error an image.
    """

    costs: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    finished: bool = False

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the least validation error; None without a validation set."""
        return min(range(len(self.errors)), key=self.errors.__getitem__) if self.errors else None


def finetune(
    model: nn.Sequential,
    data: Data,
    targets: Data | None = None,
    *,
    validation: Data | tuple[Data, Data] | None = None,
    loss: Loss | None = None,
    optimizer: Method = "adam",
    learning_rate: Schedule | None = None,
    momentum: Schedule | None = None,
    epochs: int = 20,
    batch_size: int | None = None,
    patience: int | None = None,
    max_norm: float | None = None,
    precision: Precision = "float32",
    generator: torch.Generator | None = None,
    memory: int = GIGABYTE,
    on_step: OnProgress | None = None,
    on_epoch: OnProgress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    checkpoint_every: float = 600.0,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Trains `model` in place on images `data` [n, columns]: to tell their labels `targets` [n], or to rebuild them.

    `validation` is (images, labels), or images alone for a reconstruction. `loss` of a reconstruction is cross-entropy,
    the default for a net that ends in a sigmoid, or squared; both are sums over the inputs, means over the batch. Adam
    and SGD take batches of 100, L-BFGS (20 iterations) and conjugate gradients (3 line searches) of 1,000. `momentum`,
    0.9, is SGD's.

    With `patience`, training stops after so many epochs without a lower validation error, and either way the net ends
    with the weights of the best epoch. `max_norm` bounds the norm of the weights that come into a hidden unit
    (Srivastava et al. 2014, section 5.1). `precision` "bfloat16" takes the matrix products in that type; the
    weights stay in their own.

    Within `pretrain.parallel.processes` the training is data-parallel; dropout then differs from that of one process.

    All randomness is `generator`'s, dropout included; by default one seeded with 0. `memory`, `checkpoint`,
    `checkpoint_every` and `should_stop` are as in `train_greedily`. Stopped by the latter, the net has its latest
    weights.

    Raises `DataError` for data or labels that the net cannot take, before any training, and for a checkpoint that is
    damaged or another training's.
    """
    if optimizer not in get_args(Method):
        raise ValueError(f"optimizer is one of {', '.join(get_args(Method))}, not {optimizer!r}")
    if patience is not None and validation is None:
        raise ValueError("early stopping goes by the validation error: give a validation set")
    objective = Objective(model, loss, classify=targets is not None, precision=precision)
    train = objective.examples(data, targets, memory)
    held_out = None
    if validation is not None:
        images, labels = validation if isinstance(validation, tuple) else (validation, None)
        held_out = objective.examples(images, labels, memory)
    generator = generator or torch.Generator().manual_seed(0)
    size = batch_size or (LARGE_BATCH if optimizer in ("lbfgs", "cg") else SMALL_BATCH)
    if optimizer == "sgd" and momentum is None:
        momentum = MOMENTUM
    settings = {
        "training": "fine-tuning",
        "net": {name: list(value.shape) for name, value in model.state_dict().items()},
        "examples": len(train.rows),
        "loss": "labels" if objective.classify else objective.loss,
        "optimizer": optimizer,
        "learning_rate": named(learning_rate),
        "momentum": named(momentum),
        "epochs": epochs,
        "batch_size": size,
        "patience": patience,
        "max_norm": max_norm,
        "precision": precision,
    }
    return _Training(
        objective,
        train,
        held_out,
        _make_optimizer(model, optimizer, at(learning_rate, 0), objective.classify),
        (learning_rate, momentum),
        BatchSampler(len(train.rows), size, generator),
        generator,
        Keeper(checkpoint, checkpoint_every, settings, clock),
        epochs,
        patience,
        _hidden_weights(model) if max_norm is not None else [],
        max_norm or 0.0,
        on_step,
        on_epoch,
        should_stop,
    ).run()


@dataclass
class _Training:
    """A fine-tuning, which can be left and taken up between any two steps."""

    objective: Objective
    train: Examples
    validation: Examples | None
    optimizer: Optimizer
    rates: tuple[Schedule | None, Schedule | None]
    sampler: BatchSampler
    generator: torch.Generator
    keeper: Keeper
    epochs: int
    patience: int | None
    bounded: list[Tensor]
    max_norm: float
    on_step: OnProgress | None
    on_epoch: OnProgress | None
    should_stop: Callable[[], bool]
    result: Result = field(default_factory=Result)
    best: dict[str, Tensor] = field(default_factory=dict)  # the weights of the best epoch, while there is patience

    def run(self) -> Result:
        kept = self.keeper.kept()
        if kept is not None:
            with fits(self.keeper.path):
                self._restore(kept)
        self.objective.model.train()
        while self.sampler.epoch < self.epochs and not self._out_of_patience():
            if not self._run_epoch():
                self._keep()
                self.objective.model.eval()
                return self.result
        if not self.result.finished:
            self.result.finished = True
            self._keep()
        if self.best:
            self.objective.model.load_state_dict(self.best)
        self.objective.model.eval()
        return self.result

    def _run_epoch(self) -> bool:
        """One epoch, or what is left of it; False if it was stopped."""
        learning_rate, momentum = self.rates
        set_rates(self.optimizer, at(learning_rate, self.sampler.epoch), at(momentum, self.sampler.epoch))
        for indices in self.sampler.batches():
            shard = current().shard(len(indices))
            with batch(shard):
                cost = self._step(indices[shard.own])
            self.sampler.count_step(cost, len(indices))
            if self.sampler.step == self.sampler.steps:
                self._end_epoch()
            stop, due = current().agree(self.should_stop(), self.keeper.due())
            if stop:
                return False
            if due:
                self._keep()
        return True

    def _step(self, indices: Tensor) -> Tensor:
        """One step of the optimizer; returns the cost where it began."""
        batch = self.train.take(indices)
        # one seed for all evaluations of this batch: along a line the same units must be dropped
        seed = int(torch.randint(1 << 62, (1,), generator=self.generator, device=self.generator.device))
        costs: list[Tensor] = []

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            with seeded(seed + current().rank, self.objective.device):
                cost = self.objective.cost(*batch)
            torch.autograd.backward(cost)
            costs.append(reduce(self.objective.model.parameters(), cost.detach()))
            if self.on_step is not None and len(costs) == 1:
                self.on_step(self._progress(costs[0].item(), None))  # waits for the device
            return costs[-1]

        if isinstance(self.optimizer, LBFGS) and self.sampler.steps > 1:
            self.optimizer.state.clear()  # the curvature that it remembers is another batch's
        if isinstance(self.optimizer, (LBFGS, ConjugateGradients)):
            self.optimizer.step(closure)
        else:
            closure()
            self.optimizer.step()
        with torch.no_grad():
            for weight in self.bounded:
                weight.renorm_(2, 0, self.max_norm)
        return costs[0]

    def _end_epoch(self) -> None:
        before = self._progress(0.0, None)
        self.result.costs.append(self.sampler.end_epoch())
        error = None
        if self.validation is not None:
            error = self.objective.error(self.validation)
            self.result.errors.append(error)
            if self.patience is not None and self.result.best_epoch == len(self.result.errors) - 1:
                self.best = {name: value.clone() for name, value in self.objective.model.state_dict().items()}
        if self.on_epoch is not None:
            self.on_epoch(replace(before, cost=self.result.costs[-1], error=error))

    def _out_of_patience(self) -> bool:
        best = self.result.best_epoch
        return self.patience is not None and best is not None and len(self.result.errors) - 1 - best >= self.patience

    def _progress(self, cost: float, error: float | None) -> NetProgress:
        return NetProgress(
            self.objective.model,
            self.optimizer,
            self.sampler.epoch,
            self.epochs,
            self.sampler.done,
            self.sampler.steps,
            cost,
            error,
        )

    def _keep(self) -> None:
        self.keeper.keep(
            {
                "model": dict(self.objective.model.state_dict()),
                "best": self.best,
                "optimizer": self.optimizer.state_dict(),
                "passes": self.sampler.state(),
                "costs": self.result.costs,
                "errors": self.result.errors,
                "finished": self.result.finished,
            }
        )

    def _restore(self, kept: dict[str, Any]) -> None:
        self.objective.model.load_state_dict(kept["model"])
        self.best = kept["best"]
        self.optimizer.load_state_dict(kept["optimizer"])
        self.sampler.load_state(kept["passes"])
        self.result = Result(kept["costs"], kept["errors"], kept["finished"])


def _make_optimizer(model: nn.Module, method: Method, learning_rate: float | None, classify: bool) -> Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if method == "cg":
        return ConjugateGradients(parameters, LINE_SEARCHES)
    rate = RATES[method][0 if classify else 1] if learning_rate is None else learning_rate
    if method == "lbfgs":
        return LBFGS(parameters, lr=rate, max_iter=LBFGS_ITERATIONS, line_search_fn="strong_wolfe")
    return Adam(parameters, lr=rate) if method == "adam" else SGD(parameters, lr=rate, momentum=MOMENTUM)


def _hidden_weights(model: nn.Module) -> list[Tensor]:
    """The weights [units, inputs] of all linear layers but the last, whose units are no hidden ones."""
    return [module.weight for module in model.modules() if isinstance(module, nn.Linear)][:-1]
