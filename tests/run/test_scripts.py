"""Training scripts as their authors left them, alone and under `gradtui run`: the same weights, and everything seen."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gradtui.diagnosis import diagnose
from gradtui.runfile import is_measured, open_run
from tests.record.columns_of_ours import ACTIVATION_MEAN, GRAD_NORM
from tests.run.script import SCRIPTS, Script, run

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # saved with the weights, but not trained


ALL = [
    Script("plain_loop.py", r"Finished Training\nAccuracy of the network on the 297 test images: [89]\d %"),
    Script("trainer_class.py", r"epoch 5/5 .* valid_acc (0\.9|1\.0)"),
    Script("subcommands.py", r"epoch 1 .* acc [89]\d\.\d\d%", words=("train", "--epochs", "2")),
    Script("gan.py", r"\[2/3\]\[14/28\] Loss_D: \d"),
    Script("rnn_manual.py", r"240/240 iterations .* loss  0\.\d\d "),
    Script("ddp.py", r"(?s)world size 2\n.*test accuracy 0\.[89]", ranks=2),
    Script("autocast_bf16.py", r"logits torch\.bfloat16\ntest acc 0\.[89]"),
    Script("accumulate.py", r"Epoch 4 - avg_train_loss: 0\.[01]"),
    Script("lbfgs.py", r"Error u: \d\.\d+e-0[3-9]"),
    Script("compiled.py", r"iter 60: loss 0\.0", is_sampled=True),
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


@pytest.mark.timeout(210)
@pytest.mark.parametrize("script", ALL, ids=lambda script: script.path)
def test_a_script_runs_recorded_as_it_does_alone_and_every_parameter_is_in_a_layer(
    script: Script, tmp_path: Path
) -> None:
    if script.needs:
        pytest.importorskip(script.needs)
    output, recorded = run(script, tmp_path / "recorded", recorded=True, every=1)
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
    sampled = is_measured(rows.maximum[:, :, ACTIVATION_MEAN]).any(axis=0)
    assert sampled.all() or not script.is_sampled
    losses = rows.loss_mean[np.isfinite(rows.loss_mean)]
    assert len(losses) > 10 or (len(losses) > 2 and script.path == "lbfgs.py")
    assert found == set(script.findings)


def test_no_script_is_left_out() -> None:
    files = {path.relative_to(SCRIPTS).as_posix() for path in SCRIPTS.rglob("*.py")}
    assert {file for file in files if not file.startswith("loops/")} == {script.path for script in ALL}


def test_no_script_knows_the_recorder() -> None:
    assert not [path.name for path in SCRIPTS.rglob("*.py") if "gradtui" in path.read_text()]
