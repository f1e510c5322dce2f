"""Files that somebody forged: an error of one short line, no code that runs, no memory that is promised alone."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrain import checkpoint
from pretrain.__main__ import main
from pretrain.data import read_idx
from pretrain.errors import DataError
from pretrain.greedy import train_greedily
from pretrain.rbm import RBM
from pretrain.sources import source
from pretrain.stack import Stack, load_net, load_stack, save_net, save_stack

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fault_files import forged_checkpoint
from fault_mutations import DEEP


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/a-pickle-was-run",)


def refused(read: Any, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        read()
    said = str(caught.value)
    assert said.isprintable() and len(said) <= 400
    assert all(word in said for word in words)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    save_stack(tmp_path / "layers", Stack([RBM(6, 5)], {"settings": {}}))
    return tmp_path / "layers"


@pytest.mark.parametrize(
    "facts",
    [
        "[]", "3", DEEP, '{"layers": 3, "about": {}, "recognition": []}', '{"about": 3, "layers": []}',
        '{"layers": [{"layer": "rbm", "inputs": 1000000, "outputs": 1000000}], "recognition": [], "about": {}}',
        '{"layers": [], "recognition": [[100000, 100000]], "about": {}}',
        json.dumps({"layers": [{"layer": "\x1b[31m" + "x" * 100_000}], "recognition": [], "about": {}}),
        '{"layers": [], "about": ' + "9" * 5_000 + "}",
    ],
)  # fmt: skip
def test_a_stack_of_forged_facts(facts: str, stack: Path) -> None:
    stack.write_bytes(forged_checkpoint(stack.read_bytes(), facts, {}))
    refused(lambda: load_stack(stack))


@pytest.mark.parametrize("size", [[1e9, 1e9], [10**6, 10**6], [-1, 4], ["a", "b"], [4]])
def test_a_net_of_forged_sizes(size: list[Any], tmp_path: Path) -> None:
    save_net(tmp_path / "net", torch.nn.Sequential(torch.nn.Linear(6, 4)), {})
    facts = json.dumps({"modules": [["0", "Linear", size]], "about": {}})
    (tmp_path / "net").write_bytes(forged_checkpoint((tmp_path / "net").read_bytes(), facts, {}))
    refused(lambda: load_net(tmp_path / "net"))


@pytest.mark.parametrize(
    "rest", ['{"dict": 3}', '{"dict": [[[1], 2]]}', '{"tensor": "no"}', '{"a": 1, "b": 2}', "3", '{"list": 5}', DEEP]
)
def test_a_state_of_forged_nests(rest: str, tmp_path: Path) -> None:
    keeper = checkpoint.Keeper(tmp_path / "state", 0, {"epochs": 3})
    keeper.keep({"w": torch.ones(3)})
    facts = f'{{"settings": {{"epochs": 3}}, "rest": {rest}}}'
    (tmp_path / "state").write_bytes(forged_checkpoint((tmp_path / "state").read_bytes(), facts, {}))
    refused(lambda: checkpoint.Keeper(tmp_path / "state", 0, {"epochs": 3}).kept())


@pytest.mark.parametrize(
    ("name", "value"),
    [("errors", 3), ("errors", {"list": []}), ("errors", {"list": [3]}), ("layer", "x"), ("layer", -1), ("layer", 7),
     ("layers", 1), ("passes", 1)],
)  # fmt: skip
def test_a_forged_state_of_a_greedy_training(name: str, value: Any, tmp_path: Path) -> None:
    path, x = tmp_path / "state", torch.rand(20, 6)
    train_greedily([RBM(6, 5)], x, epochs=1, batch_size=10, checkpoint=path)
    _, facts = checkpoint.load(path)
    facts["rest"]["dict"] = [[key, value if key == name else kept] for key, kept in facts["rest"]["dict"]]
    path.write_bytes(forged_checkpoint(path.read_bytes(), json.dumps(facts), {}))
    refused(lambda: train_greedily([RBM(6, 5)], x, epochs=1, batch_size=10, checkpoint=path), "state")


@pytest.mark.parametrize("about", [{}, {"settings": 3, "image_shape": 5}, {"settings": {"data": 7, "scale": "x"}}])
def test_layers_that_do_not_say_how_they_were_trained(
    about: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_stack(tmp_path / "layers.safetensors", Stack([RBM(64, 5)], about))
    for words in (["evaluate"], ["features", "--out", str(tmp_path / "f.npy")], ["finetune"]):
        assert main([words[0], str(tmp_path), *words[1:]]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "name the data with --data" in line
    assert main(["sample", str(tmp_path), "--count", "2", "--steps", "2", "--out", str(tmp_path / "s.npy")]) == 0
    assert np.load(tmp_path / "s.npy").shape == (2, 64)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: checkpoint.load(tmp_path / "pipe"))
    refused(lambda: load_stack(tmp_path / "pipe"))
    refused(lambda: read_idx(tmp_path / "pipe"))


def test_no_pickle_is_run(tmp_path: Path) -> None:
    evil = pickle.dumps(Evil())
    for name in ("layers", "x.npy"):
        (tmp_path / name).write_bytes(evil)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": (1, 1)})
    (tmp_path / "y.npy").write_bytes(head.getvalue() + evil)
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as file:
        file.writestr("images.npy", head.getvalue() + evil)
    torch.save({"layers": Evil()}, tmp_path / "torch")
    refused(lambda: load_stack(tmp_path / "layers"))
    refused(lambda: load_stack(tmp_path / "torch"))
    for name in ("x.npy", "y.npy", "z.npz"):
        refused(lambda name=name: source(str(tmp_path / name)))
    assert not Path("/tmp/a-pickle-was-run").exists()


def test_what_is_promised_alone_takes_no_memory(tmp_path: Path) -> None:
    head = bytes([0, 0, 8, 3]) + struct.pack(">III", 1000, 1000, 1000)
    (tmp_path / "plain").write_bytes(head + bytes(1000))
    (tmp_path / "packed").write_bytes(gzip.compress(head + bytes(10_000_000)))
    (tmp_path / "huge").write_bytes(bytes([0, 0, 14, 8]) + b"\xff" * 32)
    tracemalloc.start()
    try:
        for name in ("plain", "packed", "huge"):
            refused(lambda name=name: read_idx(tmp_path / name), name)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_of_an_npz_only_what_is_used_is_unpacked(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.ones((3, 2), np.float32), labels=np.zeros(3, np.int64))
    with zipfile.ZipFile(tmp_path / "a.npz", "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.npy", b"no array at all")
    assert len(source(str(tmp_path / "a.npz")).train.images) == 3


_WHOLE: dict[str, bytes] = {}


def _whole() -> dict[str, bytes]:
    if not _WHOLE:
        for compressed in (False, True):
            file = io.BytesIO()
            (np.savez_compressed if compressed else np.savez)(file, images=np.eye(4), labels=np.arange(4))
            _WHOLE[f"{compressed}.npz"] = file.getvalue()
        file = io.BytesIO()
        np.save(file, np.eye(4))
        _WHOLE["x.npy"] = file.getvalue()
    return _WHOLE


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["False.npz", "True.npz", "x.npy"]),
    keep=st.floats(0.5, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
def test_damaged_arrays_are_a_data_error_or_are_read(
    tmp_path: Path, name: str, keep: float, flips: list[tuple[float, int]]
) -> None:
    content = bytearray(_whole()[name])
    for place, value in flips:
        content[int(place * (len(content) - 1))] = value
    (tmp_path / name).write_bytes(content[: int(keep * len(content)) if keep < 0.9 else len(content)])
    try:
        source(str(tmp_path / name))
    except DataError as error:
        assert str(error).isprintable() and len(str(error)) <= 400
