"""One training twice: bare, with the numbers of each step taken by plain autograd in float64; and recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import gradtui
from gradtui.runfile import RunReader, is_measured
from tests.record.columns_of_ours import BIAS_GRAD_NORM, GRAD_NORM, PARAM_NORM, UPDATE_RATIO, WEIGHT_GRAD_NORM
from tests.record.watched_nets import watch_into

Row = dict[str, list[float]]  # name of a layer -> its measures; NaN if there is nothing to measure
Training = Callable[[Any], None]
MEASURED = [BIAS_GRAD_NORM, WEIGHT_GRAD_NORM, GRAD_NORM, PARAM_NORM, UPDATE_RATIO]


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of any tensor, whole, in float64 and dense; two numbers for a complex one."""
    tensor = tensor.detach()
    tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor.clone()
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).double()


def whole_norm(tensors: list[torch.Tensor]) -> float:
    """L2 norm of all of them together; NaN if there are none."""
    return float(torch.cat([t.reshape(-1) for t in tensors]).norm()) if tensors else float("nan")


class Bare:
    """Follows a training without a recorder and notes what a recorder has to find."""

    def __init__(self) -> None:
        self.models: dict[str, nn.Module] = {}
        self.losses: list[float] = []
        self.rows: list[Row] = []
        self._others: dict[int, set[int]] = {}

    def watch(self, model: Any, optimizer: Any) -> None:
        """Where `gradtui.watch` stands in the recorded training."""
        self.models = {"": model} if isinstance(model, nn.Module) else dict(model)
        optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
        owned = {id(o): {id(p) for group in o.param_groups for p in group["params"]} for o in optimizers}
        self._others = {key: set().union(*(v for k, v in owned.items() if k != key)) - owned[key] for key in owned}

    def before(self, loss: Any, optimizer: Any = None, scale: float = 1.0) -> None:
        """The gradients are there, multiplied by `scale`; the optimizer's step comes next."""
        self.losses.append(loss.item() if isinstance(loss, torch.Tensor) else loss)
        others = self._others.get(id(optimizer), set())
        self._kept = {n: [(k, p, wide(p)) for k, p in ps if id(p) not in others] for n, ps in self._layers()}
        self._row: Row = {}
        for name, members in self._kept.items():
            grads = [(key.startswith("bias"), wide(p.grad) / scale) for key, p, _ in members if p.grad is not None]
            norms = [whole_norm([g for is_bias, g in grads if is_bias is kind]) for kind in (True, False)]
            self._row[name] = [*norms, whole_norm([g for _, g in grads])]

    def after(self) -> None:
        """The step has been taken."""
        for name, members in self._kept.items():
            trained = [(old, wide(p)) for _, p, old in members if p.requires_grad]
            size, moved = whole_norm([old for old, _ in trained]), whole_norm([new - old for old, new in trained])
            self._row[name] += [size, moved / size]
        self.rows.append(self._row)

    def weights(self) -> list[torch.Tensor]:
        """What the training made."""
        return [wide(p) for model in self.models.values() for p in model.parameters()]

    def _layers(self) -> Iterator[tuple[str, list[tuple[str, nn.Parameter]]]]:
        seen: set[int] = set()
        for root, model in self.models.items():
            layers: dict[str, list[tuple[str, nn.Parameter]]] = {}
            for whole, parameter in model.named_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    whole = f"{root}.{whole}" if root else whole
                    layer, parametrized, key = whole.rpartition("parametrizations.")
                    if not parametrized:
                        layer, _, key = whole.rpartition(".")
                    layers.setdefault(layer.rstrip(".") or type(model).__name__, []).append((key, parameter))
            yield from layers.items()


class Recorded(Bare):
    """The same training, watched; takes nothing itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.recorder = path, None

    def watch(self, model: Any, optimizer: Any) -> None:
        """Record from here on."""
        super().watch(model, optimizer)
        self.recorder = watch_into(model, optimizer, every=1, update_every=1, path=self.path)

    def before(self, loss: Any, optimizer: Any = None, scale: float = 1.0) -> None:
        """The recorder sees it by itself."""

    def after(self) -> None:
        """That too."""


def compare(training: Training, path: Path) -> RunReader:
    """Train twice: the weights must agree bit for bit, and the run with what was noted; the run."""
    bare, recorded = Bare(), Recorded(path)
    training(bare)
    training(recorded)
    recorded.recorder.close()
    reader = gradtui.open_run(path)
    assert not [event.text for event in reader.events() if event.kind == "recorder"]
    for a, b in zip(bare.weights(), recorded.weights(), strict=True):
        assert torch.equal(a, b) or a.isnan().any()
    agrees(reader, bare.rows, bare.losses)
    return reader


def agrees(reader: RunReader, expected: list[Row], losses: list[float] | None = None, *, sampled: bool = False) -> None:
    """The run has these rows, with these losses; `sampled`: the parameters and steps of some rows only."""
    rows, names = reader.last(1000), [layer.name for layer in reader.layers()]
    assert len(rows) == len(expected)
    if losses is not None:
        np.testing.assert_allclose(rows.loss, losses, rtol=1e-6)
    for step, (block, want) in enumerate(zip(rows.measures, expected, strict=True)):
        assert set(want) <= set(names), (want.keys(), names)
        for name, line in zip(names, block, strict=True):
            values = np.where(is_measured(line), line, np.nan)[MEASURED]
            known = np.array(want.get(name, [np.nan] * 5))
            if sampled:
                known[3:][np.isnan(values[3:])] = np.nan
            np.testing.assert_allclose(values, known, rtol=1e-5, err_msg=f"row {step}, layer {name}")
