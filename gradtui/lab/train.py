"""One recipe, trained and recorded. `python -m gradtui.lab.train` is the process that the viewer starts."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradtui.errors import DataMissingError, GradtuiError
from gradtui.lab.launch import data_folder
from gradtui.lab.models import build
from gradtui.lab.recipe import Recipe
from gradtui.record.recorder import Recorder, watch
from gradtui.runfile import Outcome
from pretrain.data import DataError, Dataset, Split, digits, mnist

# Multiply-adds a step up to which one thread is taken. Two wait for each other after each small product: beside another
# busy process they took five to fifty times as long as one
TINY = 100_000_000
STEPS_AFTER_NAN = 50  # what a run shows of a training that has diverged
PROGRESS_EVERY = 0.1  # s
EVALUATIONS = 200  # of cost and accuracy at most, spread evenly over the epochs: each takes a pass over all images


@dataclass(frozen=True)
class Progress:
    """Where a training stands; `loss` is the cost over all training images as last measured, None before that."""

    step: int
    total_steps: int
    epoch: int
    total_epochs: int
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Result:
    """How a training ended; the accuracies are shares of the validation and the test images (None for `point`)."""

    outcome: Outcome
    detail: str
    path: Path | None
    steps: int
    loss: float | None
    accuracy: float | None
    test_accuracy: float | None


@dataclass(frozen=True)
class _Tensors:
    """The data as tensors, resident; `targets` are one-hot for sigmoid outputs and labels for softmax."""

    images: Tensor
    targets: Tensor
    validation: tuple[Tensor, Tensor] | None
    test: tuple[Tensor, Tensor] | None


def train(
    recipe: Recipe,
    *,
    path: Path | None = None,
    folder: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train a recipe and record it into `path`, or into a new run in `folder`.

    Stops early when `should_stop` says so, when a viewer asks for it, or when the loss has become NaN. Raises
    `DataMissingError` if the data are not there.
    """
    tensors = _load(recipe)
    torch.set_num_threads(recipe.threads or _fitting_threads(recipe, len(tensors.images)))
    generator = torch.Generator().manual_seed(recipe.seed)
    model = build(recipe, generator)
    optimizer = _optimizer(recipe, model, len(tensors.images))
    steps_each = math.ceil(len(tensors.images) / (recipe.batch_size or len(tensors.images)))
    recorder = watch(
        model,
        optimizer,
        every=recipe.every,
        budget=recipe.budget,
        name=recipe.title,
        path=path,
        folder=folder,
        recipe=recipe.to_json(),
        total_epochs=recipe.epochs,
        total_steps=steps_each * recipe.epochs,
        log_file=str(path.with_suffix(".log")) if path is not None else None,
        takes_commands=("stop",),
    )
    with recorder:
        trainer = _Trainer(recipe, model, optimizer, tensors, recorder, generator)
        outcome, detail = trainer.run(on_progress, lambda: should_stop() or recorder.stop_requested)
        test_accuracy = _accuracy(model, tensors.test)
        recorder.close(outcome, detail)
    return Result(outcome, detail, recorder.path, trainer.step, trainer.loss, trainer.accuracy, test_accuracy)


class _Trainer:
    """The loop; nothing in it waits for a number but the end of an epoch."""

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        tensors: _Tensors,
        recorder: Recorder,
        generator: torch.Generator,
    ) -> None:
        self.step = 0
        self.loss: float | None = None
        self.accuracy: float | None = None
        self._recipe = recipe
        self._model = model
        self._optimizer = optimizer
        self._tensors = tensors
        self._recorder = recorder
        self._generator = generator
        self._cost = _COSTS[recipe.cost]
        self._told = 0.0

    def run(
        self, on_progress: Callable[[Progress], None] | None, should_stop: Callable[[], bool]
    ) -> tuple[Outcome, str]:
        """Train; how it ended."""
        count = len(self._tensors.images)
        size = self._recipe.batch_size or count
        steps_each = math.ceil(count / size)
        total = steps_each * self._recipe.epochs
        diverged_at: int | None = None
        for epoch in range(self._recipe.epochs):
            images, targets = self._shuffled(count, size)
            for start in range(0, count, size):
                if should_stop():
                    return "stopped", f"asked to stop at step {self.step:,} of {total:,}"
                self._recorder.log(epoch=epoch + start / count)
                loss = self._one_step(images[start : start + size], targets[start : start + size])
                # math.isfinite would wait for a device; the lab trains on the CPU, where it reads one number
                if diverged_at is None and not math.isfinite(loss):
                    diverged_at = self.step
                if diverged_at is not None and self.step >= diverged_at + STEPS_AFTER_NAN:
                    return "stopped", f"diverged: the loss is not finite since step {diverged_at:,}"
                if on_progress is not None and time.monotonic() - self._told > PROGRESS_EVERY:
                    self._tell(on_progress, epoch, total)
            if (epoch + 1) % -(-self._recipe.epochs // EVALUATIONS) == 0 or epoch + 1 == self._recipe.epochs:
                self._evaluate(epoch + 1, images, targets)
            if on_progress is not None:
                self._tell(on_progress, epoch + 1, total)
        return (
            ("finished", "")
            if diverged_at is None
            else ("stopped", f"diverged: the loss is not finite since step {diverged_at:,}")
        )

    def _one_step(self, images: Tensor, targets: Tensor) -> float:
        loss = self._cost(self._model(images), targets)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        value = loss.item()
        self._recorder.log(loss=value)
        self._optimizer.step()
        self.step += 1
        return value

    def _shuffled(self, count: int, size: int) -> tuple[Tensor, Tensor]:
        if size >= count:  # the order of a full batch changes nothing but rounding
            return self._tensors.images, self._tensors.targets
        order = torch.randperm(count, generator=self._generator)
        return self._tensors.images[order], self._tensors.targets[order]

    def _evaluate(self, epoch: int, images: Tensor, targets: Tensor) -> None:
        with torch.no_grad():
            self.loss = float(self._cost(self._model(images), targets))
        self.accuracy = _accuracy(self._model, self._tensors.validation)
        self._recorder.log(epoch=epoch, train_cost=self.loss)
        if self.accuracy is not None:
            self._recorder.log(val_accuracy=self.accuracy)

    def _tell(self, on_progress: Callable[[Progress], None], epoch: int, total: int) -> None:
        self._told = time.monotonic()
        on_progress(Progress(self.step, total, epoch, self._recipe.epochs, self.loss, self.accuracy))


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed over the outputs, averaged over the images; the sigmoid is in it (Nielsen 2015, eq. 63)."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


def _quadratic(logits: Tensor, targets: Tensor) -> Tensor:
    """½‖y − σ(z)‖², averaged over the images (Nielsen 2015, eq. 6)."""
    return functional.mse_loss(torch.sigmoid(logits), targets, reduction="sum") / (2 * len(logits))


_COSTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": _cross_entropy,
    "softmax": functional.cross_entropy,
    "quadratic": _quadratic,
}


def _optimizer(recipe: Recipe, model: nn.Module, images: int) -> torch.optim.Optimizer:
    """SGD; weights decay by λ/n, biases do not (Nielsen 2015, eq. 93)."""
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in model.named_parameters() if not name.endswith("weight")]
    groups = [{"params": weights, "weight_decay": recipe.l2 / images}, {"params": biases, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.rate, momentum=recipe.momentum)


def _load(recipe: Recipe) -> _Tensors:
    dtype = torch.float64 if recipe.dtype == "float64" else torch.float32
    if recipe.data == "point":
        one = torch.tensor([[recipe.point]], dtype=dtype)
        return _Tensors(one, torch.ones(1, 1, dtype=dtype), None, None)
    dataset = _dataset(recipe)
    training = dataset.train.first(recipe.train_size)
    images, labels = _pair(training, dtype)
    one_hot = recipe.cost != "softmax"
    targets = functional.one_hot(labels, dataset.classes).to(dtype) if one_hot else labels
    return _Tensors(images, targets, _pair(dataset.validation, dtype), _pair(dataset.test, dtype))


def _dataset(recipe: Recipe) -> Dataset:
    try:
        if recipe.data == "digits":
            return digits()
        folder = data_folder(recipe)
        return mnist(None if folder is None else Path(folder).expanduser(), recipe.train_size)
    except DataError as error:
        raise DataMissingError(str(error)) from error


def _pair(split: Split, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(split.images).to(dtype), torch.from_numpy(split.labels)


def _accuracy(model: nn.Module, pair: tuple[Tensor, Tensor] | None) -> float | None:
    if pair is None:
        return None
    with torch.no_grad():
        return float((model(pair[0]).argmax(dim=1) == pair[1]).double().mean())


def _fitting_threads(recipe: Recipe, images: int) -> int:
    if min(recipe.batch_size or images, images) * recipe.parameters <= TINY:
        return 1
    return torch.get_num_threads()


class StopOnSignal:
    """Asks the training to stop at the first SIGTERM or SIGINT, so that its run ends well; the second one kills."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.number = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self.asked.set()
        signal.signal(number, signal.SIG_DFL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the recipe that is given as JSON into the run file that is named; returns the exit code."""
    parser = argparse.ArgumentParser("python -m gradtui.lab.train", description=main.__doc__)
    parser.add_argument("--file", type=Path, required=True, help="the run file to make")
    parser.add_argument("--recipe", required=True, help="the recipe as JSON")
    options = parser.parse_args(arguments)
    signals = StopOnSignal()
    try:
        recipe = Recipe.from_json(json.loads(options.recipe))
        result = train(recipe, path=options.file, should_stop=signals.asked.is_set)
    except GradtuiError as error:
        print(f"gradtui: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{result.outcome} after {result.steps:,} steps {result.detail}".strip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
