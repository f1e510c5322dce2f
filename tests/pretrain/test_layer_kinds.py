"""Kinds of layers that a user adds: trained, saved and loaded as what they are, or refused before training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pretrain
from pretrain import layers as layers_module
from pretrain.__main__ import main
from pretrain.autoencoder import Autoencoder
from pretrain.dbn import deep_belief_net
from pretrain.errors import DataError
from pretrain.estimators import DeepAutoencoder, PretrainedClassifier
from pretrain.greedy import train_greedily
from pretrain.layers import LAYERS, LayerKind, kind_of, register_layer, unregister_layer
from pretrain.rbm import RBM
from pretrain.stack import Stack, load_stack, save_stack
from tests.pretrain.layers import KillAt, Killed, weights

FIT = [
    "--data",
    "digits",
    "--layers",
    "12,8",
    "--epochs",
    "2",
    "--batch-size",
    "50",
    "--threads",
    "1",
    "--device",
    "cpu",
]


class Halved(RBM):
    """An RBM whose codes are half as large, so that a plain RBM in its place is noticed."""

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x) / 2


class Noisy(RBM):
    """One with an argument of its own."""

    def __init__(self, *sizes: int, jitter: float = 0.0, **arguments: Any) -> None:
        super().__init__(*sizes, **arguments)
        self.jitter = jitter

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"jitter": self.jitter}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Noisy:
        made = super().from_spec({name: value for name, value in spec.items() if name != "jitter"})
        made.jitter = spec["jitter"]
        return made


class Positional(RBM):
    """One that its own spec cannot make."""

    def __init__(self, sizes: tuple[int, int]) -> None:
        super().__init__(*sizes)


@pytest.fixture
def halved() -> Iterator[None]:
    register_layer("halved", Halved, description="codes half as large")
    yield
    unregister_layer("halved")


def images() -> Tensor:
    return torch.rand(40, 6, generator=torch.Generator().manual_seed(1))


def made(*kinds: type[RBM]) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(6, 5), (5, 4), (4, 3)]
    return [kind(*size, generator=generator) for kind, size in zip(kinds, sizes, strict=False)]


def test_ours_are_registered_by_their_names() -> None:
    ours = ["rbm", "autoencoder", "denoising", "contractive", "sparse", "supervised"]
    assert [name for name in LAYERS if name in ours] == ours
    assert kind_of(RBM(3, 2)).name == "rbm" and kind_of(Autoencoder(3, 2, kind="sparse")).name == "autoencoder"
    assert all(kind.description and kind.source for name, kind in LAYERS.items() if name in ours)
    assert [name for name in ours if LAYERS[name].supervised] == ["supervised"]


@pytest.mark.usefixtures("halved")
def test_a_registered_subclass_is_saved_and_loaded_as_itself(tmp_path: Path) -> None:
    layers = made(RBM, Halved)
    save_stack(tmp_path / "layers", Stack(layers))
    back = load_stack(tmp_path / "layers").layers
    assert [type(layer) for layer in back] == [RBM, Halved]
    assert torch.equal(weights(back), weights(layers))
    x = images()
    assert torch.equal(back[1].encode(back[0].encode(x)), layers[1].encode(layers[0].encode(x)))


def test_a_subclass_with_arguments_of_its_own_keeps_them(tmp_path: Path) -> None:
    register_layer("noisy", Noisy)
    try:
        save_stack(tmp_path / "layers", Stack([Noisy(6, 5, jitter=0.5, visible="gaussian")]))
        (back,) = load_stack(tmp_path / "layers").layers
    finally:
        unregister_layer("noisy")
    assert isinstance(back, Noisy) and back.jitter == 0.5 and back.visible == "gaussian"


@pytest.mark.usefixtures("halved")
def test_a_registered_subclass_killed_in_the_middle_ends_with_the_same_bits(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 8}
    whole = made(Halved, RBM)
    train_greedily(whole, images(), **settings)
    for call in (3, 12):
        path = tmp_path / str(call)
        with pytest.raises(Killed):
            train_greedily(
                made(Halved, RBM), images(), **settings, checkpoint=path, checkpoint_every=0, on_step=KillAt(call)
            )
        again = made(Halved, RBM)
        assert train_greedily(again, images(), **settings, checkpoint=path).finished
        assert torch.equal(weights(again), weights(whole))
        with pytest.raises(DataError, match="layer 1 is of the kind 'halved', this one of the kind 'rbm'"):
            train_greedily(made(RBM, RBM), images(), **settings, checkpoint=path)


@pytest.mark.usefixtures("halved")
def test_the_commands_train_evaluate_and_fine_tune_a_registered_subclass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(tmp_path), *FIT, "--unit", "halved"]) == 0
    layers = load_stack(tmp_path / "layers.safetensors").layers
    assert [type(layer) for layer in layers] == [Halved, Halved]
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    x = torch.from_numpy(pretrain.digits().test.images)
    rebuilt = layers[0].decode(layers[1].decode(layers[1].encode(layers[0].encode(x))))
    assert found["reconstruction_error"] == pytest.approx(float(((rebuilt - x) ** 2).sum(1).mean().detach()), rel=1e-4)
    assert main(["finetune", str(tmp_path), "--epochs", "1", "--device", "cpu"]) == 0


@pytest.mark.usefixtures("halved")
def test_the_estimators_take_what_is_registered() -> None:
    x, y = images().numpy(), [0, 1] * 20
    assert PretrainedClassifier(4, unit="halved", pretrain_epochs=1, epochs=1).fit(x, y).n_iter_ == 1
    unregister_layer("halved")
    with pytest.raises(ValueError, match="'unit' parameter"):
        DeepAutoencoder(4, unit="halved").fit(x)


def test_an_unregistered_subclass_is_refused_before_any_training(tmp_path: Path) -> None:
    steps: list[object] = []
    with pytest.raises(DataError) as caught:
        train_greedily(made(RBM, Halved), images(), epochs=1, checkpoint=tmp_path / "c", on_step=steps.append)
    assert "call pretrain.register_layer('halved', Halved)" in str(caught.value) and "\n" not in str(caught.value)
    assert not steps and not (tmp_path / "c").exists()
    with pytest.raises(DataError, match="register_layer"):
        save_stack(tmp_path / "layers", Stack(made(Halved)))
    assert not (tmp_path / "layers").exists()
    assert train_greedily(made(RBM, Halved), images(), epochs=1).finished, "what is not saved needs no name"


def test_the_layers_of_a_deep_belief_net_are_checked_one_by_one(tmp_path: Path) -> None:
    net = deep_belief_net(6, 5, 4)
    net.untie()
    assert train_greedily([net], images(), epochs=1, checkpoint=tmp_path / "c").finished
    net.layers[0] = Halved(6, 5)  # type: ignore[index]
    with pytest.raises(DataError, match="register_layer"):
        train_greedily([net], images(), epochs=1, checkpoint=tmp_path / "other")


def test_a_layer_that_its_spec_cannot_make_is_refused_before_any_training(tmp_path: Path) -> None:
    register_layer("positional", Positional)
    try:
        with pytest.raises(DataError, match="layer 1, 'positional', cannot be saved: TypeError") as caught:
            train_greedily([Positional((6, 5))], images(), checkpoint=tmp_path / "c")
    finally:
        unregister_layer("positional")
    assert "\n" not in str(caught.value)


def test_a_file_of_a_kind_that_is_not_registered_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    register_layer("halved", Halved)
    try:
        assert main(["fit", str(tmp_path), *FIT, "--unit", "halved"]) == 0
    finally:
        unregister_layer("halved")
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "'halved' is not registered" in said[0] and "register_layer" in said[0]


def test_checking_the_layers_draws_no_random_number(tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train_greedily(made(RBM), images(), epochs=1, checkpoint=tmp_path / "c")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_name_is_taken_once_and_a_class_that_is_no_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="'rbm' exists already"):
        register_layer("rbm", Halved)
    with pytest.raises(ValueError, match="'none'"):
        register_layer("none", Halved)
    with pytest.raises(TypeError, match="Linear has no encode, no decode"):
        register_layer("linear", torch.nn.Linear)


def test_a_kind_that_raises_while_it_makes_a_layer_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @register_layer("raises")
    class Raises(RBM):
        @classmethod
        def from_settings(cls, *_: Any, **__: Any) -> Raises:
            raise KeyError("gone\nwrong")

    try:
        assert main(["fit", str(tmp_path), *FIT, "--unit", "raises"]) == 1
    finally:
        unregister_layer("raises")
    assert capsys.readouterr().err.splitlines() == [
        "pretrain: a layer of the kind 'raises' cannot be made: KeyError: 'gone\\nwrong'"
    ]


def test_a_broken_reference_is_said_once_and_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    register_layer("gone", "no_such_module:Layer")
    try:
        LAYERS.entries["aaa"] = LayerKind("aaa", Halved)
        for _ in range(2):
            with pytest.raises(DataError, match="not registered"):
                kind_of(Positional((3, 2)))
            assert kind_of(Halved(3, 2)).name == "aaa"
    finally:
        unregister_layer("gone")
        unregister_layer("aaa")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'gone' cannot be loaded from no_such_module:Layer" in said


def test_packages_add_layers_by_entry_points_and_a_broken_one_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "added.py").write_text(
        "import pretrain\n\n@pretrain.register_layer('added')\nclass Added(pretrain.RBM):\n    pass\n"
    )
    (tmp_path / "broken.py").write_text("raise RuntimeError('not today')\n")
    info = tmp_path / "added-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{layers_module.ENTRY_POINTS}]\nadded = added\nbroken = broken\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pretrain", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)

    fitted = run("fit", str(tmp_path / "stack"), *FIT, "--unit", "added")
    assert fitted.returncode == 0, fitted.stderr
    assert fitted.stderr.count("'broken' of broken is left out (RuntimeError: not today)") == 1
    evaluated = run("evaluate", str(tmp_path / "stack"), "--json")
    assert evaluated.returncode == 0 and json.loads(evaluated.stdout)["examples"] == 300


def test_the_public_names_are_those_that_type_checkers_see() -> None:
    source = Path(str(pretrain.__file__)).read_text()
    seen = [line.split(" as ")[1] for line in source.splitlines() if line.startswith("    from pretrain.")]
    assert sorted(seen) == sorted(pretrain.__all__)
    for name in pretrain.__all__:
        assert getattr(pretrain, name) is not None
