"""How fast contrastive divergence is: CD-1 with momentum, 784 visible and 500 hidden units, float32, one thread.

Beside it, in turns in this process: the matrix products of such a step alone, and scikit-learn's `BernoulliRBM`, which
is persistent, so our persistent version stands beside it too. Ratios of medians over the rounds.

    python benchmarks/rbm.py [--batch 100] [--rounds 15] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.neural_network import BernoulliRBM
from threadpoolctl import threadpool_limits
from torch.nn import functional

from pretrain.rbm import RBM

VISIBLE, HIDDEN = 784, 500
STEPS = 40  # a round


def products(batch: int) -> Callable[[], None]:
    """The five products of CD-1: up, down, up, and two for the statistics."""
    weight = torch.randn(HIDDEN, VISIBLE)
    v, h = torch.rand(batch, VISIBLE), torch.rand(batch, HIDDEN)
    down, outer = torch.empty(batch, VISIBLE), torch.empty(HIDDEN, VISIBLE)

    def step() -> None:
        functional.linear(v, weight)
        torch.mm(h, weight, out=down)
        functional.linear(v, weight)
        torch.mm(h.t(), v, out=outer)
        torch.mm(h.t(), v, out=outer)

    return step


def ours(batch: int, chains: int) -> Callable[[], None]:
    """One step of ours, optimizer included."""
    generator = torch.Generator().manual_seed(0)
    rbm = RBM(VISIBLE, HIDDEN, training=ContrastiveDivergence(chains=chains), generator=generator)
    optimizer = torch.optim.SGD(rbm.parameters(), lr=0.05, momentum=0.9)
    images = torch.rand(batch, VISIBLE)

    def step() -> None:
        rbm.fill_gradient(images, generator)
        optimizer.step()

    return step


def sklearns(batch: int) -> Callable[[], None]:
    """One mini-batch of scikit-learn's."""
    machine = BernoulliRBM(HIDDEN, batch_size=batch, n_iter=1, random_state=0)
    images = np.random.default_rng(0).random((batch, VISIBLE), np.float32)
    machine.fit(images)
    generator = np.random.RandomState(0)
    return lambda: machine._fit(images, generator)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)  # scikit-learn's products
    contestants = {
        "products alone": products(options.batch),
        "CD-1": ours(options.batch, 0),
        "PCD-1": ours(options.batch, options.batch),
        "scikit-learn (PCD-1)": sklearns(options.batch),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(options.rounds + 1):
        for name, step in contestants.items():
            started = time.perf_counter()
            for _ in range(STEPS):
                step()
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - started) / STEPS)
    base = statistics.median(times["products alone"])
    print("what\tms/step\tover the products")
    for name, of_name in times.items():
        print(f"{name}\t{1000 * statistics.median(of_name):.3f}\t{statistics.median(of_name) / base:.2f}")


if __name__ == "__main__":
    main()
