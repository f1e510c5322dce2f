"""Steps of a training that calls `backward` and puts other tensors in the place of its parameters at each step.

Tensors of ours stand in for them, into which the values are copied for a step that is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from gradtui.record.backward import backwards
from gradtui.record.backward_steps import BackwardSteps
from gradtui.record.discover import find_specs
from gradtui.record.graph import leaves_of
from gradtui.record.layers import LayerSpec
from gradtui.record.stand_ins import copy_values, make_stand_ins, with_stand_ins
from gradtui.record.step_source import StepSink


class ReplacedSteps(BackwardSteps):
    """Tells of a step for each call of `backward`; stands in for the optimizer.

    Args:
        leaves: the parameters at this step, in the order of their use.
        sink: is told.
    """

    def __init__(self, leaves: Sequence[Tensor], sink: StepSink) -> None:
        self._trained = make_stand_ins(leaves)
        self._leaves: list[Tensor] = []  # of the call that is under way, if its step is to be measured
        self._is_measured = False
        super().__init__([{"params": self._trained}], sink)

    def specs(self, leaves: Sequence[Tensor], ranks: Mapping[int, int]) -> list[LayerSpec]:
        """The layers of what is trained, by the names of the parameters at this step."""
        return with_stand_ins(find_specs(leaves, ranks), leaves, self._trained)

    def backward_begins(self, loss: Tensor | None) -> None:
        """The step after the last backward has been taken by now; the parameters are what this graph begins with."""
        try:
            if self._is_open:
                leaves = self._find() if self._is_measured else []
                if leaves:
                    copy_values(leaves, self._trained)
                self._finish(whole=bool(leaves))
            if self._sink.begin(self):
                self._leaves = self._find()
        except Exception as error:
            self._sink.fail(error)

    def backward_ended(self) -> None:
        """The gradients are there: for a moment they are where an optimizer would find them."""
        leaves, self._leaves = self._leaves, []
        self._is_open = True
        if not leaves:
            return
        try:
            copy_values(leaves, self._trained)
            for trained, leaf in zip(self._trained, leaves, strict=True):
                trained.grad = leaf.grad
            self._is_measured = True
            self._sink.measure(self)
        except Exception as error:
            self._sink.fail(error)
        finally:
            for trained in self._trained:
                trained.grad = None

    def finish(self) -> None:
        """The recording ends: the open step has been taken."""
        if self._is_open:
            self._finish(whole=False)

    def _finish(self, *, whole: bool) -> None:
        """The open step has been taken; a sample is left out if where its new values are is not known."""
        if self._is_measured and not whole:
            self._sink.begin(self)
        self._is_open = self._is_measured = False
        self._sink.finish(self)

    def _find(self) -> list[Tensor]:
        """The parameters of the graph of which `backward` begins; none if it is of something else."""
        leaves = [] if backwards.output is None else leaves_of(backwards.output)
        shapes = [leaf.shape for leaf in leaves]
        return leaves if shapes == [trained.shape for trained in self._trained] else []
