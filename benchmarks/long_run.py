"""What ten million recorded steps cost: the recorder's memory, the size of the file, and how soon it opens.

    python benchmarks/long_run.py [--steps 10000000] [--layers 50] [--recorder-steps 20000] [--folder /tmp]

The clock is simulated, a thousand steps a second. Rows go the way a recorder's do, through `RowMaker` and `RunWriter`:
ten measures of each layer in every 25th row, six in the others, a metric at each step, the neurons four times a second.
Then a real `Recorder` measures as many layers of a small net. Memory is resident memory beyond that before the run.
The file is opened by a process of its own, up to the first picture of the viewer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MEASURES = 10
NEURONS = 64  # of each layer
STEPS_PER_SECOND = 1000
WAITING = 2000  # rows that may wait: the simulated training is no faster than the disk
MOST_MEMORY, MOST_FILE, MOST_SECONDS = 50.0, 1000.0, 1.0  # MB, MB, s


@dataclass
class Result:
    what: str
    steps: int
    memory: float
    path: Path
    largest: float
    seconds: float
    dropped: int


def resident() -> float:
    """MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def size_of(path: Path) -> float:
    """MB, with the write-ahead log."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*")) / 1e6


class Peak:
    """The largest of what is looked at now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = resident()
        self.memory = self.file = 0.0

    def look(self) -> None:
        self.memory = max(self.memory, resident() - self._before)
        self.file = max(self.file, size_of(self._path))


def rows_of(layers: int) -> tuple[list[np.ndarray], Any]:
    from gradtui.runfile import NOT_MEASURED

    rng = np.random.default_rng(0)
    made = [rng.lognormal(size=(layers, MEASURES)).astype(np.float32) for _ in range(25)]
    for block in made[1:]:
        block[:, 6:] = NOT_MEASURED
    return made, np.full(layers * MEASURES, NOT_MEASURED, np.float32)


def simulate(path: Path, steps: int, layers: int) -> Result:
    """Rows as a recorder makes them."""
    from gradtui.diagnosis import LiveDiagnosis, Thresholds
    from gradtui.record.row_maker import RowMaker
    from gradtui.runfile import Header, Layer, Measure, RunWriter
    from gradtui.runfile import writer as writer_module

    writer_module.FLUSH_EVERY = 0.02  # the simulated time flies
    made, blank = rows_of(layers)
    now = [0.0]
    measures = [Measure(f"m{i}", "m", "1", "made up") for i in range(MEASURES)]
    shapes = {"weight": (NEURONS, NEURONS), "bias": (NEURONS,)}
    made_up = [Layer(f"fc{i}", "Linear", shapes, NEURONS * (NEURONS + 1)) for i in range(layers)]
    rows = RowMaker(LiveDiagnosis([measure.name for measure in measures], Thresholds(), 0.001))
    rows.blank = blank
    rows.diagnosis.know(made_up)
    peak, started = Peak(path), time.monotonic()
    writer = RunWriter(
        path, Header(name="long"), measures, clock=lambda: now[0], prepare=rows.prepare, diagnose=rows.diagnose
    )
    writer.set_layers(made_up)
    grads = {i: np.ones(NEURONS, np.float32) for i in range(layers)}
    for step in range(1, steps + 1):
        now[0] = step / STEPS_PER_SECOND
        writer.step(step, step / 1e4, now[0], 1.0 / step, 0.1, made[step % 25].tobytes())
        writer.scalar(step, step / 1e4, "accuracy", 0.5)
        if step % (STEPS_PER_SECOND // 4) == 0:
            writer.neurons(step, grads)
        if step % 500 == 0:
            while writer.waiting > WAITING:
                time.sleep(0.002)
            if step % 20_000 == 0:
                peak.look()
    while writer.waiting:
        time.sleep(0.01)
    peak.look()
    writer.close()
    return Result("rows as recorded", steps, peak.memory, path, peak.file, time.monotonic() - started, writer.dropped)


def record(path: Path, steps: int, layers: int) -> Result:
    """A real recorder, every step."""
    import torch

    from gradtui.options import RecordOptions
    from gradtui.record.recorder import Recorder
    from gradtui.record.watching import start_recording

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(layers)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = torch.randn(8, 16)

    def train(count: int, after: Callable[[int, torch.Tensor], None] = lambda step, loss: None) -> None:
        for step in range(count):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            after(step, loss)

    train(500)  # what PyTorch itself takes at first
    peak, started = Peak(path), time.monotonic()
    recorder = Recorder(start_recording(model, optimizer, RecordOptions(every=1), path=path))

    def log(step: int, loss: torch.Tensor) -> None:
        recorder.log(loss=loss, accuracy=0.5)
        if step % 500 == 0:
            peak.look()

    train(steps, log)
    recorder.close()
    return Result("a real recorder", steps, peak.memory, path, peak.file, time.monotonic() - started, 0)


def open_it(path: Path) -> None:
    """Print the seconds to open a run with the reader, then with the viewer; and the rows in it."""
    from gradtui.runfile.reader import open_run
    from gradtui.tui.follow_thread import FollowThread
    from gradtui.tui.run_follower import RunFollower
    from gradtui.tui.run_view import RunView

    started = time.perf_counter()
    with open_run(path) as reader:
        reader.layers(), reader.overview(), reader.last(100), reader.events(), reader.scalars(), reader.status()
        seconds = time.perf_counter() - started
        recorded = reader.recorded()
        (kept,) = reader._connection.execute("SELECT count(*) FROM steps").fetchone()
    delivered: list[tuple[float, object]] = []

    def deliver(shown: object) -> None:
        delivered.append((time.perf_counter(), shown))

    following = FollowThread(RunView(RunFollower(lambda: path)), deliver)
    started = time.perf_counter()
    following.start()
    while not delivered:
        time.sleep(0.001)
    following.stop()
    assert type(delivered[0][1]).__name__ == "Snapshot", delivered[0][1]
    print(seconds, delivered[0][0] - started, kept, recorded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--recorder-steps", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--open", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open is not None:
        open_it(options.open)
        return
    import gradtui.record.recorder  # noqa: F401  its imports are no growth

    broken = False
    print(f"{'':18}{'steps':>12}{'kept':>10}{'memory':>10}{'file':>10}{'open':>9}{'viewer':>9}{'taken':>9}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for make, steps in ((simulate, options.steps), (record, options.recorder_steps)):
            result = make(Path(folder) / f"{make.__name__}.gradtui", steps, options.layers)
            opening = subprocess.run(
                [sys.executable, __file__, "--open", str(result.path)], check=True, capture_output=True, text=True
            ).stdout.split()
            opened, viewed, kept = float(opening[0]), float(opening[1]), int(opening[2])
            print(
                f"{result.what:18}{result.steps:12,}{kept:10,}{result.memory:7.1f} MB{result.largest:7.0f} MB"
                f"{opened:7.2f} s{viewed:7.2f} s{result.seconds:7.0f} s",
                flush=True,
            )
            good = result.memory < MOST_MEMORY and result.largest < MOST_FILE and max(opened, viewed) < MOST_SECONDS
            broken |= not good or int(opening[3]) != result.steps or result.dropped > 0
    sys.exit(broken)


if __name__ == "__main__":
    main()
