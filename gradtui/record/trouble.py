"""What goes wrong in a training and is told in its run at once: a loss that broke, steps that a loss scaler skipped."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gradtui.errors import one_line
from gradtui.record.backward import backwards
from gradtui.record.first_steps import first_steps
from gradtui.record.measurement import Measurement
from gradtui.record.origin import Break, broken_layers, find_break
from gradtui.record.row_maker import RowMaker
from gradtui.record.row_queue import MOST_SKIPS_TOLD, skipped_step
from gradtui.record.scaler import scalers
from gradtui.record.step_machine import StepMachine
from gradtui.runfile import RunWriter
from gradtui.runfile.schema import Origin


class Trouble:
    """Listens to calls of `backward` and to loss scalers from here on.

    Args:
        writer: writes the run file.
        rows: has the run diagnosed.
        measurement: knows the layers and optimizers.
        machine: counts the steps.

    Attributes:
        origin: where the loss became NaN or infinite, if it has.
    """

    def __init__(self, writer: RunWriter, rows: RowMaker, measurement: Measurement, machine: StepMachine) -> None:
        self._writer, self._rows, self._measurement, self._machine = writer, rows, measurement, machine
        self.origin: Origin | None = None
        self._broke = False
        self._skips = 0
        self._first, machine.guard.found = first_steps.take()
        measurement.when_known = self._layers_known
        backwards.listen(self)
        scalers.listen(self)

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return self._machine.step

    def observes(self, optimizer: Any) -> bool:
        """True if the steps of this optimizer are measured."""
        return optimizer in self._measurement.optimizers

    def loss_broke(self, loss: Tensor) -> None:
        """The loss is NaN or infinite: say once where that began, in which step and layer."""
        if self._broke:
            return
        self._broke = True
        try:
            measurement = self._measurement
            measurement.learn_layers()
            parameters = [slot.parameter for slot in measurement.optimizers.table.slots]
            steppers = measurement.optimizers.steppers()
            self._tell(find_break(loss, parameters, self.step, steppers, self._machine.guard.found))
        except Exception as error:
            text = f"the loss is NaN or infinite; where that began is not known ({one_line(error)})"
            self._writer.event("note", text, self.step)

    def _layers_known(self) -> None:
        """Tell what broke before."""
        if self._first is not None and not self._broke:
            self._broke = True
            self._tell(self._first)

    def _tell(self, found: Break) -> None:
        self.origin = found.origin(self._measurement.optimizers.table)
        self._writer.origin(self.origin)
        self._rows.diagnosis.broke(self.origin)

    def step_skipped(self, optimizer: Any) -> None:
        """A loss scaler left a step out because scaled gradients overflowed; they are still there."""
        self._machine.skipped(optimizer)
        self._machine.guard.found = None
        backwards.take()
        self.step_had_no_effect(optimizer)

    def step_had_no_effect(self, optimizer: Any) -> None:
        """The step has been called for, but the optimizer itself saw that the gradients overflowed."""
        try:
            self._skips += 1
            if self._skips <= MOST_SKIPS_TOLD:
                mine = self._measurement.optimizers[optimizer].parameters()
                table = self._measurement.optimizers.table
                layers = broken_layers(table, lambda p: p.grad if id(p) in mine else None)
                text = skipped_step([table.layers[layer].name for layer in layers])
                self._writer.event("skipped", text, self.step)
        except Exception as error:
            self._machine.fail(error)

    def remove(self) -> None:
        """Listen no longer."""
        backwards.ignore(self)
        scalers.ignore(self)
