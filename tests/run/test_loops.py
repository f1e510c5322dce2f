"""Twenty training loops of the kinds that people publish, 200 steps each, recorded as `gradtui run` does by default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gradtui.diagnosis import findings_of
from gradtui.runfile import RunReader, is_measured, open_run
from tests.record.columns_of_ours import GRAD_NORM
from tests.run.script import SCRIPTS, Script, run

STATE = ("running_mean", "running_var", "num_batches_tracked", "weight_u")  # saved with the weights, but not trained
LEAST_MEASURED = 20  # steps of 200, of each layer that is trained

LOOPS = [
    Script("loops/gan_in_turns.py", r"200 iterations, D \d"),
    Script("loops/wgan_gp.py", r"iteration 40 wasserstein \d"),
    Script("loops/ppo.py", r"updates 192 value loss \d"),
    Script("loops/maml.py", r"200 meta-steps, loss [1-4]\."),
    Script("loops/pinn.py", r"adam \d\.\d+e-03\nlbfgs \d\.\d+e-0[45]"),
    Script("loops/forward_forward.py", r"trained 2 layers"),
    Script("loops/hogwild.py", r"exit codes \[0, 0\]", runs=2, copies=2, is_repeatable=False),
    Script("loops/ddp_ranks.py", r"200 steps on 2 ranks, loss 0\.", ranks=2),
    Script("loops/grad_updates.py", r"200 steps, loss 0\.0"),
    Script("loops/two_threads.py", r"4673 parameters: loss 0\.00", runs=2),
    Script("loops/jit_scripted.py", r"200 steps, loss 0\.0"),
    Script("loops/lora.py", r"step 200 loss 0\.[1-5]", still=25),
    Script("loops/normed_weights.py", r"200 steps, loss 0\.[0-4]"),
    Script("loops/tied_weights.py", r"iter 200: loss 0\.[0-3]"),
    Script("loops/func_adam.py", r"step 200 loss 0\.0"),
    Script("loops/makemore.py", r"200/200: [01]\."),
    Script("loops/dqn.py", r"updates 200 td loss 0\.0"),
    Script("loops/vae.py", r"Average loss: [23]\d\."),
    Script("loops/muon.py", r"step:200 train_loss:0\.[01]"),
    Script("loops/byol.py", r"200 steps, loss 0\.", still=3),
    Script("loops/ppo.py", r"updates 192 value loss \d"),
    Script("loops/forward_forward.py", r""),
    Script("loops/sac.py", r"200 steps, qf_loss \d"),
]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: Path(loop.path).stem)
def test_a_loop_is_seen_whole_and_nothing_is_said_against_it(loop: Script, tmp_path: Path) -> None:
    output, recorded = run(loop, tmp_path / "recorded", recorded=True)
    assert re.search(loop.says, output), output
    if loop.is_repeatable:
        _, alone = run(loop, tmp_path / "alone", recorded=False)
        torch.testing.assert_close(recorded, alone, rtol=0, atol=0)
    runs = sorted((tmp_path / "recorded" / "runs").glob("*.gradtui"))
    assert len(runs) == loop.runs
    trained = sorted(tuple(weight.shape) for name, weight in recorded.items() if not name.endswith(STATE))
    shapes: list[tuple[int, ...]] = []
    for path in runs:
        with open_run(path) as reader:
            assert reader.status().state == "finished"
            shapes += shapes_of(reader)
            assert not any(re.fullmatch(r"tensor \d+|self", layer.name) for layer in reader.layers())
            measured = is_measured(reader.newer(0).measures[:, :, GRAD_NORM]).sum(axis=0)
            assert np.count_nonzero(measured >= LEAST_MEASURED) == len(reader.layers()) - loop.still, measured
            assert [finding for finding in findings_of(reader) if not finding.note] == []
    assert sorted(shapes) == sorted(loop.copies * trained)


def shapes_of(reader: RunReader) -> Iterator[tuple[int, ...]]:
    for layer in reader.layers():
        yield from map(tuple, layer.shapes.values())


def test_no_loop_is_left_out() -> None:
    assert {file.name for file in (SCRIPTS / "loops").glob("*.py")} == {Path(loop.path).name for loop in LOOPS}
