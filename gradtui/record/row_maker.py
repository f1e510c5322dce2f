"""What the writer's thread does for a recorder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtui.errors import one_line, say_on_stderr
from gradtui.record.fold import fold_samples
from gradtui.record.layers import LayerTable
from gradtui.record.notices import Notice, Notices
from gradtui.runfile.blocks import FloatArray

if TYPE_CHECKING:
    from gradtui.record.watchdog import Watchdog


class RowMaker:
    """Folds samples into rows, and looks at the rows for trouble."""

    def __init__(self, watchdog: Watchdog | None = None) -> None:
        self.watchdog = watchdog
        self.notices = Notices()
        self.blank: FloatArray = np.empty(0, np.float32)
        self.prepared = 0
        self._told = False

    def know(self, table: LayerTable) -> None:
        """Learn the layers, once they are known."""
        self.notices.names = [layer.name for layer in table.layers]
        if self.watchdog is not None:
            self.watchdog.layers = list(table.layers)
        self.blank = table.empty_grid()

    def prepare(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Rows with a sample in them as rows with a BLOB; `RunWriter` asks for it."""
        self.prepared += len(rows)
        try:
            blobs = fold_samples([row[5] for row in rows], self.blank)
        except Exception as error:
            # nothing that fails here may end the writer's thread
            if not self._told:
                self._told = True
                say_on_stderr(f"some steps are recorded without measures ({one_line(error)})")
            blobs = [None] * len(rows)
        whole = [(*row[:5], blob) for row, blob in zip(rows, blobs, strict=True)]
        if self.watchdog is not None:
            try:
                self.watchdog.take(whole)
            except Exception as error:
                say_on_stderr(f"the run is not diagnosed any more ({one_line(error)})")
                self.watchdog = None
        return whole

    def look(self, steps: Sequence[int], block: FloatArray) -> list[Notice]:
        """The events of a batch of rows; `RunWriter` asks for it."""
        try:
            return self.notices(steps, block)
        except Exception:
            return []  # the rows themselves say it too
