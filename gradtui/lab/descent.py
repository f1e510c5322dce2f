"""How a gradient becomes a step: penalties and clipping before it, the optimizer, decay and bounds after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gradtui.lab.models import LowRank
from gradtui.lab.recipe import Recipe
from pretrain.regularisation import add_l1, limit_norms

AGC_LEAST = 1e-3  # length of a unit's weights below which AGC takes this instead (Brock et al. 2021)
STEP_AT, STEP_BY = (0.5, 0.75), 0.1  # where and by how much the schedule `step` lowers the rate (He et al. 2015)
EXPONENTIAL_END = 0.01
_Weights = Sequence[Tensor]


class Descent:
    """The steps of one training: `step()` after each backward pass.

    Weights are the matrices; biases, and the gains and shifts of normalisations, are neither decayed nor bounded.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, images: int, total_steps: int) -> None:
        weights = [p for p in model.parameters() if p.dim() > 1]
        others = [p for p in model.parameters() if p.dim() <= 1]
        self.optimizer = _optimizer(recipe, weights, others, images)
        self._before: list[Callable[[], object]] = []
        self._after: list[Callable[[], object]] = []
        self._add_penalty_and_clipping(recipe, model, weights, images)
        self._add_decay_and_bounds(recipe, model, weights)
        self._schedule: torch.optim.lr_scheduler.LambdaLR | None = None
        if recipe.warmup or recipe.schedule != "constant":
            self._schedule = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer, lambda step: rate_factor(recipe.schedule, recipe.warmup, step, total_steps)
            )

    def step(self) -> None:
        """One step along the gradients that are there."""
        for change in self._before:
            change()
        self.optimizer.step()
        for change in self._after:
            change()
        if self._schedule is not None:
            self._schedule.step()

    def _add_penalty_and_clipping(
        self, recipe: Recipe, model: nn.Module, weights: Sequence[Tensor], images: int
    ) -> None:
        parameters = list(model.parameters())
        if recipe.l1:
            self._before.append(lambda: add_l1(weights, recipe.l1 / images))
        if recipe.clip_value:
            self._before.append(lambda: nn.utils.clip_grad_value_(parameters, recipe.clip_value))
        if recipe.clip_norm:
            self._before.append(lambda: nn.utils.clip_grad_norm_(parameters, recipe.clip_norm))
        if recipe.agc:
            # the output layer is left alone (Brock et al. 2021, sec. 4.1)
            spared = {id(p) for p in _output_layer(model).parameters()}
            clipped = [p for p in parameters if id(p) not in spared]
            self._before.append(lambda: clip_by_unit(clipped, recipe.agc))

    def _add_decay_and_bounds(self, recipe: Recipe, model: nn.Module, weights: Sequence[Tensor]) -> None:
        if recipe.decay and recipe.optimizer != "adamw":
            # before the step, as AdamW does it: θ ← (1 − ηλ)θ, then the step
            self._before.append(lambda: decay(weights, recipe.decay * self.optimizer.param_groups[0]["lr"]))
        if recipe.max_norm:
            layers = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, LowRank))]
            self._after.append(lambda: bound_incoming(layers, recipe.max_norm))
        if recipe.weight_clip:
            self._after.append(lambda: clip_weights(weights, recipe.weight_clip))


def _optimizer(recipe: Recipe, weights: _Weights, others: _Weights, images: int) -> torch.optim.Optimizer:
    """The optimizer; its own decay is the book's L2, λ/n (Nielsen 2015, eq. 93), or AdamW's."""
    shrink = recipe.decay if recipe.optimizer == "adamw" else recipe.l2 / images
    groups = [{"params": weights, "weight_decay": shrink}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    rate, momentum = recipe.rate, recipe.momentum
    made: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(groups, lr=rate, momentum=momentum),
        "nesterov": lambda: torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=True),
        "adagrad": lambda: torch.optim.Adagrad(groups, lr=rate),
        "adadelta": lambda: torch.optim.Adadelta(groups, lr=rate),
        "rmsprop": lambda: torch.optim.RMSprop(groups, lr=rate, momentum=momentum),
        "adam": lambda: torch.optim.Adam(groups, lr=rate),
        "adamw": lambda: torch.optim.AdamW(groups, lr=rate),
    }
    return made[recipe.optimizer]()


def rate_factor(schedule: str, warmup: int, step: int, total: int) -> float:
    """What the learning rate is multiplied by at `step` (from 0) of `total`."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if schedule == "step":
        return float(math.prod(STEP_BY for at in STEP_AT if done >= at))
    if schedule == "exponential":
        return float(EXPONENTIAL_END**done)
    if schedule == "linear":
        return max(0.0, 1 - done)
    if schedule == "cosine":
        return (1 + math.cos(math.pi * min(1.0, done))) / 2
    return 1.0


@torch.no_grad()
def clip_by_unit(parameters: list[nn.Parameter], most: float) -> None:
    """AGC: scale the gradient of each unit down to `most` times the length of its weights.

    A unit is a row of a matrix; a bias counts as one. Source: Brock et al. 2021, eq. 3.
    """
    for parameter in parameters:
        grad = parameter.grad
        if grad is None:
            continue
        rows = parameter.dim() > 1
        length = parameter.norm(dim=1, keepdim=True) if rows else parameter.norm()
        steep = grad.norm(dim=1, keepdim=True) if rows else grad.norm()
        allowed = most * length.clamp(min=AGC_LEAST)
        # a gradient of 0 needs no clipping, and is not to be divided by
        grad.mul_(torch.where(steep > allowed, allowed / steep.clamp(min=1e-30), 1.0))


@torch.no_grad()
def decay(weights: Sequence[Tensor], share: float) -> None:
    """Shrink each weight by a share of itself (Loshchilov & Hutter 2019)."""
    for weight in weights:
        weight.mul_(1 - share)


@torch.no_grad()
def bound_incoming(layers: Sequence[nn.Module], most: float) -> None:
    """Scale the incoming weights of each unit down to a length of `most` (Srivastava et al. 2014, sec. 5.1)."""
    for layer in layers:
        if isinstance(layer, LowRank):
            # the unit's weights are a row of U·V: scaling its row of U scales them
            lengths = (layer.wide_weight @ layer.narrow_weight).norm(dim=1, keepdim=True)
            layer.wide_weight.mul_((most / lengths.clamp(min=1e-30)).clamp(max=1.0))
        elif isinstance(layer, nn.Linear):
            limit_norms([layer.weight], most)


@torch.no_grad()
def clip_weights(weights: Sequence[Tensor], most: float) -> None:
    """Keep each weight within ±`most` (Arjovsky et al. 2017)."""
    for weight in weights:
        weight.clamp_(-most, most)


def _output_layer(model: nn.Module) -> nn.Module:
    """The layer that gives the logits: the last one that is named `fc…`."""
    return [module for name, module in model.named_children() if name.startswith("fc")][-1]
