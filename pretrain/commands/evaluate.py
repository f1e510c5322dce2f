"""`evaluate`: errors and likelihoods of a stack, and of the net made of it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
import torch

from pretrain.commands.early_checks import LAYERS_FILE, NET_FILE
from pretrain.commands.reading import CPU, encoded, labels_on_top, scale_for, source_for
from pretrain.errors import DataError
from pretrain.likelihood import LogZ, annealed_log_z, default_betas, log_probability
from pretrain.objective import evaluate as error_of
from pretrain.progress import Progress
from pretrain.rbm import RBM
from pretrain.rows import Rows, chunks
from pretrain.sources import DataSplit, Source
from pretrain.stack import Stack, load_net, load_stack

FEW = 10_000  # training examples whose mean is the base rate of the annealing


def evaluate(given: argparse.Namespace) -> int:
    """Print the errors of a stack, and of its net, on the test set, or on all data if there is none."""
    stack = load_stack(given.folder / LAYERS_FILE)
    data = source_for(given, stack)
    split, name = (data.train, "data") if data.test is None else (data.test, "test")
    rows = split.rows(CPU, scale_for(given, stack))
    found: dict[str, Any] = {"set": name, "examples": len(rows), "reconstruction_error": _reconstruction(stack, rows)}
    net_path = given.folder / NET_FILE
    if net_path.exists():
        net, about = load_net(net_path)
        if about.get("task") == "classify":
            found["classification_error"] = error_of(net, rows, split.needs_labels(data.name))
        else:
            found["net_reconstruction_error"] = error_of(net, rows)
    if labels_on_top(stack) and split.labels is not None:
        found["label_unit_error"] = _label_unit_error(stack, rows, split)
    if given.likelihood:
        found |= _likelihood(given, stack, data, rows)
    print(json.dumps(found) if given.json else "\n".join(f"{key}\t{_shown(value)}" for key, value in found.items()))
    return 0


@torch.no_grad()
def _reconstruction(stack: Stack, rows: Rows) -> float:
    """The squared error per example of encoding and decoding through all layers, by probabilities."""
    total = 0.0
    for _, x in chunks(rows):
        code = encoded(stack, x)
        for layer in reversed(stack.layers):
            code = layer.decode(code)
            if isinstance(layer, RBM) and layer.groups:
                code = code[:, : layer.inputs - sum(layer.groups)]
        total += float(((code - x) ** 2).sum())
    return total / len(rows)


def _label_unit_error(stack: Stack, rows: Rows, split: DataSplit) -> float:
    net, wrong = stack.belief_net(), 0
    assert split.labels is not None
    for start, x in chunks(rows):
        right = torch.from_numpy(np.asarray(split.labels[start : start + len(x)], np.int64))
        wrong += int((net.classify(x) != right).sum())
    return wrong / len(rows)


@torch.no_grad()
def _likelihood(given: argparse.Namespace, stack: Stack, data: Source, rows: Rows) -> dict[str, Any]:
    """Log-probabilities in nats per example: of one RBM by AIS, of several the variational bound."""
    net = stack.belief_net()
    train = data.train.rows(CPU, scale_for(given, stack))
    step = max(1, len(train) // FEW)
    some = train.take(torch.arange(0, len(train), step)[:FEW])
    top = net.top
    base = None
    if len(net.layers) == 1 and top.log_variance is None and not top.groups:
        base = torch.logit(some.mean(0).clamp(0.01, 0.99))
    betas = default_betas() if given.ais_steps == 14_500 else np.linspace(0, 1, given.ais_steps + 1).tolist()
    progress = Progress(len(betas) - 1, sys.stderr)
    try:
        found = annealed_log_z(
            top,
            chains=given.ais_chains,
            betas=betas,
            base=base,
            generator=torch.Generator().manual_seed(0),
            on_step=lambda done, _: progress.update(done, "annealing"),
        )
    except ValueError as error:
        raise DataError(str(error)) from error
    finally:
        progress.close()
    total = 0.0
    generator = torch.Generator().manual_seed(0)
    for _, x in chunks(rows):
        if len(net.layers) == 1 and not net.classes:
            total += float(log_probability(top, x, found.log_z).sum())
        else:
            total += float(net.log_probability_bound(x, found.log_z, generator=generator).sum())
    what = "log_probability" if len(net.layers) == 1 and not net.classes else "log_probability_bound"
    return {what: total / len(rows), **_of_log_z(found)}


def _of_log_z(found: LogZ) -> dict[str, float]:
    return {
        "log_z": found.log_z,
        "log_z_low": found.low,
        "log_z_high": found.high,
        "log_weight_deviation": found.deviation,
    }


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
