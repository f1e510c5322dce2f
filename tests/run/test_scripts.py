"""Training scripts as their authors left them, alone and under `gradtui run`: the same weights, and everything seen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from gradtui.diagnosis import diagnose
from gradtui.options import RecordOptions
from gradtui.recorded_command import prepare
from gradtui.runfile import is_measured, open_run
from tests import forked_python
from tests.record.columns_of_ours import GRAD_NORM

SCRIPTS = Path(__file__).parent / "scripts"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # saved with the weights, but not trained


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
    launcher: tuple[str, ...] = ()
    needs: str | None = None

    def command(self) -> list[str]:
        """Its words after `python`."""
        return [*self.launcher, str(SCRIPTS / self.path), *self.words]


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")

ALL = [
    Script("plain_loop.py", r"Finished Training\nAccuracy of the network on the 297 test images: [89]\d %"),
    Script("trainer_class.py", r"epoch 5/5 .* valid_acc (0\.9|1\.0)"),
    Script("subcommands.py", r"epoch 1 .* acc [89]\d\.\d\d%", words=("train", "--epochs", "2")),
    Script("gan.py", r"\[2/3\]\[14/28\] Loss_D: \d"),
    Script("rnn_manual.py", r"240/240 iterations .* loss  0\.\d\d "),
    Script("ddp.py", r"(?s)world size 2\n.*test accuracy 0\.[89]", launcher=TORCHRUN),
    Script("autocast_bf16.py", r"logits torch\.bfloat16\ntest acc 0\.[89]"),
    Script("accumulate.py", r"Epoch 4 - avg_train_loss: 0\.[01]"),
    Script("lbfgs.py", r"Error u: \d\.\d+e-0[3-9]"),
    Script("compiled.py", r"iter 60: loss 0\.0"),
    Script("lightning_fit.py", r"epoch 3: train_loss=0\.0\d+ val_loss=0\.0", needs="lightning"),
    Script("hf_trainer.py", r"eval_loss = [01]\.", needs="transformers"),
    Script("raw_tensors.py", r"training accuracy: (0\.9|1\.0)"),
    Script("manual_no_grad.py", r"train accuracy (0\.9|1\.0)"),
    Script("autograd_grad.py", r"accuracy (0\.9|1\.0)"),
    Script("functional.py", r"final loss 0\.[0-3]"),
    Script("sick/vanishing.py", r"Epoch 4: loss=2\.3\d+ acc=0\.1", findings=("vanishing", "plateau")),
    Script("sick/nan.py", r"loss was first nan at step 30\n", findings=("nan",)),
    Script(
        "sick/nan_backward.py",
        r"step 19 .* finite: True\nstep 20 loss 0\.\d+ gradients finite: False\nstep 21 loss nan",
        findings=("nan",),
    ),
    Script(
        "sick/frozen.py",
        r"unchanged: stem\.weight stem\.bias body\.weight body\.bias adapter\.weight adapter\.bias\n",
        findings=("not-updating",),
        still=2,
    ),
    Script("sick/dead.py", r"dead after training: 36 of 40\n", findings=("dead",)),
    Script("sick/too_fast.py", r"\n14 \d\.\d+e\+\d\d\n", findings=("exploding",)),
]


def run(script: Script, folder: Path, *, recorded: bool) -> tuple[str, dict[str, torch.Tensor]]:
    """What the script prints and the weights that it saves, run in an empty folder: alone, or as `gradtui run` does.

    What a launcher starts it starts itself; the others are forked where torch is loaded.
    """
    folder.mkdir()
    weights = folder / "weights.pt"
    env = os.environ | {"SAVE_TO": str(weights), "OMP_NUM_THREADS": "1", "GRADTUI_DIR": str(folder / "runs")}
    if script.launcher:
        before = [sys.executable, "-m", "gradtui", "run", "--every", "1"] if recorded else []
        words = [*before, sys.executable, *script.command()]
        done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
    else:
        if recorded:
            options = RecordOptions(every=1, folder=folder / "runs")
            env |= prepare([sys.executable, *script.command()], options).environment
        done = forked_python.run(script.command(), cwd=folder, env=env, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "unrecorded" not in done.stderr and "not recorded" not in done.stderr, done.stderr[-2000:]
    saved: dict[str, torch.Tensor] = torch.load(weights, weights_only=True)
    return done.stdout, saved


@pytest.mark.timeout(210)
@pytest.mark.parametrize("script", ALL, ids=lambda script: script.path)
def test_a_script_runs_recorded_as_it_does_alone_and_every_parameter_is_in_a_layer(
    script: Script, tmp_path: Path
) -> None:
    if script.needs:
        pytest.importorskip(script.needs)
    output, recorded = run(script, tmp_path / "recorded", recorded=True)
    assert re.search(script.says, output), output
    assert recorded
    if not script.findings:
        output, alone = run(script, tmp_path / "alone", recorded=False)
        assert re.search(script.says, output), output
        torch.testing.assert_close(recorded, alone, rtol=0, atol=0, equal_nan=True)

    (path,) = (tmp_path / "recorded" / "runs").glob("*.gradtui")
    with open_run(path) as reader:
        layers, rows = reader.layers(), reader.overview()
        assert reader.header.name == Path(script.path).stem
        assert reader.status().state == "finished"
        found = {finding.kind for finding in diagnose(path)}
    trained = [weight for name, weight in recorded.items() if not name.endswith(BUFFERS)]
    assert sum(layer.parameters for layer in layers) == sum(weight.numel() for weight in trained)
    assert not any(layer.name.startswith("tensor ") for layer in layers)
    measured = is_measured(rows.maximum[:, :, GRAD_NORM]).any(axis=0)
    assert measured.sum() == len(layers) - script.still
    losses = rows.loss_mean[np.isfinite(rows.loss_mean)]
    assert len(losses) > 10 or (len(losses) > 2 and script.path == "lbfgs.py")
    assert found == set(script.findings)


def test_no_script_is_left_out() -> None:
    files = {path.relative_to(SCRIPTS).as_posix() for path in SCRIPTS.rglob("*.py")}
    assert files == {script.path for script in ALL}


def test_no_script_knows_the_recorder() -> None:
    assert not [path.name for path in SCRIPTS.rglob("*.py") if "gradtui" in path.read_text()]
