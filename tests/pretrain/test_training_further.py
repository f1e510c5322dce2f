"""A training that has finished goes on with more epochs: in Python, from a checkpoint, and by the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretrain.__main__ import main
from pretrain.checkpoint import load, pack, save, unpack
from pretrain.data import digits
from pretrain.errors import DataError
from pretrain.finetuning import finetune
from pretrain.greedy import train_greedily
from pretrain.nets import classifier
from pretrain.objective import evaluate
from pretrain.rbm import RBM
from pretrain.stack import load_net, load_stack
from tests.pretrain.layers import KillAt, Killed, stack, weights

torch.set_num_threads(1)
X = torch.rand(40, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 3


def make_rbm(inputs: int, outputs: int, generator: torch.Generator) -> RBM:
    return RBM(inputs, outputs, generator=generator)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def trained(layers: list[nn.Module], epochs: int, **settings: Any) -> list[list[float]]:
    return train_greedily(layers, X, epochs=epochs, batch_size=8, generator=seeded(), **settings).errors


def test_one_layer_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    whole, again = stack(make_rbm, 6, 4), stack(make_rbm, 6, 4)
    errors = trained(whole, 7)
    trained(again, 4, checkpoint=tmp_path / "c")
    assert trained(again, 7, checkpoint=tmp_path / "c") == errors
    assert torch.equal(weights(again), weights(whole))


def test_several_layers_go_on_from_the_lowest_up_and_survive_a_kill(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def tell(progress: Any) -> None:
        seen.append((progress.index, progress.epoch))

    first, killed = stack(make_rbm, 6, 5, 4), stack(make_rbm, 6, 5, 4)
    for layers, path in ((first, tmp_path / "a"), (killed, tmp_path / "b")):
        trained(layers, 2, checkpoint=path)
    before = weights(first).clone()
    errors = trained(first, 4, checkpoint=tmp_path / "a", on_epoch=tell)
    assert seen == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert [len(of_layer) for of_layer in errors] == [4, 4] and not torch.equal(weights(first), before)
    for steps in (3, 14):
        with pytest.raises(Killed):
            trained(killed, 4, checkpoint=tmp_path / "b", checkpoint_every=0, on_step=KillAt(steps))
        killed = stack(make_rbm, 6, 5, 4)  # a new process
    assert trained(killed, 4, checkpoint=tmp_path / "b") == errors
    assert torch.equal(weights(killed), weights(first))


def test_one_that_was_stopped_half_way_must_finish_first(tmp_path: Path) -> None:
    layers, calls = stack(make_rbm, 6, 5, 4), iter([False] * 13 + [True])
    result = train_greedily(
        layers, X, epochs=2, batch_size=8, checkpoint=tmp_path / "c", should_stop=lambda: next(calls)
    )
    assert not result.finished and len(result.errors) == 2
    with pytest.raises(DataError, match="stopped in layer 2: let it finish its 2 epochs first"):
        trained(stack(make_rbm, 6, 5, 4), 3, checkpoint=tmp_path / "c")
    with pytest.raises(DataError, match="its epochs is"):
        trained(stack(make_rbm, 6, 5, 4), 1, checkpoint=tmp_path / "c")


def test_epochs_before_count_and_are_not_repeated() -> None:
    rates: list[float] = []
    layers = stack(make_rbm, 6, 5, 4)
    trained(layers, 4, epochs_before=[3, 4], momentum=float, on_epoch=lambda at: rates.append(at.epoch))
    assert rates == [3]


def test_a_net_goes_on_bit_for_bit_and_never_gets_worse(tmp_path: Path) -> None:
    def net() -> nn.Sequential:
        return classifier(stack(make_rbm, 6, 5), 3, seeded())

    def tuned(model: nn.Sequential, epochs: int, **settings: Any) -> Tensor:
        finetune(model, X, LABELS, epochs=epochs, batch_size=8, generator=seeded(), **settings)
        return weights([model])

    whole, again = net(), net()
    tuned(again, 3, checkpoint=tmp_path / "c")
    assert torch.equal(tuned(again, 5, checkpoint=tmp_path / "c"), tuned(whole, 5))
    error = evaluate(whole, X, LABELS)
    tuned(whole, 9, epochs_before=5, optimizer="sgd", learning_rate=50.0, validation=(X, LABELS), patience=9)
    assert evaluate(whole, X, LABELS) <= error, "worse weights than those before are not kept"


FIT = ["--data", "digits", "--layers", "20,10", "--batch-size", "100"]


def epochs_in(folder: Path, command: str) -> list[tuple[int, int]]:
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(line.get("layer", 0), line["epoch"]) for line in found if line["command"] == command]


def test_the_commands_train_further_with_more_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path)
    assert main(["fit", folder, *FIT, "--epochs", "2"]) == 0
    before = weights(list(load_stack(tmp_path / "layers.safetensors").layers))
    assert main(["fit", folder, *FIT, "--epochs", "2"]) == 0 and "nothing to do" in capsys.readouterr().err
    assert main(["fit", folder, *FIT, "--epochs", "1"]) == 1 and "not [1]" in capsys.readouterr().err
    assert main(["fit", folder, *FIT, "--epochs", "4,3"]) == 0
    stack = load_stack(tmp_path / "layers.safetensors")
    assert stack.about["settings"]["epochs"] == [4, 3]
    assert not torch.equal(weights(list(stack.layers)), before)
    assert sorted(epochs_in(tmp_path, "fit")) == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3)]
    capsys.readouterr()
    assert main(["fit", folder, *FIT, "--epochs", "4,3"]) == 0 and "nothing to do" in capsys.readouterr().err

    tune = ["finetune", folder, "--batch-size", "100"]
    assert main([*tune, "--epochs", "2"]) == 0
    net, _ = load_net(tmp_path / "net.safetensors")
    assert main([*tune, "--epochs", "3"]) == 0
    further, about = load_net(tmp_path / "net.safetensors")
    assert about["settings"]["epochs"] == 3 and epochs_in(tmp_path, "finetune") == [(0, 1), (0, 2), (0, 3)]
    data = digits().test
    assert evaluate(further, torch.from_numpy(data.images), data.labels) <= evaluate(
        net, torch.from_numpy(data.images), data.labels
    )


def test_layers_that_were_trained_up_and_down_stay_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", str(tmp_path), *FIT, "--up-down-epochs", "1", "--epochs"]
    assert main([*fit, "1"]) == 0
    assert main([*fit, "2"]) == 1 and "cannot be trained further" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("begun", [[1], "ab", [0.5, 1], [-1, 0], [10**30, 1], [None, None]])
def test_a_forged_checkpoint_of_epochs_that_cannot_be_is_refused_in_one_line(begun: Any, tmp_path: Path) -> None:
    trained(stack(make_rbm, 6, 5, 4), 2, checkpoint=tmp_path / "c")
    tensors, facts = load(tmp_path / "c")
    tree = unpack(tensors, facts["rest"])
    tensors, rest = pack({**tree, "begun": begun})
    save(tmp_path / "c", tensors, {**facts, "rest": rest})
    with pytest.raises(DataError) as caught:
        trained(stack(make_rbm, 6, 5, 4), 2, checkpoint=tmp_path / "c")
    assert "\n" not in str(caught.value)
