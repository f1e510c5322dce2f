"""What a training through gradtui costs over the plain PyTorch loop of the same recipe, recording included.

Both train the same net on the same batches in this process, in turns; the first pair is thrown away. The plain loop
does what anyone's does: forward, backward, `loss.item()`, step, and the accuracy after each epoch.

    python benchmarks/lab_overhead.py                     # the recipes of an experiment, at their own budget
    python benchmarks/lab_overhead.py --experiment memory --pairs 9
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from gradtui.lab.costs import COSTS, share_right
from gradtui.lab.descent import Descent
from gradtui.lab.experiments import EXPERIMENTS
from gradtui.lab.recipe import Recipe
from gradtui.lab.tensors import load, sequences_of_epoch
from gradtui.lab.train import make_model, train


def plain(recipe: Recipe) -> float:
    """Train without gradtui; seconds."""
    started = time.perf_counter()
    torch.manual_seed(recipe.seed)
    tensors = load(recipe)
    generator = torch.Generator().manual_seed(recipe.seed)
    model = make_model(recipe, tensors, generator)
    descent = Descent(recipe, model, len(tensors.images), recipe.steps_an_epoch * recipe.epochs)
    cost, losses = COSTS[recipe.cost], []
    for epoch in range(recipe.epochs):
        if recipe.data == "adding":
            images, targets = sequences_of_epoch(recipe, epoch)
        else:
            order = torch.randperm(len(tensors.images), generator=generator)
            images, targets = tensors.images[order], tensors.targets[order]
        for start in range(0, len(images), recipe.batch_size):
            batch = slice(start, start + recipe.batch_size)
            loss = cost(model(images[batch]), targets[batch])
            descent.optimizer.zero_grad()
            loss.backward()
            losses.append(loss.item())
            descent.step()
        model.eval()
        with torch.no_grad():
            if recipe.data != "adding":
                cost(model(images), targets)
            share_right(model(tensors.validation[0]), tensors.validation[1])
        model.train()
    return time.perf_counter() - started


def recorded(recipe: Recipe) -> float:
    """Train through gradtui; seconds."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train(recipe, folder=Path(folder))
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="remedies", choices=[*EXPERIMENTS])
    parser.add_argument("--only", action="append", help="only these recipes")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("recipe\tplain ms/step\tratio: median\tsmallest\tlargest")
    for label, recipe in EXPERIMENTS[options.experiment].recipes.items():
        if options.only and label not in options.only:
            continue
        recipe = recipe.but(epochs=min(recipe.epochs, options.epochs))
        pairs = []
        for number in range(options.pairs + 1):
            # who goes first changes from pair to pair
            first, second = (plain, recorded) if number % 2 else (recorded, plain)
            times = {first: first(recipe), second: second(recipe)}
            pairs.append((times[plain], times[recorded]))
        ratios = sorted(ours / theirs for theirs, ours in pairs[1:])
        bare = min(theirs for theirs, _ in pairs[1:]) / (recipe.epochs * recipe.steps_an_epoch)
        print(
            f"{label}\t{1000 * bare:.3f}\t{statistics.median(ratios):.3f}\t{ratios[0]:.3f}\t{ratios[-1]:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
