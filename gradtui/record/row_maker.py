"""What the writer's thread does for a recorder: rows of samples, and the findings in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradtui.diagnosis.live import Change, LiveDiagnosis
from gradtui.errors import one_line, say_on_stderr
from gradtui.record.fold import fold_samples
from gradtui.record.layers import LayerTable
from gradtui.runfile.blocks import FloatArray


class RowMaker:
    """Folds samples into rows, and has them diagnosed. Nothing that fails here ends the writer's thread.

    Attributes:
        diagnosis: of the run, for as long as it is recorded.
        names: of the layers.
        blank: a row without any measure, float32 [layers, measures].
        prepared: how many rows there were so far.
    """

    def __init__(self, diagnosis: LiveDiagnosis) -> None:
        self.diagnosis = diagnosis
        self.names: list[str] = []
        self.blank: FloatArray = np.empty(0, np.float32)
        self.prepared = 0
        self._told = self._has_failed = False

    def know(self, table: LayerTable) -> None:
        """Learn the layers, once they are known."""
        self.names = [layer.name for layer in table.layers]
        self.diagnosis.know(table.layers)
        self.blank = table.empty_grid()

    def prepare(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Rows with a sample in them as rows with a BLOB; `RunWriter` asks for it."""
        self.prepared += len(rows)
        try:
            blobs = fold_samples([row[5] for row in rows], self.blank)
        except Exception as error:
            if not self._told:
                self._told = True
                say_on_stderr(f"some steps are recorded without measures ({one_line(error)})")
            blobs = [None] * len(rows)
        return [(*row[:5], blob, *row[6:]) for row, blob in zip(rows, blobs, strict=True)]

    def diagnose(self, rows: list[tuple[Any, ...]], last: bool) -> list[Change]:
        """What has changed of the findings; `RunWriter` asks for it. Those that are stored stand if this fails."""
        if self._has_failed:
            return []
        try:
            return self.diagnosis.take(rows, last)
        except Exception as error:
            self._has_failed = True
            say_on_stderr(f"the run is not diagnosed any more ({one_line(error)})")
            return []
