"""What recording costs: step time with a tool ÷ bare step time, for the recorder and for other tools.

    python benchmarks/overhead.py [--case a,b,c,d,e] [--mode budget,every] [--found] [--alone] [--rounds 60]
    python benchmarks/overhead.py --reductions

budget: the recorder as it is by default: gradient norms, update ratio, activations and neurons as 1 % of the time
allows, and a loss that `backward` is looked at for and that is logged by hand too (--found: it is not logged).
Beside it `wandb.watch` as it is by default (offline, each 1000th step), TensorBoard histograms each 100th step.
every: the norms at each step, the rest within its budget. Beside it `wandb.watch(log_freq=1)`, TensorBoard histograms
and Lightning's `grad_norm` at each step. --alone leaves the others out; so does what is not installed:
`pip install wandb tensorboard lightning`.

Case e is the net of b compiled by `torch.compile` with fullgraph=True, without the other tools, whose hooks would not
be called: the line tells its graphs and graph breaks, and in how many steps activations were sampled.

One model and one batch serve all; each tool has an optimizer of its own over the same parameters, and so have the bare
steps and a second bare kind, the control. Their blocks of 0.2 s alternate in one process, in rotating order; outside
its blocks a tool's hooks are off, `torch.autograd.backward` is PyTorch's own, and the recorder's clock stands still, or
its budget would reckon with the others' time. The writer's thread works during all blocks; what it uses is printed.

A ratio is the tool's time over the mean of the two bare ones, each summed over all rounds, since what is done now and
then would be missed by a median. Its interval is a bootstrap's over rounds. "CPU" is of the training's own thread, and
is what a target is held to: it hardly minds what else the machine does; "wall" also has waits for the interpreter's
lock. What the recorder measures at the beginning of each run, whatever the budget says, is left out, as the blocks are
those of a long run (--beginning: it is not). A tool that is due each 1000th step may not be due at all in a slow case:
"steps" tells how many it saw.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from others import Tool, missing, tools
from torch import nn

from gradtui.options import RecordOptions
from gradtui.record import own_steps
from gradtui.record.recorder import Recorder
from gradtui.record.watching import start_recording
from gradtui.runfile import open_run

Times = tuple[float, float, int]  # seconds of wall and CPU a step, steps
TARGETS = {
    "budget": dict.fromkeys("abcde", 1.02),
    "every": dict.fromkeys("abcde", 1.25),
}
BLOCK = 0.2  # s
FEWEST_STEPS = 3  # in a block, so that one can be sampled that the step before it announces


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * torch.tanh(self.linear(x))


def perceptron(sizes: list[int], activation: type[nn.Module], batch: int) -> tuple[nn.Module, torch.Tensor]:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1]), torch.randn(batch, sizes[0])


def build(case: str) -> tuple[nn.Module, Callable[[], torch.optim.Optimizer], Callable[[], torch.Tensor]]:
    """A model, what makes an optimizer for it, and the loss of one batch."""
    torch.manual_seed(0)
    if case == "a":
        model, x = perceptron([784, 30, 30, 30, 30, 10], nn.Sigmoid, 10)
    elif case in "be":
        model, x = perceptron([784, *[512] * 8, 10], nn.ReLU, 128)
    elif case == "c":
        model, x = nn.Sequential(*[Residual(128) for _ in range(99)], nn.Linear(128, 10)), torch.randn(64, 128)
    else:
        block = nn.TransformerEncoderLayer(256, 8, 1024, dropout=0.0, batch_first=True)
        model, x = nn.TransformerEncoder(block, 6, enable_nested_tensor=False), torch.randn(16, 64, 256)
        return model, lambda: torch.optim.AdamW(model.parameters(), lr=1e-5), lambda: model(x).square().mean()
    y = torch.randint(10, (len(x),))
    forward: Callable[[torch.Tensor], torch.Tensor] = torch.compile(model, fullgraph=True) if case == "e" else model
    return (
        model,
        lambda: torch.optim.SGD(model.parameters(), lr=1e-3),
        lambda: nn.functional.cross_entropy(forward(x), y),
    )


def of_the_compiler() -> str:
    """Graphs and graph breaks so far, where anything was compiled."""
    counters: Any = getattr(sys.modules.get("torch._dynamo.utils"), "counters", {})
    graphs = counters["stats"]["unique_graphs"] if counters else 0
    return f"{graphs} graph(s), {sum(counters['graph_break'].values())} breaks" if graphs else ""


class Recording(Tool):
    """gradtui's recorder."""

    name = "gradtui"

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, mode: str, found: bool, path: Path) -> None:
        options = RecordOptions(every=1 if mode == "every" else None)
        self.recording = start_recording(model, optimizer, options, path=path)
        self.log = None if found else Recorder(self.recording).log
        self._backward: Any = torch.autograd.backward
        self._stopped_at = 0.0
        self.stop()

    def go(self) -> None:
        torch.autograd.backward = self._backward
        away, recording = time.perf_counter() - self._stopped_at, self.recording
        sampling = recording._measurement._sampling
        for budget in (sampling.rows, sampling.updates, sampling.activations):
            budget.next_at += away
        recording._queue.next_loss_at += away
        recording._machine.quiet_until += away
        for own in recording._measurement.optimizers.owns:
            own.neurons_at += away

    def stop(self) -> None:
        torch.autograd.backward = inspect.unwrap(self._backward)
        self._stopped_at = time.perf_counter()

    def unfinished(self) -> bool:
        return self.recording._measurement.sampler.armed  # its hooks are on the model, which is everybody's

    def close(self) -> None:
        self.go()
        self.recording.close()

    def thread_time(self) -> float:
        """CPU seconds of the writer's thread; NaN where that is not told."""
        if self.recording._writer is None or not hasattr(time, "pthread_getcpuclockid"):
            return float("nan")
        return time.clock_gettime(time.pthread_getcpuclockid(self.recording._writer._thread.ident))

    def samples(self) -> int:
        """Measured rows in which activations were sampled."""
        with open_run(self.recording.path) as run:
            column = [measure.name for measure in run.measures].index("activation_mean")
            return int(np.isfinite(run.newer(0).measures[:, :, column]).any(axis=1).sum())

    def rows(self) -> int:
        """Measured rows in the run file."""
        with sqlite3.connect(self.recording.path) as connection:
            return int(connection.execute("SELECT count(*) FROM steps WHERE measures IS NOT NULL").fetchone()[0])


def block(tool: Tool, optimizer: torch.optim.Optimizer, loss_of: Callable[[], torch.Tensor], steps: int) -> Times:
    """Take some steps; wall and CPU seconds a step, and how many there were."""
    look, log, done = tool.look, tool.log, 0
    tool.go()
    wall, cpu = time.perf_counter(), time.thread_time()
    while done < steps or tool.unfinished():
        done += 1
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        if look is not None:
            look()
        optimizer.step()
        if log is not None:
            log(loss=loss)
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    tool.stop()
    return wall / done, cpu / done, done


def measure(case: str, mode: str, options: argparse.Namespace, folder: Path) -> Iterator[dict[str, str]]:
    """A row of the table for each tool."""
    model, make_optimizer, loss_of = build(case)
    watched = make_optimizer()
    path = folder / f"{case}-{mode}.gradtui"
    recording = Recording(model, watched, mode, options.found, path)
    others = [] if options.alone or case == "e" else list(tools(mode, model, folder / f"{case}-{mode}"))
    everyone: list[Tool] = [Tool(), Tool(), recording, *others]
    optimizers = [make_optimizer(), make_optimizer(), watched, *(make_optimizer() for _ in others)]

    def run(who: int, steps: int) -> Times:
        return block(everyone[who], optimizers[who], loss_of, steps)

    # a tool that is slow at each step gets fewer of them; one that is slow now and then must not seem so
    paces = [min(run(i, FEWEST_STEPS)[0] for _ in range(4)) for i in range(len(everyone))]
    steps = [max(FEWEST_STEPS, round(BLOCK / pace)) for pace in paces]
    for i in range(len(everyone)):
        run(i, steps[i])
    times = np.empty((options.rounds, len(everyone), 3))
    rows, writer = recording.rows(), recording.thread_time()
    for i in range(options.rounds):
        for j in range(len(everyone)):
            who = (i + j) % len(everyone)
            times[i, who] = run(who, steps[who])
    writer = recording.thread_time() - writer
    seconds = float(np.prod(times[:, 2, ::2], axis=-1).sum())
    for tool in everyone:
        tool.close()
    bare = times[:, :2, :2].mean(axis=1)
    for i, tool in enumerate(everyone[1:], 1):
        wall, low, high = with_interval(times[:, i, 0], times[:, 0, 0] if i == 1 else bare[:, 0])
        cpu, cpu_low, cpu_high = with_interval(times[:, i, 1], times[:, 0, 1] if i == 1 else bare[:, 1])
        target = TARGETS[mode][case] if tool is recording else None
        note = f"{(recording.rows() - rows) / seconds:.1f} rows/s, writer {100 * writer / seconds:.1f} %"
        if case == "e":
            note += f", {of_the_compiler()}, activations {recording.samples()}×"
        yield {
            "case": case,
            "mode": mode,
            "tool": "bare again" if i == 1 else tool.name,
            "CPU": f"{cpu:.4f}",
            "95 %": f"{cpu_low:.4f}–{cpu_high:.4f}",
            "target": "" if target is None else f"{target:.2f} " + ("met" if cpu <= target else "MISSED"),
            "wall": f"{wall:.3f}",
            "95 % ": f"{low:.3f}–{high:.3f}",
            "+µs": f"{1e6 * float((times[:, i, 1] - bare[:, 1]).mean()):.1f}",
            "steps": f"{times[:, i, 2].sum():.0f}",
            "": note if tool is recording else f"{1e6 * bare[:, 1].mean():.0f} µs a step" if i == 1 else "",
        }


def with_interval(values: np.ndarray, bare: np.ndarray) -> tuple[float, float, float]:
    """The ratio of the sums and its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    low, high = np.quantile(values[drawn].sum(axis=1) / bare[drawn].sum(axis=1), [0.025, 0.975])
    return float(values.sum() / bare.sum()), float(low), float(high)


def reductions() -> None:
    """Ways to take a sum of squares, µs a tensor, so that the collector's choice can be checked on another machine."""

    def clocked(call: Callable[[], object]) -> float:
        call()
        rounds = []
        for _ in range(15):
            begin = time.perf_counter()
            for _ in range(200):
                call()
            rounds.append((time.perf_counter() - begin) / 200)
        return 1e6 * float(np.median(rounds))

    print(f"{'elements':>9} {'numpy dot':>10} {'torch dot':>10} {'foreach':>10} {'float64':>10}")
    for size in (30, 900, 4096, 16384, 65536, 401408):
        grad = torch.randn(size)

        def with_numpy(grad: torch.Tensor = grad) -> object:
            flat = grad.numpy().ravel()
            return flat.dot(flat)

        def with_torch(grad: torch.Tensor = grad) -> object:
            flat = grad.view(-1)
            return flat.dot(flat).item()

        row = [
            clocked(with_numpy),
            clocked(with_torch),
            clocked(lambda grad=grad: torch._foreach_norm([grad])[0].item()),
            clocked(lambda grad=grad: torch.linalg.vector_norm(grad, dtype=torch.float64).item()),
        ]
        print(f"{size:9,} " + " ".join(f"{value:10.2f}" for value in row))
    print(f"\n{'vectors':>9} {'cat':>10} {'numpy dot':>10} {'foreach':>10}   (µs for all of them, 128 elements each)")
    for count in (5, 100, 1000):
        grads = [torch.randn(128) for _ in range(count)]
        buffer, wide = torch.empty(128 * count), np.empty(128 * count)
        starts, flat = np.arange(0, 128 * count, 128), buffer.numpy()

        def gathered(
            grads: list[torch.Tensor] = grads,
            buffer: torch.Tensor = buffer,
            flat: np.ndarray = flat,
            wide: np.ndarray = wide,
            starts: np.ndarray = starts,
        ) -> object:
            torch.cat(grads, out=buffer)
            np.multiply(flat, flat, out=wide, dtype=np.float64)
            return np.add.reduceat(wide, starts)

        row = [
            clocked(gathered),
            clocked(lambda grads=grads: [g.numpy().dot(g.numpy()) for g in grads]),
            clocked(lambda grads=grads: torch.stack(torch._foreach_norm(grads)).numpy()),
        ]
        print(f"{count:9,} " + " ".join(f"{value:10.2f}" for value in row))


WIDTHS = (6, 8, 38, 9, 17, 13, 8, 15, 10, 8, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="a,b,c,d,e", help="which nets, e.g. a,c")
    parser.add_argument("--mode", default="budget,every", help="budget, every or both")
    parser.add_argument("--found", action="store_true", help="do not log the loss by hand")
    parser.add_argument("--alone", action="store_true", help="leave the other tools out")
    parser.add_argument("--rounds", type=int, default=60, help="blocks of each kind")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads")
    parser.add_argument("--reductions", action="store_true", help="compare ways to take a sum of squares instead")
    parser.add_argument("--beginning", action="store_true", help="with the rows that each run has at its beginning")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.beginning:
        own_steps.FLOORS = -1
    if options.reductions:
        reductions()
        return
    print(
        f"torch {torch.__version__}, {options.threads} thread(s) of {os.cpu_count()}, Python {sys.version.split()[0]}"
    )
    for package in () if options.alone else missing():
        print(f"{package} is left out: it is not installed")
    headed = False
    with tempfile.TemporaryDirectory() as folder:
        for mode in options.mode.split(","):
            for case in options.case.split(","):
                for row in measure(case, mode, options, Path(folder)):
                    if not headed:
                        print("".join(key.strip().ljust(width) for key, width in zip(row, WIDTHS, strict=True)))
                    headed = True
                    print("".join(v.ljust(width) for v, width in zip(row.values(), WIDTHS, strict=True)), flush=True)


if __name__ == "__main__":
    main()
