"""What recording does to a training on a GPU: four short trainings, each with and without the recorder.

    python benchmarks/gpu.py [--only plain,amp,compiled,ranks] [--device cuda] [--seconds 2]

plain: float32. amp: float16 with `torch.autocast` and a `GradScaler` whose first scales overflow. compiled:
`torch.compile(mode="reduce-overhead")`, which records CUDA graphs. ranks: two processes on one device, DDP over gloo.

Printed for each: the time of a step with the recorder, as it is by default, ÷ without it (blocks of --seconds in turn,
each with a model of its own); whether the weights after 24 steps that are all measured are those of a bare training,
bit for bit (if they are not, whether two bare ones agree); the largest relative difference of the recorded gradient
norms from a plain computation in float64; graphs, graph breaks and skipped CUDA graphs of the compiler, bare and
recorded; and how many rows have activations. It exits with 1 if weights, norms or the compiler's counts are wrong,
or if no activations were sampled.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import gradtui
from gradtui.errors import one_line
from gradtui.runfile import is_measured

CHECKS = ("plain", "amp", "compiled", "ranks")
EXACT_STEPS = 24
WARM_UP = 400  # steps that are not timed, a tenth of that on a CPU: many of the first are measured at any budget
ROUNDS = 3
FIRST_SCALE = 2.0**30  # overflows float16 in the first steps
FAR = 1e-4  # relative difference of norms that is wrong


@dataclass
class Training:
    """A net and how it is trained."""

    net: nn.Sequential
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    device: torch.device
    norms: list[list[float]] = field(default_factory=list)

    def step(self, x: Tensor, y: Tensor, watch_norms: bool = False) -> Tensor:
        """Take one; as anybody's training loop does."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.float16, enabled=self.scaler is not None):
            loss = nn.functional.cross_entropy(self.forward(x).float(), y)
        if self.scaler is None:
            loss.backward()
            self.note_norms(1.0, watch_norms)
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.note_norms(self.scaler.get_scale() if watch_norms else 1.0, watch_norms)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss

    def note_norms(self, scale: float, wanted: bool) -> None:
        """The norm of each layer's gradient, in float64."""
        if wanted:
            layers = [[p.grad.double().flatten() for p in one.parameters()] for one in trained(self.net)]
            self.norms.append([float(torch.cat(grads).norm()) / scale for grads in layers])


def trained(net: nn.Module) -> list[nn.Module]:
    """The modules that are layers."""
    return [one for one in net.modules() if list(one.parameters(recurse=False))]


def make(check: str, device: torch.device, small: bool) -> Training:
    """A net with the same weights each time."""
    torch.manual_seed(0)
    width, depth = (64, 3) if small else (1024, 8)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(width, 10)).to(device)
    forward: nn.Module = net
    if check == "compiled":
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        forward = torch.compile(net, mode="reduce-overhead")  # type: ignore[assignment]
    elif check == "ranks":
        forward = DistributedDataParallel(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(device.type, init_scale=FIRST_SCALE) if check == "amp" else None
    return Training(net, forward, optimizer, scaler, device)


def batches(training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    """The same few batches again and again, on the device."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    generator = torch.Generator().manual_seed(1 + rank)
    width = training.net[0].in_features
    kept = [
        (
            torch.randn(256, width, generator=generator).to(training.device),
            torch.randint(10, (256,), generator=generator).to(training.device),
        )
        for _ in range(4)
    ]
    while True:
        yield from kept


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def train_exactly(training: Training, watch_norms: bool = False) -> list[Tensor]:
    """Take a few steps; the weights."""
    for (x, y), _ in zip(batches(training), range(EXACT_STEPS), strict=False):
        training.step(x, y, watch_norms)
    return [parameter.detach().clone() for parameter in training.net.parameters()]


def untimed(device: torch.device) -> int:
    """Steps before those that are timed."""
    return WARM_UP if device.type == "cuda" else WARM_UP // 10


def time_of_step(training: Training, seconds: float) -> tuple[float, int]:
    """Seconds a step, after some that do not count, and how many were timed."""
    data = batches(training)
    warm_up = untimed(training.device)
    started, done = 0.0, 0
    while True:
        if done == warm_up:
            synchronize(training.device)
            started = time.perf_counter()
        training.step(*next(data))
        done += 1
        if done > warm_up and agreed(time.perf_counter() - started > seconds):
            synchronize(training.device)
            return (time.perf_counter() - started) / (done - warm_up), done - warm_up


def agreed(is_over: bool) -> bool:
    """What rank 0 says, in all of them."""
    if not torch.distributed.is_initialized():
        return is_over
    said = torch.tensor(int(is_over))
    torch.distributed.broadcast(said, 0)
    return bool(said)


@contextlib.contextmanager
def recorded(training: Training, every: int | None) -> Iterator[gradtui.Recorder]:
    """Record it into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        recorder = gradtui.watch(training.net, training.optimizer, every=every, budget=0.01, folder=folder)
        try:
            yield recorder
        finally:
            recorder.close()


def compiler_counts() -> tuple[int, int, int]:
    """Graphs, graph breaks and skipped CUDA graphs since the last `make`."""
    counters = torch._dynamo.utils.counters
    breaks = sum(counters["graph_break"].values())
    return counters["stats"]["unique_graphs"], breaks, counters["inductor"]["cudagraph_skips"]


def examine(check: str, device: torch.device, small: bool, seconds: float) -> tuple[str, bool]:
    """One line of figures; whether all is right. In all ranks."""
    bare = make(check, device, small)
    weights = train_exactly(bare)
    bare_counts = compiler_counts() if check == "compiled" else None
    watched = make(check, device, small)
    with recorded(watched, every=1) as recorder:
        same = all(map(torch.equal, weights, train_exactly(watched, watch_norms=True)))
        counts = compiler_counts() if check == "compiled" else None
        path = recorder.path
        recorder.close()
        far, rows, seen = compare_norms(path, watched) if path is not None else (0.0, 0, 0)
    if not same:
        again = train_exactly(make(check, device, small))
        same_bare = all(map(torch.equal, weights, again))
    verdict = "equal" if same else "DIFFER" if same_bare else "differ (two bare ones do too)"
    times: dict[bool, list[float]] = {False: [], True: []}
    timed = measured = 0
    for number in range(2 * ROUNDS):
        with_recorder = number % 4 in (1, 2)  # bare, recorded, recorded, bare, …
        training = make(check, device, small)
        with recorded(training, None) if with_recorder else contextlib.nullcontext() as recorder:
            pace, steps = time_of_step(training, seconds)
            times[with_recorder].append(pace)
            if recorder is not None and recorder.path is not None:
                recorder.close()
                timed += steps
                measured += measured_rows(recorder.path, since=untimed(device))
    ratio = np.mean(times[True]) / np.mean(times[False])
    text = (
        f"{check:<9} step {1e3 * np.mean(times[False]):.3f} ms bare, ratio {ratio:.3f} "
        f"({', '.join(f'{1e3 * one:.3f}' for one in times[True])} against "
        f"{', '.join(f'{1e3 * one:.3f}' for one in times[False])}; {measured} of {timed} steps measured); "
        f"weights {verdict}; "
        f"norms off by {far:.1e} in {rows} of {EXACT_STEPS} steps; activations in {seen} rows"
    )
    if counts is not None:
        text += "; graphs, breaks, skipped CUDA graphs {}, {}, {}".format(*counts)
        text += " (bare {}, {}, {})".format(*bare_counts or ())
    return text, (same or not same_bare) and far < FAR and seen > 0 and counts == bare_counts


def measured_rows(path: Path, since: int) -> int:
    """Rows with norms after a step."""
    with gradtui.open_run(path) as run:
        return int(is_measured(run.newer(since).measures).any(axis=(1, 2)).sum())


def compare_norms(path: Path, training: Training) -> tuple[float, int, int]:
    """The largest relative difference of a recorded norm, rows that were compared, and rows with activations."""
    with gradtui.open_run(path) as run:
        rows = run.newer(0)
        names = [measure.name for measure in run.measures]
    # a step that the scaler skipped has no row
    plain = np.array([training.norms[step - 1] for step in rows.step])
    ours = rows.measures[:, :, names.index("grad_norm")]
    seen = np.isfinite(rows.measures[:, :, names.index("activation_mean")]).any(axis=1)
    # nor has a row that tells of a loss only any norms
    whole = np.isfinite(plain).all(axis=1) & is_measured(ours).all(axis=1)
    return float(np.abs(ours[whole] / plain[whole] - 1).max()), int(whole.sum()), int(seen.sum())


def rank_of_two(rank: int, device: torch.device, small: bool, seconds: float, folder: str) -> None:
    """One of two processes; rank 0 tells the figures."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    text, is_right = examine("ranks", device, small, seconds)
    if rank == 0:
        (Path(folder) / "figures").write_text(f"{int(is_right)}{text}")
    torch.distributed.destroy_process_group()


def examine_ranks(device: torch.device, small: bool, seconds: float) -> tuple[str, bool]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = (device, small, seconds, folder)
        torch.multiprocessing.spawn(rank_of_two, arguments, nprocs=2)  # type: ignore[no-untyped-call]
        figures = (Path(folder) / "figures").read_text()
    return figures[1:], figures[0] == "1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CHECKS), help="which checks, e.g. plain,compiled")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with a small net")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one block of steps")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no CUDA device here; --device cpu tries the same trainings without one")
        return 2
    unknown = set(options.only.split(",")) - set(CHECKS)
    if unknown:
        parser.error(f"no check is called {', '.join(sorted(unknown))}: there are {', '.join(CHECKS)}")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread"
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, {name}", flush=True)
    small, all_right = device.type == "cpu", True
    if small:
        torch.set_num_threads(1)  # threads that wait for each other are all that would be measured
    for check in options.only.split(","):
        how: Callable[[], tuple[str, bool]] = lambda check=check: examine(check, device, small, options.seconds)  # noqa: E731
        started = time.monotonic()
        try:
            text, is_right = examine_ranks(device, small, options.seconds) if check == "ranks" else how()
        except Exception as error:
            text, is_right = f"{check:<9} failed: {one_line(error)}", False
        print(f"{'ok   ' if is_right else 'WRONG'} {text}; {time.monotonic() - started:.0f} s", flush=True)
        all_right &= is_right
    return 0 if all_right else 1


if __name__ == "__main__":
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    sys.exit(main())
