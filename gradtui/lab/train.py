"""One recipe, trained and recorded. `python -m gradtui.lab.train` is the process that the viewer starts."""

from __future__ import annotations

import argparse
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from gradtui.errors import GradtuiError, say_on_stderr
from gradtui.format import printable
from gradtui.lab.costs import COSTS, share_right, training_cost
from gradtui.lab.descent import Descent
from gradtui.lab.models import build, lsuv
from gradtui.lab.pretraining import pretrain_layers
from gradtui.lab.recipe import Recipe
from gradtui.lab.recurrent import Recurrent, build_recurrent
from gradtui.lab.tensors import Tensors, load, sequences_of_epoch
from gradtui.options import RecordOptions
from gradtui.record.header import RunFacts
from gradtui.record.recorder import Recorder
from gradtui.record.recording import Recording
from gradtui.record.watching import start_recording
from gradtui.runfile import Outcome
from pretrain.regularisation import EarlyStopping

STEPS_AFTER_NAN = 50  # what a run shows of a training that has diverged
PROGRESS_EVERY = 0.1  # s
THROUGH_TIME_EVERY = 0.25  # s between samples of the gradient through time
EVALUATIONS = 200  # of cost and accuracy at most, spread evenly over the epochs: each takes a pass over all images
LSUV_IMAGES = 512  # that the layers are scaled on


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
    tensors = load(recipe)
    torch.set_num_threads(recipe.threads)
    generator = torch.Generator().manual_seed(recipe.seed)
    model = make_model(recipe, tensors, generator)
    total_steps = recipe.steps_an_epoch * recipe.epochs
    descent = Descent(recipe, model, len(tensors.images), total_steps)
    facts = RunFacts(
        recipe=recipe.to_json(),
        total_epochs=recipe.epochs,
        total_steps=recipe.total_steps,
        log_file=str(path.with_suffix(".log")) if path is not None else None,
        takes_commands=("stop",),
    )
    options = RecordOptions(every=recipe.every, budget=recipe.budget, name=recipe.title, folder=folder)
    recording = start_recording(model, descent.optimizer, options, path=path, facts=facts)
    if path is not None and recording.path is None:
        raise GradtuiError(f"{path} could not be made, see above: the training was not begun")
    with Recorder(recording) as recorder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # dropout draws from the global generator
        trainer = _Trainer(recipe, model, descent, tensors, recording, generator)
        outcome, detail = trainer.run(on_progress, lambda: should_stop() or recorder.stop_requested)
        test_accuracy = trainer.test()
        recorder.close(outcome, detail)
    return Result(outcome, detail, recorder.path, trainer.step, trainer.loss, trainer.accuracy, test_accuracy)


def make_model(recipe: Recipe, tensors: Tensors, generator: torch.Generator) -> nn.Module:
    """The net of a recipe, ready to be trained."""
    if recipe.recurrent:
        return build_recurrent(recipe, generator)
    model = build(recipe, generator)
    if recipe.init == "lsuv":
        lsuv(recipe, model, tensors.images[:LSUV_IMAGES])
    return model


class _Trainer:
    """The loop; nothing in it waits for a number but the end of an epoch."""

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        descent: Descent,
        tensors: Tensors,
        recording: Recording,
        generator: torch.Generator,
    ) -> None:
        self.step = 0
        self.loss: float | None = None
        self.accuracy: float | None = None
        self._recipe = recipe
        self._model = model
        self._descent = descent
        self._tensors = tensors
        self._recording = recording
        self._generator = generator
        self._cost = COSTS[recipe.cost]
        self._training_cost = training_cost(recipe)
        self._told = 0.0
        self._time_told = -math.inf
        self._losses: list[float] = []
        self._diverged = ""
        self._stopping = EarlyStopping(recipe.patience)

    def run(
        self, on_progress: Callable[[Progress], None] | None, should_stop: Callable[[], bool]
    ) -> tuple[Outcome, str]:
        """Train; how it ended."""
        count = len(self._tensors.images)
        size = self._recipe.batch_size or count
        total = self._recipe.total_steps
        if self._recipe.pretrain != "none" and not self._pretrain(on_progress, should_stop):
            return "stopped", f"asked to stop at step {self.step:,} of {total:,}"
        last_step = total
        for epoch in range(self._recipe.epochs):
            images, targets = self._shuffled(epoch, count, size)
            for start in range(0, count, size):
                if should_stop():
                    return "stopped", f"asked to stop at step {self.step:,} of {total:,}"
                self._recording.log({"epoch": epoch + start / count})
                batch = images[start : start + size]
                self._one_step(batch, targets[start : start + size])
                if self._diverged:
                    last_step = min(last_step, self.step + STEPS_AFTER_NAN)
                    if self.step >= last_step:
                        return "stopped", self._diverged
                if on_progress is not None and time.monotonic() - self._told > PROGRESS_EVERY:
                    self._tell(on_progress, epoch, total)
            if self._evaluation_due(epoch + 1):
                self._evaluate(epoch + 1, images, targets)
                if self._stopping.has_waited_enough:
                    self._stopping.restore(self._model)
                    return "finished", f"stopped early after epoch {epoch + 1:,}: {self._stopping.epoch:,} was the best"
            if on_progress is not None:
                self._tell(on_progress, epoch + 1, total)
        if self._recipe.patience:
            self._stopping.restore(self._model)
        return ("stopped", self._diverged) if self._diverged else ("finished", "")

    def _pretrain(self, on_progress: Callable[[Progress], None] | None, should_stop: Callable[[], bool]) -> bool:
        """Train the layers one at a time; False if it was stopped."""

        def count(_: object) -> None:
            self.step += 1
            if on_progress is not None and time.monotonic() - self._told > PROGRESS_EVERY:
                self._tell(on_progress, 0, self._recipe.total_steps)

        finished = pretrain_layers(
            self._recipe, self._model, self._tensors, self._recording, self._generator, count, should_stop
        )
        self._recording.follow(self._descent.optimizer)
        return finished

    def test(self) -> float | None:
        """Measure and record the share of the test images that is right; None without test images."""
        if self._tensors.test is None:
            return None
        images, wanted = self._tensors.test
        right = share_right(self._outputs(images), wanted)
        self._recording.log({"test_accuracy": right})
        return right

    def _one_step(self, images: Tensor, targets: Tensor) -> None:
        watched = self._watch_time()
        loss = self._training_cost(self._model(images), targets)
        self._descent.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if watched is not None:
            self._recording.through_time({state: norms.numpy() for state, norms in watched.through_time().items()})
        value = loss.item()
        self._recording.log({"loss": value})
        self._losses.append(value)
        # math.isfinite would wait for a device; the lab trains on the CPU, where it reads one number
        if not self._diverged and not math.isfinite(value):
            where = self._recording.broken_layer or "the cost"
            self._diverged = f"diverged at step {self.step + 1:,} in {where}: the loss is not finite"
        self._descent.step()
        self.step += 1

    def _watch_time(self) -> Recurrent | None:
        """The net, if it is recurrent and its gradient through time is to be recorded in this step."""
        if not isinstance(self._model, Recurrent):
            return None
        now = time.monotonic()
        self._model.watched = now - self._time_told >= THROUGH_TIME_EVERY
        if not self._model.watched:
            return None
        self._time_told = now
        return self._model

    def _shuffled(self, epoch: int, count: int, size: int) -> tuple[Tensor, Tensor]:
        self._losses.clear()
        if self._recipe.data == "adding":
            return sequences_of_epoch(self._recipe, epoch)
        if size >= count:  # the order of a full batch changes nothing but rounding
            return self._tensors.images, self._tensors.targets
        order = torch.randperm(count, generator=self._generator)
        return self._tensors.images[order], self._tensors.targets[order]

    def _evaluation_due(self, epoch: int) -> bool:
        every = 1 if self._recipe.patience else -(-self._recipe.epochs // EVALUATIONS)
        return epoch % every == 0 or epoch == self._recipe.epochs

    def _evaluate(self, epoch: int, images: Tensor, targets: Tensor) -> None:
        if self._recipe.data == "adding":  # these sequences are not seen again: the cost of the steps is as good
            self.loss = math.fsum(self._losses) / len(self._losses)
        else:
            self.loss = float(self._cost(self._outputs(images), targets))
        self._recording.log({"epoch": epoch, "train_cost": self.loss})
        if self._tensors.validation is None:
            return
        inputs, wanted = self._tensors.validation
        outputs = self._outputs(inputs)
        self.accuracy = share_right(outputs, wanted)
        self._recording.log({"val_accuracy": self.accuracy})
        score = (self.accuracy, 0.0)
        if self._recipe.data == "adding":
            cost = float(self._cost(outputs, wanted))
            self._recording.log({"val_cost": cost})
            score = (self.accuracy, -cost)
        self._stopping.see(epoch, score, self._model)

    def _outputs(self, images: Tensor) -> Tensor:
        """What the net says, as it is used after training: without dropout, with BatchNorm's averages."""
        self._model.eval()
        with torch.no_grad():
            outputs: Tensor = self._model(images)
        self._model.train()
        return outputs

    def _tell(self, on_progress: Callable[[Progress], None], epoch: int, total: int) -> None:
        self._told = time.monotonic()
        on_progress(Progress(self.step, total, epoch, self._recipe.epochs, self.loss, self.accuracy))


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
        say_on_stderr(str(error))
        return error.exit_code
    print(printable(f"{result.outcome} after {result.steps:,} steps {result.detail}".strip()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
