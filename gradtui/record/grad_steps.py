"""Steps between two calls of `torch.autograd.grad` or of a function of `torch.func`: the training updates by itself.

A step shows by parameters that changed, or were replaced by others of the same shapes, since the call before. Where
they are replaced, tensors of ours stand in for them, into which the values are copied for a step that is measured.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradtui.record.backward import backwards
from gradtui.record.discover import specs_of_inputs
from gradtui.record.grad_calls import grad_calls
from gradtui.record.grad_inputs import Inputs
from gradtui.record.graph import leaves_of
from gradtui.record.layers import LayerSpec
from gradtui.record.manual_steps import PATIENCE, REPLACED_BEFORE, are_alike, has_memory, sample_of
from gradtui.record.stand_ins import copy_values, make_stand_ins, with_stand_ins
from gradtui.record.step_source import StepSink

LOOKED_AT = 4  # inputs by which a change is noticed, about


class GradStepDetector:
    """Looks for a training in the calls that take gradients.

    Attributes:
        is_replaced: the training puts other tensors in the place of its parameters at each step.
        steps: that it has taken so far.
    """

    def __init__(self) -> None:
        self.is_replaced = False
        self.steps = 0
        self._known: dict[tuple[Any, ...], _Known] = {}  # by the names and shapes of the inputs
        self._calls = 0

    @property
    def is_over(self) -> bool:
        """True once it is no longer worth looking."""
        return self._calls >= PATIENCE

    def has_found(self, inputs: Inputs, loss: Tensor | None) -> bool:
        """True once the inputs of a call, which begins, have been changed by a training since the last such call."""
        self._calls += 1
        key = (inputs.changes, loss is None, *signature(inputs))
        if key not in self._known:
            if all(map(has_memory, inputs.values())):
                self._known[key] = _Known(inputs, loss)
            return False
        known = self._known[key]
        if not known.is_training or not known.has_changed(inputs):
            return False
        known.steps += 1
        self.steps, self.is_replaced = known.steps, not known.is_same(inputs)
        known.keep(inputs)
        alone = 2 * REPLACED_BEFORE if len(inputs) == 1 else REPLACED_BEFORE
        return known.steps >= max(inputs.changes, alone if self.is_replaced else 1)


class _Known:
    """Inputs of calls so far, with samples of their values."""

    def __init__(self, inputs: Inputs, loss: Tensor | None) -> None:
        self.steps = 0
        # gradients by something else than the parameters that the loss depends on make adversarial examples or
        # explanations, not a training
        ours = {id(tensor) for tensor in inputs.values()}
        others = [] if loss is None else [one for one in leaves_of(loss) if id(one) not in ours]
        are_parameters = all(isinstance(tensor, nn.Parameter) for tensor in inputs.values())
        is_only_one = len(inputs) > 1 or not others
        self.is_training = are_parameters or (is_only_one and not any(isinstance(one, nn.Parameter) for one in others))
        self.keep(inputs)

    def keep(self, inputs: Inputs) -> None:
        """Note what they are now."""
        self._samples = [sample_of(tensor) for tensor in inputs.values()]
        self._tensors = [weakref.ref(tensor) for tensor in inputs.values()]

    def is_same(self, inputs: Inputs) -> bool:
        """True if they are the very tensors of the call before."""
        return all(ref() is tensor for ref, tensor in zip(self._tensors, inputs.values(), strict=True))

    def has_changed(self, inputs: Inputs) -> bool:
        """True if they have other values than before; tensors that take the place of others must be like them."""
        samples = [sample_of(tensor) for tensor in inputs.values()]
        if all(map(torch.equal, self._samples, samples)):
            return False
        return self.is_same(inputs) or are_alike(self._samples, samples)


class GradSteps:
    """Tells of a step for each change between calls; stands in for the optimizer.

    Args:
        inputs: those of the call that is under way.
        is_replaced: other tensors take their place at each step.
        sink: is told.
    """

    can_rest = False

    def __init__(self, inputs: Inputs, is_replaced: bool, sink: StepSink) -> None:
        self._sink, self._key = sink, signature(inputs)
        tensors = list(inputs.values())
        # what needs no gradient by `backward` does not count as trained, as in `torch.func`
        self._stands_in = is_replaced or not all(tensor.requires_grad for tensor in tensors)
        self._trained = make_stand_ins(tensors) if self._stands_in else tensors
        self.param_groups = [{"params": self._trained}]
        stride = max(1, len(tensors) // LOOKED_AT)
        self._places = range(len(tensors))[::stride]
        self._samples: list[Tensor] = []  # of some of the inputs, at the last call
        grad_calls.follow(self)

    def specs(self, inputs: Inputs, ranks: Mapping[int, int]) -> list[LayerSpec]:
        """The layers of what is trained, by the names that the training has for the inputs of a call."""
        return with_stand_ins(specs_of_inputs(inputs, ranks), inputs.values(), self._trained)

    def grad_begins(self, inputs: Inputs, loss: Tensor | None) -> None:
        """The step after the last call has been taken by now, if it was one."""
        try:
            if signature(inputs) != self._key:
                return
            tensors = list(inputs.values())
            if self._has_changed(tensors):
                self._copy(tensors)
                self._sink.finish(self)
            backwards.drop()
            if loss is not None and loss.numel() == 1:
                backwards.see(loss)
        except Exception as error:
            self._sink.fail(error)

    def grad_ended(self, inputs: Inputs, grads: Sequence[Tensor | None], loss: Tensor) -> None:
        """The gradients are there; the step that they make is the next change."""
        try:
            if signature(inputs) != self._key:
                return
            tensors = list(inputs.values())
            self._samples = [sample_of(tensors[i]) for i in self._places]
            if not backwards.has_losses and loss.numel() == 1:
                backwards.add(loss)
            if self._sink.begin(self):
                self._measure(tensors, grads)
        except Exception as error:
            self._sink.fail(error)

    def finish(self) -> None:
        """The recording ends: the step after the last call has been taken, if it can be seen."""
        if self._stands_in and self._samples:
            self._sink.begin(self)  # where the new values are is not known: a sample of this step is left out
            self._sink.finish(self)
        elif self._has_changed(self._trained):
            self._sink.finish(self)
        self._samples = []

    def rest(self, count: Callable[..., None]) -> None:
        """Never asked for: each call has to be looked at."""

    def wake(self) -> None:
        """Nothing to do."""

    def remove(self, *, inside_a_step: bool = False) -> None:
        """Follow the calls no longer."""
        grad_calls.unfollow(self)

    def _has_changed(self, tensors: Sequence[Tensor]) -> bool:
        pairs = zip(self._samples, self._places, strict=False)
        return not all(torch.equal(before, sample_of(tensors[i])) for before, i in pairs)

    def _measure(self, tensors: Sequence[Tensor], grads: Sequence[Tensor | None]) -> None:
        """Have the step measured that begins: the gradients are where an optimizer would find them, meanwhile."""
        self._copy(tensors)
        kept = [trained.grad for trained in self._trained]
        try:
            for trained, grad in zip(self._trained, grads, strict=True):
                trained.grad = None if grad is None else grad.detach()
            self._sink.measure(self)
        finally:
            for trained, grad in zip(self._trained, kept, strict=True):
                trained.grad = grad

    def _copy(self, tensors: Sequence[Tensor]) -> None:
        """Give what stands in the values of the inputs, if the step is measured."""
        if self._stands_in:
            copy_values(tensors, self._trained)


def signature(inputs: Inputs) -> tuple[Any, ...]:
    """What the inputs of all steps of a training have in common."""
    return tuple((name, tensor.shape, tensor.dtype, tensor.device) for name, tensor in inputs.items())
