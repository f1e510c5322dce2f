"""Checkpoints: what goes in comes out bit for bit, damage is noticed, and a stop while writing harms nothing."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain import checkpoint
from pretrain.checkpoint import Keeper, load, pack, save, unpack
from pretrain.errors import DataError

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(tree=trees)
def test_any_nest_comes_back(tree: Any) -> None:
    tensors, rest = pack(tree)
    assert unpack(tensors, json.loads(json.dumps(rest))) == tree


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    odd = torch.tensor([math.nan, -0.0, math.inf, 5e-324], dtype=torch.float64)
    held = {
        "odd": odd,
        "half": torch.randn(3, 2).to(torch.bfloat16),
        "scalar": torch.tensor(3.0),
        "none": torch.empty(0, 4),
        "turned": torch.arange(6).reshape(2, 3).t(),
        "generator": torch.Generator().get_state(),
    }
    save(tmp_path / "c", {**held, "shared": held["turned"].t()}, {"nan": math.nan, "sum": 0.1 + 0.2})
    tensors, facts = load(tmp_path / "c")
    for name, tensor in held.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert tensors[name].contiguous().numel() == tensor.numel()
        if tensor.numel():
            assert torch.equal(
                tensors[name].reshape(-1).view(torch.uint8), tensor.contiguous().reshape(-1).view(torch.uint8)
            )
    assert facts["sum"] == 0.1 + 0.2
    assert math.isnan(facts["nan"])


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.LBFGS, lambda p: torch.optim.SGD(p, momentum=0.9)])
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(make: Any, tmp_path: Path) -> None:
    def trained(stop_after: int | None) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.linspace(-1, 2, 5))
        optimizer = make([weight])

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            cost = ((weight - 1) ** 4).sum()
            torch.autograd.backward(cost)
            return cost.detach()

        for step in range(6):
            if step == stop_after:
                tensors, rest = pack({"weight": weight.detach(), "optimizer": optimizer.state_dict()})
                save(tmp_path / "c", tensors, {"rest": rest})
                tensors, facts = load(tmp_path / "c")
                kept = unpack(tensors, facts["rest"])
                weight = torch.nn.Parameter(kept["weight"])
                optimizer = make([weight])
                optimizer.load_state_dict(kept["optimizer"])
            optimizer.step(closure)
        return weight.detach()

    assert torch.equal(trained(None), trained(3))


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c"
    save(path, {"weight": torch.randn(4, 3)}, {"note": "x" * 20})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(DataError) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_a_file_cut_short_anywhere_is_a_data_error_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c"
    save(path, {"weight": torch.randn(4, 3)}, {})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=50)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_data_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("checkpoint") / "c"
    path.write_bytes(content)
    with pytest.raises(DataError):
        load(path)


def test_another_version_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    save(tmp_path / "c", {}, {})
    monkeypatch.undo()
    with pytest.raises(DataError, match="of version 2, this program reads version 1"):
        load(tmp_path / "c")


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(DataError):
            load(path)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_stop_while_writing_leaves_the_old_one(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c"
    save(path, {"weight": torch.zeros(3)}, {})

    def stop(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os if broken == "fsync" else Path, broken, stop)
    with pytest.raises(DataError, match="no space left"):
        save(path, {"weight": torch.ones(3)}, {})
    monkeypatch.undo()
    assert torch.equal(load(path)[0]["weight"], torch.zeros(3))


def test_the_keeper_keeps_when_it_is_time(tmp_path: Path) -> None:
    now = [0.0]
    keeper = Keeper(tmp_path / "c", 10, {"size": (2, 3)}, lambda: now[0])
    assert not keeper.due()
    now[0] = 10
    assert keeper.due()
    keeper.keep({"weight": torch.ones(2)})
    assert not keeper.due()
    kept = Keeper(tmp_path / "c", 10, {"size": (2, 3)}).kept()
    assert kept is not None
    assert torch.equal(kept["weight"], torch.ones(2))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    Keeper(tmp_path / "c", 0, {"batch_size": 10}).keep({})
    with pytest.raises(DataError, match="its batch_size is 10, this one's 20"):
        Keeper(tmp_path / "c", 0, {"batch_size": 20}).kept()


def test_without_a_path_nothing_is_kept() -> None:
    keeper = Keeper(None, 0, {})
    keeper.keep({"weight": torch.ones(2)})
    assert not keeper.due()
    assert keeper.kept() is None


def test_a_checkpoint_is_not_written_through_a_link_in_place_of_its_draft(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("somebody else's")
    (tmp_path / "a.safetensors.draft").symlink_to(victim)
    save(tmp_path / "a.safetensors", {"weight": torch.ones(2)}, {})
    assert victim.read_text() == "somebody else's"
    assert torch.equal(load(tmp_path / "a.safetensors")[0]["weight"], torch.ones(2))
    assert sorted(path.name for path in tmp_path.glob("a.*")) == ["a.safetensors"]
