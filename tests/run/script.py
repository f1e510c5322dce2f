"""Starts a training script as its author left it, alone or as `gradtui run` does."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from gradtui.options import RecordOptions
from gradtui.recorded_command import prepare
from tests import forked_python

SCRIPTS = Path(__file__).parent / "scripts"


@dataclass(frozen=True)
class Script:
    """One script: how it is started, what its output says (a regular expression), what it needs beyond torch.

    `findings` is what the diagnosis has to say of it.
    """

    path: str
    says: str
    words: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    still: int = 0  # layers that never have a gradient
    runs: int = 1  # that it is recorded as
    copies: int = 1  # of each layer, in all runs
    ranks: int = 1
    needs: str | None = None
    is_sampled: bool = False  # activations of all its layers are
    is_repeatable: bool = True  # the same weights come out each time

    def command(self) -> list[str]:
        """Its words after `python`."""
        return [str(SCRIPTS / self.path), *self.words]


def run(
    script: Script, folder: Path, *, recorded: bool, every: int | None = None
) -> tuple[str, dict[str, torch.Tensor]]:
    """What the script prints and the weights that it saves, run in an empty folder: alone, or as `gradtui run` does.

    Each process is forked where torch is loaded.
    """
    folder.mkdir()
    weights = folder / "weights.pt"
    env = os.environ | {"SAVE_TO": str(weights), "OMP_NUM_THREADS": "1", "GRADTUI_DIR": str(folder / "runs")}
    if recorded:
        options = RecordOptions(every=every, folder=folder / "runs")
        env |= prepare([sys.executable, *script.command()], options).environment
    if script.ranks > 1:
        all_done = forked_python.run_ranks(script.command(), cwd=folder, env=env, count=script.ranks)
    else:
        all_done = [forked_python.run(script.command(), cwd=folder, env=env, timeout=100)]
    for done in all_done:
        assert done.returncode == 0, done.stderr[-2000:]
        assert "unrecorded" not in done.stderr and "not recorded" not in done.stderr, done.stderr[-2000:]
    saved: dict[str, torch.Tensor] = torch.load(weights, weights_only=True)
    return all_done[0].stdout, saved
