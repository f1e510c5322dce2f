"""Training in the foreground: a progress line on a terminal, stable lines in a pipe, the layers at the end."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gradtui.errors import GradtuiError
from gradtui.format import printable
from gradtui.lab import train as training
from gradtui.lab.background import check_data
from gradtui.lab.recipe import Recipe
from gradtui.lab.results import learning_speeds
from gradtui.runfile import open_run
from gradtui.runfolder import check_folder

MOST_LINES = 100  # in a pipe: a run of 500 epochs says every fifth
SIGNALLED = 128  # and the signal's number: the exit code of a program that a signal ended, 130 after Ctrl-C


def train_headless(recipe: Recipe, folder: Path) -> int:
    """Train here and now; returns the exit code. Ctrl-C stops, and keeps what is recorded."""
    check_data(recipe)
    check_folder(folder)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 has no ×, and is to see the figures too
    signals = training.StopOnSignal()
    console = Console(highlight=False, markup=False, emoji=False)
    printer: _Printer = _ProgressBar(console) if console.is_terminal else _LinePrinter(recipe.epochs)
    if console.is_terminal:
        console.print(recipe.summary)
    with printer:
        result = training.train(recipe, folder=folder, on_progress=printer.show, should_stop=signals.asked.is_set)
    if result.path is None:
        raise GradtuiError("the training was not recorded, see above: there is nothing to show of it")
    _print_layers(result.path, console)
    if result.test_accuracy is not None:
        print(f"test accuracy\t{100 * result.test_accuracy:.2f} %")
    print(f"{result.outcome}\t{printable(result.detail)}".rstrip())
    print(f"see it again\tgradtui attach {printable(str(result.path))}")
    return SIGNALLED + signals.number if signals.asked.is_set() else 0


class _Printer(Protocol):
    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, progress: training.Progress) -> None: ...


class _ProgressBar:
    """One line that is drawn again and again: epoch, steps a second, cost, accuracy, time left."""

    def __init__(self, console: Console) -> None:
        facts = TextColumn("epoch {task.fields[epoch]}  {task.fields[facts]}")
        speed = TextColumn("{task.fields[speed]}")
        left = TimeRemainingColumn(compact=True)
        self._progress = Progress(
            SpinnerColumn(), facts, BarColumn(bar_width=None), speed, TimeElapsedColumn(), left, console=console
        )
        self._task = self._progress.add_task("", epoch="0", facts="", speed="")

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, progress: training.Progress) -> None:
        speed = self._progress.tasks[0].speed
        self._progress.update(
            self._task,
            completed=progress.step,
            total=progress.total_steps,
            epoch=f"{progress.epoch}/{progress.total_epochs}",
            facts=_facts(progress),
            speed="" if speed is None else f"{speed:,.0f} steps/s",
        )


class _LinePrinter:
    """A tab-separated line for an epoch; of a long training only every so many."""

    def __init__(self, epochs: int) -> None:
        self._every = -(-epochs // MOST_LINES)
        self._shown = 0

    def __enter__(self) -> None:
        print("epoch\tstep\tcost\taccuracy", flush=True)

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, progress: training.Progress) -> None:
        ended = progress.epoch > self._shown
        if ended and (progress.epoch % self._every == 0 or progress.epoch in (1, progress.total_epochs)):
            self._shown = progress.epoch
            cost = "" if progress.loss is None else f"{progress.loss:.4f}"
            accuracy = "" if progress.accuracy is None else f"{progress.accuracy:.4f}"
            print(f"{progress.epoch}\t{progress.step}\t{cost}\t{accuracy}", flush=True)


def _facts(progress: training.Progress) -> str:
    cost = "" if progress.loss is None else f"cost {progress.loss:.3f}"
    accuracy = "" if progress.accuracy is None else f"val {100 * progress.accuracy:.1f} %"
    return f"{cost}  {accuracy}".strip()


def _print_layers(path: Path, console: Console) -> None:
    """The learning speeds before the first and the last step, and how much slower than the last hidden layer."""
    with open_run(path) as reader:
        span = reader.span()
        if span is None:
            print("no step was recorded", file=sys.stderr)
            return
        names = [layer.name for layer in reader.layers()]
        start, end = (learning_speeds(reader, reader.at(step))[0] for step in span)
    last = max(0, len(names) - 2)  # the last hidden layer; the output layer comes after it
    slower = f"slower than {names[last]}"
    table = [("layer", "speed at the start", slower, "speed at the end", slower)]
    for index, name in enumerate(names):
        (first, less), (final, lesser) = ((f"{v[index]:.3g}", _times(v[last], v[index])) for v in (start, end))
        table.append((name, first, less, final, lesser))
    if not console.is_terminal:
        print("\n".join("\t".join(row) for row in table))
        return
    aligned = Table(*table[0], box=None, pad_edge=False)
    for row in table[1:]:
        aligned.add_row(*row)
    console.print(aligned)


def _times(fast: float, slow: float) -> str:
    """How many times slower; nothing to say between two layers that stand still, or where a speed is NaN."""
    if slow == 0 and fast > 0:
        return "∞×"
    return f"{fast / slow:.3g}×" if slow > 0 and fast == fast else ""
