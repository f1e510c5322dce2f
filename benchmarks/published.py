"""The published figures of layer-wise pretraining on MNIST, ours beside the papers'.

    python benchmarks/published.py deep-net                     # one of them
    python benchmarks/published.py all --seeds 0 1 2 --keep kept    # all, resumable after Ctrl-C
    python benchmarks/published.py --list

MNIST is looked for in the folder that GRADTUI_DATA names. Where there are several ways to fine-tune, one is chosen on
10,000 validation images, then the net is trained again on all 60,000; the test images are looked at once, at the end.
Pretraining sees no labels.
Figures are means ± standard deviations over the seeds; the standard error of one test of 10,000 images is about 0.11
points at 1.2 %.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pretrain.autoencoder import Autoencoder
from pretrain.data import Dataset, mnist
from pretrain.finetuning import NetProgress, finetune
from pretrain.greedy import LayerProgress, train_greedily
from pretrain.likelihood import annealed_log_z, log_probability
from pretrain.negative import GradientEstimator
from pretrain.nets import classifier, deep_autoencoder
from pretrain.objective import evaluate
from pretrain.protocols import Layer
from pretrain.rbm import RBM
from pretrain.schedule import linear


@dataclass(frozen=True)
class Way:
    """One way to fine-tune, all its epochs; a rate falls to 0 in a straight line, conjugate gradients have none."""

    epochs: int
    rate: float | None
    optimizer: Literal["adam", "cg"] = "adam"

    def __str__(self) -> str:
        return self.optimizer if self.rate is None else f"{self.optimizer}-{self.rate:g}"


@dataclass(frozen=True)
class Run:
    """One seed of one experiment: the data, where to keep checkpoints, and how much to do."""

    data: Dataset
    seed: int
    keep: Path | None
    effort: float  # times the epochs

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def checkpoint(self, name: str) -> Path | None:
        return None if self.keep is None else self.keep / f"{name}-{self.seed}-{self.effort:g}.safetensors"

    def epochs(self, count: int) -> int:
        return max(1, round(count * self.effort))

    @property
    def images(self) -> Tensor:
        """All 60,000 training images."""
        return torch.cat([torch.from_numpy(part.images) for part in (self.data.train, self.data.validation)])

    @property
    def labels(self) -> Tensor:
        return torch.cat([torch.from_numpy(part.labels) for part in (self.data.train, self.data.validation)])

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.data.test.images), torch.from_numpy(self.data.test.labels)

    @property
    def validation(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.data.validation.images), torch.from_numpy(self.data.validation.labels)

    def pretrained(self, name: str, layers: Sequence[Layer], epochs: int, **settings: object) -> Sequence[Layer]:
        """The layers, trained greedily on all training images."""

        def tell(progress: LayerProgress) -> None:
            say(f"{name} seed {self.seed}: layer {progress.index + 1}, epoch {progress.epoch + 1} of {progress.epochs}")

        train_greedily(
            layers,
            self.images,
            epochs=self.epochs(epochs),
            generator=self.generator(),
            checkpoint=self.checkpoint(name),
            checkpoint_every=120,
            on_epoch=tell,
            **settings,  # type: ignore[arg-type]
        )
        return layers

    def tuned(self, name: str, make: Callable[[], nn.Sequential], ways: Sequence[Way]) -> float:
        """The test error in % of a net: fine-tuned in the way that validates best, then anew on all images."""
        size = len(self.data.train)

        def fit(way: Way, images: Tensor, labels: Tensor, kind: str) -> tuple[nn.Sequential, list[float]]:
            def tell(progress: NetProgress) -> None:
                seen = "" if progress.error is None else f", validation error {100 * progress.error:.2f} %"
                say(f"{name} seed {self.seed}: {kind} {way}, epoch {progress.epoch + 1} of {progress.epochs}{seen}")

            net, epochs = make(), self.epochs(way.epochs)
            result = finetune(
                net,
                images,
                labels,
                validation=self.validation if kind == "choosing" else None,
                optimizer=way.optimizer,
                learning_rate=None if way.rate is None else linear(way.rate, epochs),
                epochs=epochs,
                generator=self.generator(),
                checkpoint=self.checkpoint(f"{name}-{kind}-{way}"),
                checkpoint_every=120,
                on_epoch=tell,
            )
            return net, result.errors

        way = ways[0]
        if len(ways) > 1:
            errors = [fit(way, self.images[:size], self.labels[:size], "choosing")[1][-1] for way in ways]
            way = ways[errors.index(min(errors))]
        net, _ = fit(way, self.images, self.labels, "training")
        error = 100 * evaluate(net, *self.test)
        say(f"{name} seed {self.seed}: {way} chosen, test error {error:.2f} %")
        return error


Figures = dict[str, float]


def make_rbms(generator: torch.Generator, *sizes: int, estimator: GradientEstimator | None = None) -> list[RBM]:
    return [RBM(i, o, estimator=estimator, generator=generator) for i, o in pairwise(sizes)]


def autoencoders(generator: torch.Generator, *sizes: int, **settings: object) -> list[Autoencoder]:
    return [Autoencoder(i, o, generator=generator, **settings) for i, o in pairwise(sizes)]  # type: ignore[arg-type]


def unpretrained(generator: torch.Generator, *sizes: int) -> list[Autoencoder]:
    """Layers as they start: uniform weights after Glorot & Bengio 2010."""
    return autoencoders(generator, *sizes)


def deep_net(run: Run) -> Figures:
    """784-500-500-2000-10 of sigmoids. Hinton & Salakhutdinov 2006: pretrained by CD-1 1.2 %, random weights 1.6 %."""
    sizes = (784, 500, 500, 2000)
    layers = run.pretrained("500-500-2000", make_rbms(run.generator(), *sizes), 40)
    random = unpretrained(run.generator(), *sizes)
    gradients, adam = (Way(12, None, "cg"),), (Way(30, 0.001),)
    return {
        "pretrained, then CG": run.tuned("deep-net", lambda: classifier(layers, 10, run.generator()), gradients),
        "pretrained, then Adam": run.tuned("deep-net", lambda: classifier(layers, 10, run.generator()), adam),
        "random, then CG": run.tuned("deep-net-random", lambda: classifier(random, 10, run.generator()), gradients),
    }


def dropout(run: Run) -> Figures:
    """The same net, fine-tuned with dropout ½ and inputs 0.2. Srivastava et al. 2014: 0.92 %."""
    layers = run.pretrained("500-500-2000", make_rbms(run.generator(), 784, 500, 500, 2000), 40)

    def make() -> nn.Sequential:
        return classifier(layers, 10, run.generator(), dropout=0.5, input_dropout=0.2)

    return {"pretrained": run.tuned("dropout", make, (Way(150, 0.0015),))}


def greedy(run: Run) -> Figures:
    """784-500-500-500-10 and shallow 784-500-10. Bengio et al. 2007: RBM 1.2, autoencoder 1.4, supervised 2.0, none
    2.4, shallow 1.9 %."""
    sizes = (784, 500, 500, 500)

    def tuned(kind: str, layers: Sequence[Layer]) -> float:
        ways = (Way(25, 0.0005), Way(25, 0.001))
        return run.tuned(f"greedy-{kind}", lambda: classifier(layers, 10, run.generator()), ways)

    rbms = run.pretrained("three-rbm", make_rbms(run.generator(), *sizes), 20)
    coders = run.pretrained("three-autoencoder", autoencoders(run.generator(), *sizes), 15)
    taught = run.pretrained("three-supervised", unpretrained(run.generator(), *sizes), 5, targets=run.labels)
    return {
        "RBM": tuned("rbm", rbms),
        "autoencoder": tuned("autoencoder", coders),
        "supervised": tuned("supervised", taught),
        "none": tuned("none", unpretrained(run.generator(), *sizes)),
        "shallow": tuned("shallow", unpretrained(run.generator(), *sizes[:2])),
    }


def denoising(run: Run) -> Figures:
    """784-1000-1000-1000-10, masking noise of 25 %. Vincent et al. 2010: 1.28 ± 0.22 %."""
    coders = autoencoders(run.generator(), 784, 1000, 1000, 1000, kind="denoising", level=0.25)
    layers = run.pretrained("denoising", coders, 20)
    return {"pretrained": run.tuned("denoising", lambda: classifier(layers, 10, run.generator()), (Way(25, 0.001),))}


def autoencoder(run: Run) -> Figures:
    """784-1000-500-250-30 unrolled, squared test error an image. Hinton & Salakhutdinov 2006: 3.00, PCA 13.87."""
    sizes = (784, 1000, 500, 250)
    layers: list[Layer] = [*make_rbms(run.generator(), *sizes)]
    top = Autoencoder(250, 30, activation="linear", generator=run.generator())
    run.pretrained("deep-autoencoder", [*layers, top], 20)
    size = len(run.data.train)
    rest = {"loss": "squared", "batch_size": 100, "generator": run.generator()}
    count = run.epochs(60)
    net = deep_autoencoder([*layers, top])
    first = finetune(net, run.images[:size], validation=run.validation[0], epochs=count,
                     learning_rate=linear(0.001, count), **rest)  # type: ignore[arg-type]  # fmt: skip
    say(f"seed {run.seed}: validation error {min(first.errors):.2f}")
    small = deep_autoencoder([*make_rbms(run.generator(), *sizes, 30)])
    finetune(small, run.images[:size], epochs=2, optimizer="sgd", **rest)  # type: ignore[arg-type]
    test = run.test[0]
    mean = run.images.mean(0)
    _, _, v = torch.linalg.svd(run.images - mean, full_matrices=False)
    rebuilt = (test - mean) @ v[:30].t() @ v[:30] + mean
    return {
        "pretrained": evaluate(net, test),
        "small random weights": evaluate(small, test),
        "PCA of 30": float(((rebuilt - test) ** 2).sum(1).mean()),
    }


def likelihood(run: Run) -> Figures:
    """500 hidden units, test log-probability by AIS. Salakhutdinov & Murray 2008: CD-1 −125.5, CD-3 −105.5,
    CD-25 −86.3; persistent chains: Tieleman 2008 has no figure for this RBM."""
    bits = torch.bernoulli(run.images, generator=run.generator())
    test = torch.bernoulli(run.test[0], generator=run.generator())
    share = bits.mean(0).clamp(0.01, 0.99)
    methods = {
        "CD-1": (GradientEstimator(), 60),
        "CD-3": (GradientEstimator(steps=3), 60),
        "PCD": (GradientEstimator(method="pcd"), 150),
        "CD-25": (GradientEstimator(steps=25), 60),
    }
    figures = {}
    for name, (estimator, epochs) in methods.items():
        count = run.epochs(epochs)
        rbm = RBM(784, 500, estimator=estimator, generator=run.generator())

        def tell(progress: LayerProgress, name: str = name) -> None:
            say(f"{name} seed {run.seed}: epoch {progress.epoch + 1} of {progress.epochs}")

        train_greedily(
            [rbm],
            bits,
            epochs=count,
            learning_rate=linear(0.05, count),
            momentum=0.5,  # with 0.9 contrastive divergence ends 10 nats and more lower
            generator=run.generator(),
            checkpoint=run.checkpoint(f"likelihood-{name}"),
            checkpoint_every=120,
            on_epoch=tell,
        )
        found = annealed_log_z(rbm, base=torch.logit(share), generator=run.generator())
        figures[name] = float(log_probability(rbm, test, found.log_z).mean())
        say(f"{name}: {figures[name]:.2f}, log Z {found.low:.1f} to {found.high:.1f}, deviation {found.deviation:.1f}")
    return figures


def labels(run: Run) -> Figures:
    """784-500-500-500-10, accuracy gained over none, in points. yell/boltzmann-machines: +5.7, +4.9, +2.5, +0.5."""
    sizes = (784, 500, 500, 500)
    rbms = run.pretrained("three-rbm", make_rbms(run.generator(), *sizes), 20)
    order = torch.randperm(60_000, generator=run.generator())
    figures = {}
    for count in (100, 1_000, 10_000, 60_000):
        chosen = order[:count]
        errors = []
        for layers in (rbms, unpretrained(run.generator(), *sizes)):
            net = classifier(layers, 10, run.generator())
            epochs = run.epochs(min(200, 20 * 60_000 // count))
            finetune(net, run.images[chosen], run.labels[chosen], learning_rate=linear(0.0005, epochs), epochs=epochs,
                     batch_size=min(100, count // 5), generator=run.generator())  # fmt: skip
            errors.append(100 * evaluate(net, *run.test))
        figures[f"{count:,} labels"] = errors[1] - errors[0]
        say(f"{count:,} labels, seed {run.seed}: pretrained {errors[0]:.2f} %, none {errors[1]:.2f} %")
    return figures


def depth(run: Run) -> Figures:
    """Ten hidden layers of 300 sigmoids, test accuracy; random weights are N(0, 0.01²)."""
    sizes = (784, *[300] * 10)
    layers = run.pretrained("ten", make_rbms(run.generator(), *sizes), 5)
    rbms = make_rbms(run.generator(), *sizes)
    return {
        "pretrained": 100 - run.tuned("depth", lambda: classifier(layers, 10, run.generator()), (Way(8, 0.001),)),
        "random": 100 - run.tuned("depth-random", lambda: classifier(rbms, 10, run.generator()), (Way(3, 0.001),)),
    }


EXPERIMENTS: dict[str, tuple[Callable[[Run], Figures], dict[str, str]]] = {
    "deep-net": (deep_net, {"pretrained, then CG": "1.2 %", "pretrained, then Adam": "–", "random, then CG": "1.6 %"}),
    "greedy": (
        greedy,
        {"RBM": "1.2 %", "autoencoder": "1.4 %", "supervised": "2.0 %", "none": "2.4 %", "shallow": "1.9 %"},
    ),
    "denoising": (denoising, {"pretrained": "1.28 ± 0.22 %"}),
    "dropout": (dropout, {"pretrained": "0.92 %"}),
    "autoencoder": (autoencoder, {"pretrained": "3.00", "small random weights": "–", "PCA of 30": "13.87"}),
    "likelihood": (likelihood, {"CD-1": "−125.5", "CD-3": "−105.5", "PCD": "–", "CD-25": "−86.3"}),
    "labels": (
        labels,
        {"100 labels": "+5.7", "1,000 labels": "+4.9", "10,000 labels": "+2.5", "60,000 labels": "+0.5"},
    ),
    "depth": (depth, {"pretrained": "–", "random": "–"}),
}


def say(line: str) -> None:
    """Progress goes to stderr, so that stdout is the table alone."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    started = time.perf_counter()
    yield lambda: (time.perf_counter() - started) / 60


def show(name: str, seeds: Sequence[int], data: Dataset, keep: Path | None, effort: float) -> None:
    experiment, papers = EXPERIMENTS[name]
    with timed() as minutes:
        found = [experiment(Run(data, seed, keep, effort)) for seed in seeds]
        print(f"\n{name}: {' '.join((experiment.__doc__ or '').split())}")
        print("what\tours\tpaper")
        for what, paper in papers.items():
            values = [figures[what] for figures in found]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            print(f"{what}\t{statistics.mean(values):.2f}{spread}\t{paper}")
        if "none" in papers and len(seeds) > 1:
            print_gain([figures["none"] - figures["RBM"] for figures in found])
        print(f"{len(seeds)} seeds, {minutes():.1f} minutes, {torch.get_num_threads()} threads", flush=True)


def print_gain(gains: Sequence[float]) -> None:
    """The gain of the RBM over none, seed by seed, with Student's 95 % interval."""
    from scipy.stats import t

    half = t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / math.sqrt(len(gains))
    print(f"RBM over none\t{statistics.mean(gains):+.2f} points, 95 % interval ± {half:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"{', '.join(EXPERIMENTS)}, or all")
    parser.add_argument("--list", action="store_true", help="say what the experiments are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="the seeds themselves (default: 0)")
    parser.add_argument("--keep", type=Path, help="a folder for checkpoints, from which the same command goes on")
    parser.add_argument("--effort", type=float, default=1.0, help="times the epochs (default: 1)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.list or not options.experiments:
        for name, (experiment, _) in EXPERIMENTS.items():
            print(f"{name:12} {' '.join((experiment.__doc__ or '').split())}")
        return
    names = list(EXPERIMENTS) if options.experiments == ["all"] else options.experiments
    unknown = set(names) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    torch.set_num_threads(options.threads)
    folder = os.environ.get("GRADTUI_DATA")
    data = mnist(Path(folder) if folder else None)
    for name in names:
        show(name, options.seeds, data, options.keep, options.effort)


if __name__ == "__main__":
    main()
