"""Where a NaN or ∞ came from: a forward pass, a backward pass or an optimizer's step, after or in which layer, and why.

Nothing is kept for it while all is well. When a loss has broken, its autograd graph tells where a forward pass broke;
if parameters were broken before, their gradients and the optimizer's state tell which of the other two it was.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradtui.record.dtensor import is_sharded, local_shard
from gradtui.record.forward_break import ForwardBreak, is_finite, operations_of
from gradtui.record.graph import is_larger, leaves_into, leaves_of
from gradtui.record.layers import LayerTable
from gradtui.record.operations import limit_of, output_type, poles
from gradtui.runfile.schema import Origin

BROKEN_GRADIENT = "its gradient was NaN or infinite"
LOOKED_AT = 32  # first steps in which the slopes of a graph are looked at before it is gone
MOST_OPERATIONS = 3_000  # of a graph that is looked at for that


@dataclass(frozen=True)
class Break:
    """Where it began, before it is known which layers there are.

    Attributes:
        step: in which.
        phase: "forward", "backward" or "optimizer".
        parameters: it was in the layer of the last of them that is in a layer; before the first layer if none is.
        what: in words, what happened.
    """

    step: int
    phase: str
    parameters: tuple[weakref.ref[Tensor], ...]
    what: str

    def origin(self, table: LayerTable) -> Origin:
        """The same with the layer's index."""
        layer_of = {id(slot.parameter): slot.layer for slot in table.slots}
        used = [parameter for parameter in (ref() for ref in self.parameters) if parameter is not None]
        layer = next((layer_of[id(one)] for one in reversed(used) if id(one) in layer_of), None)
        return Origin(self.step, self.phase, layer, self.what if layer is not None else _without_layer(self.what))


def _without_layer(what: str) -> str:
    return what.replace(" after it", "").replace("its gradient", "a gradient").replace("its ", "their ")


def make_break(step: int, phase: str, parameters: Iterable[Tensor], what: str) -> Break:
    """A `Break` that keeps no tensor alive."""
    return Break(step, phase, tuple(weakref.ref(one) for one in parameters), what)


class GradientGuard:
    """Looks at a gradient after each backward, if something changes gradients before the step, as clipping does.

    One NaN makes the norm that clipping divides by NaN, and so every gradient: which layer it was can be seen only
    before. What is looked at is the smallest gradient of the first layer, which backpropagation reaches last: 2 µs.
    Gradients on a device or sharded are not looked at, because that would wait. In the first steps the graph is looked
    at too before it is gone, for operations with an infinite slope.

    Attributes:
        found: where a gradient was first NaN or ∞.
        alters: whether gradients are changed before the step; None while that is not known.
    """

    def __init__(self, table: LayerTable) -> None:
        self._table = table
        self.found: Break | None = None
        self.alters: bool | None = None
        self._seen: tuple[weakref.ref[Tensor], int] | None = None
        self._slopes = Slopes()
        self._leaves: list[weakref.ref[Tensor]] = []  # until there are layers

    def before_backward(self, step: int, loss: Tensor | None) -> None:
        """Look at the graph of a loss, in the first steps."""
        self._slopes = Slopes()
        is_new = loss is not None and step <= LOOKED_AT and self.alters is not False
        if loss is not None and is_new and not is_larger(loss, MOST_OPERATIONS):
            self._slopes = slopes_of(loss)
            if not self._table.slots:
                self._leaves = [weakref.ref(leaf) for leaf in leaves_of(loss)]

    def after_backward(self, step: int) -> None:
        """Look at the gradient of the step to come."""
        if self.alters is False:
            return
        grads = [grad for grad in (one.grad for one in self._first_layer()) if grad is not None and _is_looked_at(grad)]
        if not grads:
            return
        grad = min(grads, key=Tensor.numel)
        self._seen = weakref.ref(grad), grad._version
        total = grad.sum().item()
        if total - total == 0.0:
            self.found = None  # what there was has been left out
        elif self.found is None:
            known = [slot.parameter for slot in self._table.slots]
            self.found = broken_gradient(step, known or self._used(), self._slopes)

    def _first_layer(self) -> list[Tensor]:
        """The parameters of the first layer that has a gradient; those used first before layers are known."""
        slots = self._table.slots
        first = next((slot.layer for slot in slots if slot.parameter.grad is not None), None)
        return [slot.parameter for slot in slots if slot.layer == first] if slots else self._used()[:2]

    def _used(self) -> list[Tensor]:
        return [leaf for leaf in (ref() for ref in self._leaves) if leaf is not None]

    def before_step(self) -> None:
        """See whether the gradient has been changed since the backward."""
        seen, self._seen = self._seen, None
        if seen is not None and not self.alters:
            grad = seen[0]()
            self.alters = grad is None or grad._version != seen[1]


def _is_looked_at(grad: Tensor) -> bool:
    return grad.is_cpu and grad.layout == torch.strided and not is_sharded(grad)


@dataclass
class Slopes:
    """Why a gradient may be infinite, as a graph tells.

    Attributes:
        certain: in words, operations whose slope is infinite where they were taken.
        possible: those whose slope may have been.
        in_half: some of it was computed in float16.
    """

    certain: list[str] = field(default_factory=list)
    possible: list[str] = field(default_factory=list)
    in_half: bool = False

    def why(self) -> str:
        """What is said of a gradient that was broken."""
        found = list(dict.fromkeys(self.certain or self.possible))
        if len(found) == 1 and self.certain:
            return f"{BROKEN_GRADIENT}: {found[0]} has an infinite slope"
        if found:
            return f"{BROKEN_GRADIENT}, perhaps by {' or '.join(found)}, whose slope is infinite"
        return f"{BROKEN_GRADIENT} in {limit_of(torch.float16)}" if self.in_half else BROKEN_GRADIENT


def slopes_of(loss: Tensor, after: Tensor | None = None) -> Slopes:
    """Of the operations behind a loss; nothing on a device, which would wait, or of a large graph.

    `after`: a parameter that has become NaN since; only what was done with it counts.
    """
    slopes = Slopes()
    if not loss.is_cpu or is_larger(loss, MOST_OPERATIONS):
        return slopes
    nodes = operations_of(loss)
    first = next((i for i, node in enumerate(nodes) if any(leaf is after for leaf in leaves_into(node))), 0)
    for node in nodes[first:]:
        certain, possible = poles(node, "slope" if after is None else "slope of NaN")
        slopes.certain += certain
        slopes.possible += possible
        slopes.in_half |= output_type(node) == torch.float16
    return slopes


def broken_gradient(step: int, parameters: Sequence[Tensor], slopes: Slopes) -> Break | None:
    """The break of a backward pass, if one of the gradients is NaN or infinite; `slopes` are those of its graph."""
    broken = [one for one in parameters if not is_finite(one.grad)]
    # backpropagation runs from the output to the input: the last layer met it first
    return make_break(step, "backward", broken[-1:], slopes.why()) if broken else None


def find_break(
    loss: Tensor, parameters: Sequence[Tensor], steps: int, optimizers: Sequence[Any] = (), guard: Break | None = None
) -> Break:
    """Where a loss became NaN or infinite, after so many steps.

    Args:
        loss: it is; its graph is still there.
        parameters: of all layers, in their order.
        steps: taken so far.
        optimizers: that took them.
        guard: what was seen of a gradient before something changed it.
    """
    broken = [one for one in parameters if not is_finite(one)]
    if not broken:
        forward = ForwardBreak(loss)
        return make_break(steps + 1, "forward", forward.passed, forward.what)
    if steps == 0:
        text = "its parameters were NaN or infinite before the first step"
        return make_break(1, "forward", broken[:1], text)
    if guard is not None:
        return guard
    reason = _why_the_step(broken, optimizers)
    if reason is not None:
        first, text = reason
        return make_break(steps, "optimizer", [first], text)
    return make_break(steps, "backward", broken[-1:], slopes_of(loss, broken[-1]).why())


def _why_the_step(broken: Sequence[Tensor], optimizers: Sequence[Any]) -> tuple[Tensor, str] | None:
    """The first parameter that an optimizer broke although its gradient was finite, and why; None if that is not so.

    Gradients are usually gone by now, but averages of them are not: a NaN or ∞ would still be in those.
    """
    for parameter in broken:
        for optimizer in optimizers:
            group = next((g for g in optimizer.param_groups if any(p is parameter for p in g["params"])), None)
            if group is not None and _gradients_were_finite(parameter, getattr(optimizer, "state", {})):
                why = _of_the_group(parameter, group, type(optimizer).__name__)
                return parameter, f"its parameters became NaN or infinite, but its gradient was finite: {why}"
    return None


def _gradients_were_finite(parameter: Tensor, state: Any) -> bool:
    """Whether all that is left of a parameter's gradients is finite; False if nothing is left."""
    grad = parameter.grad
    kept = [grad] if grad is not None and bool(local_shard(grad.detach()).any()) else []  # it may have been set to 0
    own = state.get(parameter, {}) if parameter in state else {}
    # a mean of squares may overflow although the gradient does not
    squares = [key for key in own if isinstance(key, str) and "sq" in key]
    kept += [v for k, v in own.items() if isinstance(v, Tensor) and v.shape == parameter.shape and k not in squares]
    return bool(kept) and all(is_finite(one) for one in kept)


def _of_the_group(parameter: Tensor, group: Any, optimizer: str) -> str:
    """Why a step of a parameter group made a parameter NaN or infinite."""
    epsilon, rate = group.get("eps"), group.get("lr")
    if isinstance(epsilon, float) and parameter.is_floating_point():
        if epsilon == 0:
            return f"the ε of {optimizer} is 0, so that 0 is divided by 0 where a gradient is 0"
        if float(torch.tensor(epsilon, dtype=parameter.dtype)) == 0.0:
            kind = str(parameter.dtype).removeprefix("torch.")
            return f"the ε of {optimizer}, {epsilon:g}, is 0 in {kind}"
    rate = float(rate) if isinstance(rate, (int, float, Tensor)) else 0.0
    if rate - rate != 0.0:
        return f"the learning rate is {rate}"
    if bool(local_shard(parameter.detach()).isinf().any()):
        return f"the step of {optimizer} overflowed {limit_of(parameter.dtype)}"
    return f"the step of {optimizer} did it, or what changed them after it"


def broken_layers(table: LayerTable, tensor_of: Callable[[Tensor], Tensor | None] = lambda p: p) -> list[int]:
    """The layers, in order, with a NaN or ∞ in a parameter, or in what `tensor_of` makes of it. Waits for devices."""
    return sorted({slot.layer for slot in table.slots if not is_finite(tensor_of(slot.parameter))})
