"""How fast RBMs learn: 784 visible and 500 hidden units, momentum, float32, in turns in one process.

Beside ours: the matrix products of such a step alone; scikit-learn's `BernoulliRBM`, which is persistent and has no
momentum; learnergy and rbms, where they are installed. Then the log-probability of MNIST's test images by annealed
importance sampling after the same number of epochs of persistent training, ours and scikit-learn's (`--likelihood`; the
reconstruction and the pseudo-likelihood favour contrastive divergence). Ratios of medians over the rounds.

    python benchmarks/rbm.py [--batch 100 10] [--rounds 15] [--threads 1] [--device cuda] [--likelihood]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.neural_network import BernoulliRBM as TheirRBM
from threadpoolctl import threadpool_limits
from torch.nn import functional
from torch.utils.data import TensorDataset

from pretrain.data import mnist
from pretrain.estimators import BernoulliRBM
from pretrain.likelihood import annealed_log_z, log_probability
from pretrain.negative import GradientEstimator
from pretrain.rbm import RBM

VISIBLE, HIDDEN = 784, 500
STEPS = 40  # a round
Step = Callable[[], object]


def products(batch: int, device: str) -> Step:
    """The five products of a step: up, down, up, and two for the statistics."""
    weight = torch.randn(HIDDEN, VISIBLE, device=device)
    v, h = torch.rand(batch, VISIBLE, device=device), torch.rand(batch, HIDDEN, device=device)
    down, outer = torch.empty(batch, VISIBLE, device=device), torch.empty(HIDDEN, VISIBLE, device=device)

    def step() -> None:
        functional.linear(v, weight)
        torch.mm(h, weight, out=down)
        functional.linear(v, weight)
        torch.mm(h.t(), v, out=outer)
        torch.mm(h.t(), v, out=outer)

    return step


def ours(batch: int, device: str, **settings: Any) -> Step:
    """One step of ours, optimizer included."""
    generator = torch.Generator(device).manual_seed(0)
    rbm = RBM(VISIBLE, HIDDEN, estimator=GradientEstimator(chains=batch, **settings), generator=generator)
    optimizer = torch.optim.SGD(rbm.parameters(), lr=0.05, momentum=0.9)
    images = torch.rand(batch, VISIBLE, device=device)

    def step() -> None:
        rbm.fill_gradient(images, generator)
        optimizer.step()

    return step


def sklearns(batch: int) -> Step:
    """One mini-batch of scikit-learn's."""
    rbm = TheirRBM(HIDDEN, batch_size=batch, n_iter=1, random_state=0)
    images = np.random.default_rng(0).random((batch, VISIBLE), np.float32)
    rbm.fit(images)
    generator = np.random.RandomState(0)
    return lambda: rbm._fit(images, generator)


def learnergys(batch: int) -> Step:
    """One mini-batch of learnergy's, as its own `fit` runs it."""
    from learnergy.models import bernoulli

    rbm = bernoulli.RBM(VISIBLE, HIDDEN, learning_rate=0.05, momentum=0.9)
    data = TensorDataset(torch.rand(batch, VISIBLE), torch.zeros(batch))
    return lambda: rbm.fit(data, batch_size=batch, epochs=1)


def rbms_of_decelle(batch: int) -> Step:
    """One mini-batch of the package rbms, with its default, the centred gradient."""
    from rbms.bernoulli_bernoulli.classes import BBRBM
    from rbms.training.pcd import fit_batch_pcd

    rbm = BBRBM(torch.randn(VISIBLE, HIDDEN) * 0.01, torch.zeros(VISIBLE), torch.zeros(HIDDEN))
    optimizer = torch.optim.SGD(rbm.parameters(), lr=0.05, momentum=0.9, maximize=True)
    for parameter in rbm.parameters():
        parameter.grad = torch.zeros_like(parameter)
    images, weights = torch.rand(batch, VISIBLE), torch.ones(batch, 1)
    state = {"chains": rbm.init_chains(batch)}

    @torch.no_grad()
    def step() -> None:
        state["chains"], _ = fit_batch_pcd((images, weights), state["chains"], rbm, 1, 1.0)
        optimizer.step()

    return step


def contestants(batch: int, device: str) -> dict[str, Step]:
    """What runs in turns; others than ours on the processor alone."""
    found: dict[str, Step] = {
        "products alone": products(batch, device),
        "CD-1": ours(batch, device),
        "PCD-1": ours(batch, device, method="pcd"),
        "PCD-1, bfloat16 products": ours(batch, device, method="pcd", products="bfloat16"),
    }
    if device == "cpu":
        found["scikit-learn (PCD-1)"] = sklearns(batch)
        for package, make in (("learnergy", learnergys), ("rbms", rbms_of_decelle)):
            if importlib.util.find_spec(package) is None:
                print(f"{package} is not installed: left out")
            else:
                found[package] = make(batch)
    return found


def speed(batch: int, rounds: int, device: str) -> None:
    """Prints the times of a step, over those of its products and under scikit-learn's."""
    made = contestants(batch, device)
    times: dict[str, list[float]] = {name: [] for name in made}
    for number in range(rounds + 1):
        for name, step in made.items():
            started = time.perf_counter()
            for _ in range(STEPS):
                step()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - started) / STEPS)
    medians = {name: statistics.median(values) for name, values in times.items()}
    theirs = medians.get("scikit-learn (PCD-1)")
    print(
        f"\nbatch {batch}, {torch.get_num_threads()} threads, {device}\nwhat\tms/step\tover products\tscikit-learn/this"
    )
    for name, median in medians.items():
        faster = "" if theirs is None else f"{theirs / median:.2f}"
        print(f"{name}\t{1000 * median:.3f}\t{median / medians['products alone']:.2f}\t{faster}", flush=True)


def likelihood(epochs: int) -> None:
    """Prints log-probabilities after the same persistent training, ours and scikit-learn's, from the same images."""
    folder = os.environ.get("GRADTUI_DATA")
    data = mnist(Path(folder) if folder else None, train_size=20_000)
    generator = torch.Generator().manual_seed(0)
    images = torch.bernoulli(torch.from_numpy(data.train.images), generator=generator)
    test = torch.bernoulli(torch.from_numpy(data.test.images), generator=generator)
    base = torch.logit(images.mean(0).clamp(0.01, 0.99))
    settings = {"n_components": HIDDEN, "learning_rate": 0.05, "batch_size": 100, "n_iter": epochs, "random_state": 0}
    print(f"\n{epochs} epochs of persistent training on 20,000 images\nwhat\tlog p(test)\tseconds")
    for name, kind in (("ours", BernoulliRBM), ("scikit-learn", TheirRBM)):
        started = time.perf_counter()
        fitted = kind(**settings).fit(images.numpy())
        seconds = time.perf_counter() - started
        rbm = RBM(VISIBLE, HIDDEN)
        with torch.no_grad():
            rbm.weight.copy_(torch.from_numpy(fitted.components_))
            rbm.bias.copy_(torch.from_numpy(fitted.intercept_hidden_))
            rbm.visible_bias.copy_(torch.from_numpy(fitted.intercept_visible_))
        found = annealed_log_z(rbm, base=base, generator=generator)
        print(f"{name}\t{float(log_probability(rbm, test, found.log_z).mean()):.2f}\t{seconds:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[100, 10])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--likelihood", action="store_true", help="the log-probabilities too (minutes)")
    parser.add_argument("--epochs", type=int, default=20, help="for the log-probabilities (default: 20)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)  # scikit-learn's products
    for batch in options.batch:
        speed(batch, options.rounds, options.device)
    if options.likelihood:
        likelihood(options.epochs)


if __name__ == "__main__":
    main()
