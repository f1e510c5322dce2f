"""Whole files of each kind, small, from which `fault_fuzz.py` makes damaged ones."""

from __future__ import annotations

import gzip
import json
import sqlite3
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gradtui.lab.plan import Plan
from gradtui.lab.recipe import Recipe
from gradtui.runfile import Finding, Header, Layer, Measure, Pictures, RunWriter
from gradtui.runfile.schema import Origin
from pretrain import checkpoint
from pretrain.autoencoder import Autoencoder
from pretrain.rbm import RBM
from pretrain.stack import Stack, save_net, save_stack

# names as they come from scripts of others, and as nobody should have them
HOSTILE = (
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "a\nb", "a\tb", "a\r\x1b[2K", "\x9b2J", "\x85next", "right\u202eleft",
    "zero\u200bwidth", "x" * 10_000, "[bold]", "[/]", "a[/b]", "<script>alert(1)</script>", "%s%n{0}", 'a,"b",\'c\'',
    "=1+1", "$x_1$", "_hidden", ":warning:", "\x00nul\x7f", "line\u2028break", "", " ", "e\u0301\u0301\u0301", "é層",
)  # fmt: skip
MEASURES = (
    Measure("bias_grad_norm", "‖∂C/∂b‖", "cost per unit bias", "the learning speed", "Learning speed"),
    Measure("grad_norm", "‖∂C/∂θ‖", "1", "of all parameters", "Gradient"),
    Measure("weight_grad_norm", "‖∂C/∂W‖", "1", "of the weights", "Gradient of the weights"),
    Measure("update_ratio", "‖Δθ‖/‖θ‖", "1", "the step really taken", "Update ratio", "updates"),
    Measure("dead", "dead", "1", "units that are 0", "Dead", "outputs"),
)


@dataclass(frozen=True)
class Whole:
    """A file's kind, its name, and what is in it."""

    kind: str
    name: str
    content: bytes


def whole_files() -> list[Whole]:
    """All of them."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        return [*_runs(place), *_plans(place), *_checkpoints(place), *_idx()]


def write_run(path: Path, names: tuple[str, ...], steps: int, *, ended: bool = True) -> None:
    """A run with something in every table."""
    header = Header("run " + names[0], ["python", *names], {"data": names[-1]}, 1.7e9, "host", 1, "machine", "0")
    writer = RunWriter(path, header, MEASURES)
    kinds = {"weight": (4, 3), "bias": (4,)}
    writer.set_layers([Layer(name, "Linear", kinds, 16, (3,), (4,)) for name in names])
    draws = np.random.default_rng(0)
    for step in range(1, steps + 1):
        values = draws.random((len(names), len(MEASURES)), np.float32) * np.float32(1e-3)
        writer.step(step, step / 10, step / 5, 1 / step, 0.1, values.tobytes())
    for step in (10, 20):
        writer.neurons(step, {0: values[0]})
        writer.through_time(step, {"h1": values[0], names[0]: values[0]})
        writer.pictures(Pictures(step, names[-1], names[0], 2, 2, -1.0, 1.0, bytes(8)))
        writer.scalar(step, step / 10, "val_accuracy", 0.5)
        writer.scalar(step, step / 10, names[-1], 0.5)
    writer.event("note", names[0], 5)
    writer.origin(Origin(7, "forward", 1, names[-1]))
    writer.finding(1, Finding("vanishing", names[:2], 3, names[0], {"ratio": 0.1}, ("relu", names[-1])))
    writer.finding(2, Finding("grokking", (), 3, "of a later version", {}, ("wait",), note=True, end=9))
    if ended:
        writer.close("failed", names[0])
        return
    writer.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM ending")
    connection.close()


def _runs(folder: Path) -> list[Whole]:
    found = []
    tame = ("fc1", "fc2", "head")
    # a name that SQLite cannot hold is what the writer sees to
    for number, (names, ended, page) in enumerate(((tame, True, 1024), (HOSTILE, True, 4096), (tame, False, 512))):
        path = folder / f"{number}.gradtui"
        write_run(path, names, 40 if names is tame else 20, ended=ended)
        with sqlite3.connect(path, isolation_level=None) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute(f"PRAGMA page_size = {page}")
            connection.execute("VACUUM")  # small: each damage is likelier to hit something
        connection.close()
        found.append(Whole("run", "hurt.gradtui", path.read_bytes()))
    return found


def _plans(folder: Path) -> list[Whole]:
    recipes = {label: Recipe(name=label) for label in ("tame", *HOSTILE[:12])}
    Plan(folder / "x.compare", HOSTILE[0], HOSTILE[2], recipes, (0, 1), 0.3).save()
    return [Whole("plan", "plan.json", (folder / "x.compare" / "plan.json").read_bytes())]


def _checkpoints(folder: Path) -> list[Whole]:
    torch.manual_seed(0)
    layers = [RBM(6, 5), Autoencoder(5, 4)]
    save_stack(folder / "layers", Stack(layers, {"settings": {"data": "digits"}}))
    net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Sigmoid(), torch.nn.Dropout(0.5), torch.nn.Linear(4, 2))
    save_net(folder / "net", net, {"settings": {"data": "digits"}})
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 6)).sum().backward()
    optimizer.step()
    keeper = checkpoint.Keeper(folder / "state", 0, {"epochs": 3, "layers": [6, 5]})
    keeper.keep({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": 3, "errors": [[0.5], [1.0]]})
    names = {"layers": "stack", "net": "net", "state": "state"}
    return [Whole(kind, "hurt.safetensors", (folder / name).read_bytes()) for name, kind in names.items()]


def _idx() -> list[Whole]:
    pixels, labels = np.arange(5 * 28 * 28, dtype=np.uint8), np.arange(5, dtype=np.uint8)
    images = struct.pack(">BBBBIII", 0, 0, 8, 3, 5, 28, 28) + pixels.tobytes()
    doubles = struct.pack(">BBBBI", 0, 0, 0x0E, 1, 5) + labels.astype(">f8").tobytes()
    return [
        Whole("idx", "train-images-idx3-ubyte", images),
        Whole("idx", "train-images-idx3-ubyte.gz", gzip.compress(images, mtime=0)),
        Whole("idx", "train-labels-idx1-ubyte", struct.pack(">BBBBI", 0, 0, 8, 1, 5) + labels.tobytes()),
        Whole("idx", "doubles", doubles),
    ]


def forged_checkpoint(whole: bytes, facts: str, header: dict[str, str]) -> bytes:
    """The tensors of a checkpoint with other facts, and a checksum that fits them."""
    size = struct.unpack("<Q", whole[:8])[0]
    index = json.loads(whole[8 : 8 + size])
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(whole)
        file.flush()
        tensors, _ = checkpoint.load(Path(file.name))
    index["__metadata__"] = {
        "pretrain": "1",
        "crc32": str(checkpoint._checksum(tensors, facts)),
        "facts": facts,
        **header,
    }
    text = json.dumps(index).encode()
    return struct.pack("<Q", len(text)) + text + whole[8 + size :]
