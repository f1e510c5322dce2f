"""A checkpoint or an IDX file through the readers of pretrain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from fault_limits import BrokenPromiseError, bounded
from fault_readers import DAMAGED, SHOWN, check_lines

from pretrain.checkpoint import Keeper, fits
from pretrain.data import MNIST_FILES, read_idx
from pretrain.errors import DataError
from pretrain.stack import load_net, load_stack

LONGEST = 400  # characters of an error: 300 or so, and what an operating system says of a path


def through_pretrain(kind: str, path: Path) -> str:
    """SHOWN or DAMAGED; raises `BrokenPromiseError`, or what the reader must not raise."""
    try:
        with bounded():
            READERS[kind](path)
    except DataError as error:
        said = str(error)
        if "\n" in said or len(said) > LONGEST:
            raise BrokenPromiseError(f"an error has {len(said)} characters: {ascii(said)[:300]}") from error
        check_lines(said)
        return DAMAGED
    return SHOWN


def _stack(path: Path) -> None:
    stack = load_stack(path)
    x = torch.zeros(1, stack.layers[0].inputs)
    for layer in stack.layers:
        x = layer.encode(x)


def _net(path: Path) -> None:
    net, about = load_net(path)
    assert isinstance(about, dict)
    list(net.parameters())


def _state(path: Path) -> None:
    tree = Keeper(path, 0, {"epochs": 3, "layers": [6, 5]}).kept()
    net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Sigmoid(), torch.nn.Dropout(0.5), torch.nn.Linear(4, 2))
    with fits(path):
        assert tree is not None
        net.load_state_dict(tree["net"])
        torch.optim.Adam(net.parameters()).load_state_dict(tree["optimizer"])


def _idx(path: Path) -> None:
    read_idx(path)
    assert MNIST_FILES


READERS: dict[str, Callable[[Path], None]] = {"stack": _stack, "net": _net, "state": _state, "idx": _idx}
