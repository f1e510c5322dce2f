"""Fine-tuning of a whole net, as a classifier or as a deep autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, Optimizer

from pretrain.checkpoint import Keeper, fits
from pretrain.choices import Optimizer as OptimizerName
from pretrain.conjugate import ConjugateGradients
from pretrain.epochs import BatchSampler
from pretrain.errors import DataError
from pretrain.objective import Examples, Objective, seeded
from pretrain.parallel import batch, current, reduce
from pretrain.regularisation import EarlyStopping, limit_norms
from pretrain.rows import Data
from pretrain.schedule import Schedule, at, linear, named, set_rates
from pretrain.settings import FinetuneSettings, with_changes

# default rates, to classify and to reconstruct, whose cost is a sum over many inputs
RATES: dict[str, tuple[float, float]] = {"adam": (0.001, 0.001), "sgd": (0.1, 0.001), "lbfgs": (1.0, 1.0)}
SMALL_BATCH, LARGE_BATCH = 100, 1000  # the latter where a step searches along lines (Hinton & Salakhutdinov 2006)
LINE_SEARCHES = 3  # a batch (Hinton & Salakhutdinov 2006, supporting text)
LBFGS_ITERATIONS = 20  # a batch
MOMENTUM = 0.9


@dataclass(frozen=True)
class NetProgress:
    """The progress of fine-tuning, for callbacks.

    `on_step`: the gradient is in `.grad`, the optimizer has not stepped yet (of a step that searches along lines, it is
    the gradient where the search begins). `on_epoch`: an epoch has ended.
    """

    model: nn.Module
    optimizer: Optimizer
    epoch: int  # from 0
    epochs: int
    step: int  # from 0
    steps_an_epoch: int
    cost: float  # of this batch, or mean over the epoch, with dropout and before each step
    error: float | None  # on the validation set, only in `on_epoch`


OnProgress = Callable[[NetProgress], None]


@dataclass
class Result:
    """Costs and errors by epoch, and whether the training finished.

    A cost is the mean over the training set, in nats or squared units per example. An error is on the validation set:
    the error rate, or the squared reconstruction error per example.
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
    settings: FinetuneSettings | None = None,
    *,
    validation: Data | tuple[Data, Data] | None = None,
    **changes: Any,
) -> Result:
    """Train `model` in place on `data` [n, columns]: to classify them by labels `targets` [n], or to reconstruct them.

    `validation` is (data, labels), or data alone for a reconstruction. `settings`, and keywords that change them, are
    those of `FinetuneSettings`.

    `loss` of a reconstruction is cross-entropy, the default for a net that ends in a sigmoid, or squared; both are sums
    over the inputs, means over the batch. Adam and SGD take batches of 100, L-BFGS (20 iterations) and conjugate
    gradients (3 line searches) of 1,000. `momentum`, 0.9, is SGD's. `decay` decays the learning rate linearly to zero.

    With `patience`, training stops after so many epochs without a lower validation error, and either way the net ends
    with the weights of the best epoch. `max_norm` bounds the norm of a hidden unit's incoming weights (Srivastava et
    al. 2014, section 5.1). `precision` "bfloat16" computes the matrix products in that type; the weights keep their
    own.

    Within `pretrain.parallel.processes` the training is data-parallel; dropout then differs from that of one process.

    All randomness is `generator`'s, dropout included; by default one seeded with 0. `memory`, `checkpoint`,
    `checkpoint_every` and `should_stop` are as in `train_greedily`. Stopped by the latter, the net has its latest
    weights. A net that has finished goes on if there are more `epochs` than the checkpoint has; without a checkpoint,
    `epochs_before` says from which epoch.

    Raises `TypeError` for unknown keywords, and `DataError` for data or labels that the net cannot take, before any
    training, and for a checkpoint that is damaged or belongs to another training.
    """
    chosen = with_changes("finetune", FinetuneSettings, settings, changes)
    if chosen.patience is not None and validation is None:
        raise DataError("early stopping needs a validation set, whose error it watches")
    objective = Objective(model, chosen.loss, classify=targets is not None, precision=chosen.precision)
    train = objective.examples(data, targets, chosen.memory)
    held_out = None
    if validation is not None:
        images, labels = validation if isinstance(validation, tuple) else (validation, None)
        held_out = objective.examples(images, labels, chosen.memory)
    return _Training(objective, train, held_out, chosen).run()


class _Training:
    """A fine-tuning, which can be stopped and continued between any two steps."""

    def __init__(
        self, objective: Objective, train: Examples, validation: Examples | None, settings: FinetuneSettings
    ) -> None:
        self._objective, self._train, self._validation, self._settings = objective, train, validation, settings
        self._generator = settings.generator or torch.Generator().manual_seed(0)
        self._learning_rate, self._momentum = _schedules(settings, objective.classify)
        size = settings.batch_size or (LARGE_BATCH if settings.optimizer in ("lbfgs", "cg") else SMALL_BATCH)
        self._sampler = BatchSampler(len(train.rows), size, self._generator)
        self._sampler.epoch = settings.epochs_before
        rate = at(self._learning_rate, 0)
        self._optimizer = _make_optimizer(objective.model, settings.optimizer, rate, objective.classify)
        self._bounded = _hidden_weights(objective.model) if settings.max_norm is not None else []
        self._stopping = EarlyStopping(settings.patience)
        self._result = Result()
        same = {
            "training": "fine-tuning",
            "net": {name: list(value.shape) for name, value in objective.model.state_dict().items()},
            "examples": len(train.rows),
            "loss": "labels" if objective.classify else objective.loss,
            "optimizer": settings.optimizer,
            "learning_rate": named(self._learning_rate),
            "momentum": named(self._momentum),
            "epochs": settings.epochs,
            "epochs_before": settings.epochs_before or None,
            "batch_size": size,
            "patience": settings.patience,
            "max_norm": settings.max_norm,
            "precision": settings.precision,
        }
        self._keeper = Keeper(settings.checkpoint, settings.checkpoint_every, same, settings.clock)

    def run(self) -> Result:
        kept = self._keeper.kept()
        if kept is not None:
            with fits(self._keeper.path):
                self._restore(kept)
        elif self._settings.epochs_before and self._validation is not None:
            # the weights that it has are kept where none of the next epochs has better ones
            self._stopping.see(self._sampler.epoch - 1, -self._objective.error(self._validation), self._objective.model)
        model = self._objective.model.train()
        while self._sampler.epoch < self._settings.epochs and not self._stopping.has_waited_enough:
            if not self._run_epoch():
                self._keep()
                model.eval()
                return self._result
        if not self._result.finished:
            self._result.finished = True
            self._keep()
        self._stopping.restore(model)
        model.eval()
        return self._result

    def _run_epoch(self) -> bool:
        """One epoch, or what is left of it; False if it was stopped."""
        epoch = self._sampler.epoch
        set_rates(self._optimizer, at(self._learning_rate, epoch), at(self._momentum, epoch))
        for indices in self._sampler.batches():
            shard = current().shard(len(indices))
            with batch(shard):
                cost = self._step(indices[shard.own])
            self._sampler.count_step(cost, len(indices))
            if self._sampler.step == self._sampler.steps:
                self._end_epoch()
            stop, due = current().agree(self._settings.should_stop(), self._keeper.due())
            if stop:
                return False
            if due:
                self._keep()
        return True

    def _step(self, indices: Tensor) -> Tensor:
        """One step of the optimizer; returns the cost where it began."""
        batch = self._train.take(indices)
        # one seed for all evaluations of this batch: along a line search the same units must be dropped
        seed = int(torch.randint(1 << 62, (1,), generator=self._generator, device=self._generator.device))
        costs: list[Tensor] = []

        def closure() -> Tensor:
            self._optimizer.zero_grad()
            with seeded(seed + current().rank, self._objective.device):
                cost = self._objective.cost(*batch)
            torch.autograd.backward(cost)
            costs.append(reduce(self._objective.model.parameters(), cost.detach()))
            if self._settings.on_step is not None and len(costs) == 1:
                self._settings.on_step(self._progress(costs[0].item(), None))  # waits for the device
            return costs[-1]

        if isinstance(self._optimizer, LBFGS) and self._sampler.steps > 1:
            self._optimizer.state.clear()  # the curvature that it holds is another batch's
        if isinstance(self._optimizer, (LBFGS, ConjugateGradients)):
            self._optimizer.step(closure)
        else:
            closure()
            self._optimizer.step()
        if self._settings.max_norm is not None:
            limit_norms(self._bounded, self._settings.max_norm)
        return costs[0]

    def _end_epoch(self) -> None:
        before = self._progress(0.0, None)
        self._result.costs.append(self._sampler.end_epoch())
        error = None
        if self._validation is not None:
            error = self._objective.error(self._validation)
            self._result.errors.append(error)
            self._stopping.see(before.epoch, -error, self._objective.model)
        if self._settings.on_epoch is not None:
            self._settings.on_epoch(replace(before, cost=self._result.costs[-1], error=error))

    def _progress(self, cost: float, error: float | None) -> NetProgress:
        return NetProgress(
            self._objective.model,
            self._optimizer,
            self._sampler.epoch,
            self._settings.epochs,
            self._sampler.done,
            self._sampler.steps,
            cost,
            error,
        )

    def _keep(self) -> None:
        self._keeper.keep(
            {
                "model": dict(self._objective.model.state_dict()),
                "best": self._stopping.weights,
                "optimizer": self._optimizer.state_dict(),
                "passes": self._sampler.state(),
                "costs": self._result.costs,
                "errors": self._result.errors,
                "finished": self._result.finished,
            }
        )

    def _restore(self, kept: dict[str, Any]) -> None:
        self._objective.model.load_state_dict(kept["model"])
        self._optimizer.load_state_dict(kept["optimizer"])
        self._sampler.load_state(kept["passes"])
        finished = kept["finished"] and self._keeper.before["epochs"] == self._settings.epochs
        self._result = Result(kept["costs"], kept["errors"], finished)
        for epoch, error in enumerate(self._result.errors):
            self._stopping.see(epoch, -error)
        self._stopping.weights = kept["best"]


def _make_optimizer(model: nn.Module, method: OptimizerName, learning_rate: float | None, classify: bool) -> Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if method == "cg":
        return ConjugateGradients(parameters, LINE_SEARCHES)
    rate = RATES[method][0 if classify else 1] if learning_rate is None else learning_rate
    if method == "lbfgs":
        return LBFGS(parameters, lr=rate, max_iter=LBFGS_ITERATIONS, line_search_fn="strong_wolfe")
    return Adam(parameters, lr=rate) if method == "adam" else SGD(parameters, lr=rate, momentum=MOMENTUM)


def _schedules(settings: FinetuneSettings, classify: bool) -> tuple[Schedule | None, Schedule | None]:
    """The learning rate and the momentum; None leaves the optimizer's."""
    rate, momentum = settings.learning_rate, settings.momentum
    if settings.optimizer == "sgd" and momentum is None:
        momentum = MOMENTUM
    if settings.decay and settings.optimizer != "cg":
        if callable(rate):
            raise DataError("decay needs a number for the learning rate, not a schedule")
        start = RATES[settings.optimizer][0 if classify else 1] if rate is None else rate
        rate = linear(start, max(1, settings.epochs))
    return rate, momentum


def _hidden_weights(model: nn.Module) -> list[Tensor]:
    """The weights [units, inputs] of all linear layers but the last, whose units are not hidden ones."""
    return [module.weight for module in model.modules() if isinstance(module, nn.Linear)][:-1]
