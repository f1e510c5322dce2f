"""Nets that read a sequence, and the gradient as it comes back through time."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from gradtui.lab import initialise
from gradtui.lab.recipe import Recipe

_GATES = {"rnn": 1, "gru": 3, "lstm": 4}


class ReluCell(nn.RNNCell):
    """h = max(0, Wx + Uh + b)."""

    def __init__(self, inputs: int, units: int, dtype: torch.dtype) -> None:
        super().__init__(inputs, units, nonlinearity="relu", dtype=dtype)


class SigmoidCell(nn.RNNCell):
    """h = σ(Wx + Uh + b)."""

    def __init__(self, inputs: int, units: int, dtype: torch.dtype) -> None:
        super().__init__(inputs, units, dtype=dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One time step."""
        assert hx is not None
        weighted = nn.functional.linear(input, self.weight_ih, self.bias_ih)
        return torch.sigmoid(weighted + nn.functional.linear(hx, self.weight_hh, self.bias_hh))


class Recurrent(nn.Module):
    """Stacked recurrent layers `rnn1`, `rnn2`, …, unrolled step by step; `fc` reads the last state of the last one.

    [batch, time, inputs] -> [batch, outputs]. While `watched` is True the states are kept, with their gradients, until
    `through_time` has been asked for.
    """

    def __init__(self, recipe: Recipe, dtype: torch.dtype) -> None:
        super().__init__()
        sizes = (recipe.inputs, *recipe.hidden)
        self.cells = [f"{recipe.net}{number}" for number in range(1, len(sizes))]
        for name, (inputs, units) in zip(self.cells, pairwise(sizes), strict=True):
            self.add_module(name, _cell(recipe, inputs, units, dtype))
        self.drop = nn.Dropout(recipe.dropout) if recipe.dropout else None
        self.fc = nn.Linear(recipe.hidden[-1], recipe.outputs, dtype=dtype)
        self.watched = False
        self._kept: dict[str, list[Tensor]] = {}

    def forward(self, sequences: Tensor) -> Tensor:
        """Read the sequences from the first time step to the last."""
        self._kept = {}
        states: list[Tensor] = list(sequences.unbind(1))
        for number, name in enumerate(self.cells, 1):
            cell = cast(nn.RNNCellBase, self._modules[name])
            hidden = sequences.new_zeros(len(sequences), cell.hidden_size)
            carried = hidden
            outputs, memories = [], []
            for x in states:
                if isinstance(cell, nn.LSTMCell):
                    hidden, carried = cell(x, (hidden, carried))
                    memories.append(carried)
                else:
                    hidden = cell(x, hidden)
                outputs.append(hidden)
            if self.watched:
                self._keep(f"h{number}", outputs)
                self._keep(f"c{number}", memories)
            states = outputs
            if self.drop is not None:
                states = [self.drop(state) for state in states]
        return cast(Tensor, self.fc(states[-1]))

    def _keep(self, name: str, states: list[Tensor]) -> None:
        for state in states:
            if state.requires_grad:
                state.retain_grad()
        if states:
            self._kept[name] = states

    def through_time(self) -> dict[str, Tensor]:
        """‖∂C/∂h_t‖ of each time step after a backward pass, by state: `h1`, `c1` (of an LSTM), `h2`, …; each [time].

        C is the mean cost over the batch; the norm is over batch and units.
        """
        kept, self._kept = self._kept, {}
        found = {}
        for name, states in kept.items():
            grads = [state.grad if state.grad is not None else torch.zeros_like(state) for state in states]
            # in float64: squares of 1e-30 are 0 in float32
            found[name] = torch.stack([grad.double().norm() for grad in grads])
        return found


def build_recurrent(recipe: Recipe, generator: torch.Generator) -> Recurrent:
    """The recurrent net of a recipe; `generator` alone decides the weights."""
    dtype = torch.float64 if recipe.dtype == "float64" else torch.float32
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation draws from the global generator
        net = Recurrent(recipe, dtype)
    gates = _GATES[recipe.net]
    for name in net.cells:
        cell = cast(nn.RNNCellBase, net._modules[name])
        initialise.fill_gates(cell.weight_ih, gates, recipe.init, recipe.sigma, generator, own=False)
        initialise.fill_gates(cell.weight_hh, gates, recipe.init, recipe.sigma, generator, own=True)
        for bias in (cell.bias_ih, cell.bias_hh):
            nn.init.zeros_(bias)
        if recipe.forget_bias is not None:
            with torch.no_grad():
                # torch's order of the gates: input, forget, cell, output
                cell.bias_ih.chunk(gates)[1].fill_(recipe.forget_bias)
    initialise.fill(net.fc.weight, net.fc.bias, recipe.init, recipe.sigma, generator)
    return net


def _cell(recipe: Recipe, inputs: int, units: int, dtype: torch.dtype) -> nn.RNNCellBase:
    if recipe.net == "lstm":
        return nn.LSTMCell(inputs, units, dtype=dtype)
    if recipe.net == "gru":
        return nn.GRUCell(inputs, units, dtype=dtype)
    if recipe.activation == "relu":
        return ReluCell(inputs, units, dtype)
    if recipe.activation == "sigmoid":
        return SigmoidCell(inputs, units, dtype)
    return nn.RNNCell(inputs, units, dtype=dtype)
