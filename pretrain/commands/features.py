"""`features`: data encoded by the top layer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from pretrain.commands.early_checks import LAYERS_FILE
from pretrain.commands.reading import CPU, encoded, scale_for, source_for
from pretrain.drafts import new_draft
from pretrain.errors import DataError
from pretrain.progress import Progress
from pretrain.rows import chunks
from pretrain.stack import load_stack


def features(given: argparse.Namespace) -> int:
    """Write the top layer's codes of the data [n, units], chunk by chunk."""
    stack = load_stack(given.folder / LAYERS_FILE)
    rows = source_for(given, stack).train.rows(CPU, scale_for(given, stack))
    outputs = stack.layers[-1].outputs
    draft: Path | None = None
    progress = Progress(len(rows), sys.stderr)
    try:
        draft = new_draft(given.out)
        written = np.lib.format.open_memmap(draft, "w+", np.float32, (len(rows), outputs))
        for start, x in chunks(rows):
            progress.update(start, "encoding")
            written[start : start + len(x)] = encoded(stack, x).numpy()
        written.flush()
        draft.replace(given.out)
    except OSError as error:
        raise DataError(f"cannot write {given.out}: {error}") from error
    finally:
        progress.close()
        if draft is not None:
            draft.unlink(missing_ok=True)
    print(f"{len(rows):,} × {outputs} features: {given.out}")
    return 0
