"""What recording costs: instrumented ÷ bare step time.

    python benchmarks/overhead.py [--case a,b,c,d] [--mode every,budget] [--pairs 300] [--threads 1]
    python benchmarks/overhead.py --reductions

One model and one batch serve three optimizers over the same parameters, so that memory and arithmetic are the same:
a bare one, a second bare one (the control) and a watched one, whose loss is logged too. Their blocks of steps alternate
in one process, in rotating order. The recorder's clock runs only in its own blocks, or the budget would reckon with
the others' time. The writer's thread works during all blocks; what it uses is printed beside.

every: gradient norms at every step, blocks of 10 ms, median of the pairs' ratios.
budget: the default, everything on. It measures now and then, so blocks are 200 ms, to hold several measurements, and
the ratio is the mean of the pairs' without the outer tenths: a median of short blocks would see none of the cost.

A ratio is the watched time over the mean of the two bare ones of the same round; its interval is a bootstrap's.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gradtui.record.layers import ForwardTrace
from gradtui.record.measures import MEASURES
from gradtui.record.recorder import Recorder
from gradtui.record.rows import RowMaker
from gradtui.record.schedule import Sampling
from gradtui.runfile import Header, RunWriter

Case = tuple[nn.Module, torch.optim.Optimizer, Callable[[], torch.Tensor]]
TARGETS = {
    "every": {"a": 1.15, "b": 1.04, "c": 1.06, "d": 1.02},
    "budget": {"a": 1.03, "b": 1.02, "c": 1.02, "d": 1.02},
}
BLOCK = {"every": 0.01, "budget": 0.2}  # s


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
    elif case == "b":
        model, x = perceptron([784, *[512] * 8, 10], nn.ReLU, 128)
    elif case == "c":
        model, x = nn.Sequential(*[Residual(128) for _ in range(99)], nn.Linear(128, 10)), torch.randn(64, 128)
    else:
        block = nn.TransformerEncoderLayer(256, 8, 1024, dropout=0.0, batch_first=True)
        model, x = nn.TransformerEncoder(block, 6, enable_nested_tensor=False), torch.randn(16, 64, 256)
        return model, lambda: torch.optim.AdamW(model.parameters(), lr=1e-5), lambda: model(x).square().mean()
    y = torch.randint(10, (len(x),))
    return (
        model,
        lambda: torch.optim.SGD(model.parameters(), lr=1e-3),
        lambda: nn.functional.cross_entropy(model(x), y),
    )


class OwnClock:
    """A clock that stands still outside the watched blocks."""

    def __init__(self) -> None:
        self.elapsed, self.since = 0.0, None

    def __call__(self) -> float:
        return self.elapsed + (0.0 if self.since is None else time.perf_counter() - self.since)

    def go(self) -> None:
        self.since = time.perf_counter()

    def stop(self) -> None:
        self.elapsed, self.since = self(), None


def measure(case: str, mode: str, pairs: int, folder: Path) -> dict[str, float | str]:
    model, make_optimizer, loss_of = build(case)
    bare, control, watched = make_optimizer(), make_optimizer(), make_optimizer()
    rows = RowMaker()
    sampling = Sampling(1, 0.01, update_every=1 << 40) if mode == "every" else Sampling(None, 0.01)
    writer = RunWriter(
        folder / f"{case}-{mode}.gradtui", Header(name=case), MEASURES, prepare=rows.prepare, on_rows=rows.look
    )
    clock = OwnClock()
    recorder = Recorder(writer, sampling, rows, clock=clock)
    recorder.observe(watched, ForwardTrace(model))

    def block(optimizer: torch.optim.Optimizer, steps: int) -> float:
        log = recorder.log if optimizer is watched else None
        if log:
            clock.go()
        begin = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            optimizer.step()
            if log:
                log(loss=loss)
        spent = time.perf_counter() - begin
        if log:
            clock.stop()
        return spent / steps

    for optimizer in (bare, control, watched):
        block(optimizer, 3)
    steps = max(1, round(BLOCK[mode] / min(block(bare, 5) for _ in range(3))))
    for optimizer in (bare, control, watched) * 3:
        block(optimizer, steps)
    thread = time.pthread_getcpuclockid(writer._thread.ident) if hasattr(time, "pthread_getcpuclockid") else None
    thread_begin = time.clock_gettime(thread) if thread is not None else 0.0
    own_begin = clock()
    times = np.empty((pairs, 3))
    for i in range(pairs):
        for j in ((0, 1, 2), (2, 0, 1), (1, 2, 0))[i % 3]:
            times[i, j] = block((bare, control, watched)[j], steps)
    thread_share = (time.clock_gettime(thread) - thread_begin) / (clock() - own_begin) if thread is not None else 0.0
    recorder.close()
    centre = np.median if mode == "every" else trimmed_mean
    ratio, low, high = with_interval(2 * times[:, 2] / (times[:, 0] + times[:, 1]), centre)
    zero, zero_low, zero_high = with_interval(times[:, 1] / times[:, 0], centre)
    return {
        "case": case,
        "mode": mode,
        "bare µs": f"{1e6 * np.median(times[:, 0]):.0f}",
        "ratio": f"{ratio:.4f}",
        "95 %": f"{low:.4f}–{high:.4f}",
        "target": f"{TARGETS[mode][case]:.2f}",
        "met": "yes" if ratio <= TARGETS[mode][case] else "NO",
        "control": f"{zero:.4f} ({zero_low:.4f}–{zero_high:.4f})",
        "+µs": f"{1e6 * np.median(times[:, 2] - times[:, 0]):.1f}",
        "writer": f"{100 * thread_share:.2f} %",
        "rows/s": f"{rows_of(writer.path) / max(clock(), 1e-9):.0f}",
    }


def trimmed_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    ordered = np.sort(values, axis=axis)
    cut = ordered.shape[axis] // 10
    return np.mean(np.take(ordered, range(cut, ordered.shape[axis] - cut), axis=axis), axis=axis)


def with_interval(values: np.ndarray, centre: Callable[..., np.ndarray]) -> tuple[float, float, float]:
    """The centre and its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).choice(values, (1000, len(values)))
    low, high = np.quantile(centre(drawn, axis=-1), [0.025, 0.975])
    return float(centre(values, axis=-1)), float(low), float(high)


def rows_of(path: Path) -> int:
    import sqlite3

    with sqlite3.connect(path) as connection:
        return int(connection.execute("SELECT count(*) FROM steps WHERE measures IS NOT NULL").fetchone()[0])


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="a,b,c,d", help="which nets, e.g. a,c")
    parser.add_argument("--mode", default="every,budget", help="every, budget or both")
    parser.add_argument("--pairs", type=int, help="blocks of each kind (every: 300, budget: 60)")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads")
    parser.add_argument("--reductions", action="store_true", help="compare ways to take a sum of squares instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.reductions:
        reductions()
        return
    print(
        f"torch {torch.__version__}, {options.threads} thread(s) of {os.cpu_count()}, Python {sys.version.split()[0]}"
    )
    widths: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        for mode in options.mode.split(","):
            for case in options.case.split(","):
                pairs = options.pairs or (300 if mode == "every" else 60)
                row = measure(case, mode, pairs, Path(folder))
                if not widths:
                    widths = [max(len(key), len(str(value))) + 2 for key, value in row.items()]
                    print("".join(key.ljust(width) for key, width in zip(row, widths, strict=True)))
                print(
                    "".join(str(value).ljust(width) for value, width in zip(row.values(), widths, strict=True)),
                    flush=True,
                )


if __name__ == "__main__":
    main()
