"""What the commands can be told, by flags or by a TOML file; flags go before."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from pretrain.data import DataError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

UNITS = ("rbm", "autoencoder", "denoising", "contractive", "sparse", "supervised")
T = TypeVar("T")


def _set(default: Any, help: str, *, choices: tuple[str, ...] = (), metavar: str = "") -> Any:
    return field(default=default, metadata={"help": help, "choices": choices, "metavar": metavar})


@dataclass(frozen=True)
class Common:
    """What every training is told."""

    data: str = _set("", "digits, mnist, or a file: NAME.npz, NAME.npy (default: {data})", metavar="DATA")
    data_dir: str = _set("", "the folder of MNIST's IDX files (default: $GRADTUI_DATA)", metavar="DIR")
    labels: str = _set("", "labels [n] for an .npy file", metavar="FILE.npy")
    scale: float = _set(0.0, "divide the data by this (default: bytes by 255, others by 1)", metavar="NUMBER")
    batch_size: int = _set(0, "examples a step (default: 100; 1000 for lbfgs and cg)")
    decay: bool = _set(False, "let the learning rate fall linearly to nothing over the epochs")
    momentum: float = _set(-1.0, "of stochastic gradient descent (default: ½, from the 6th epoch 0.9; fine-tuning 0.9)")
    precision: str = _set("float32", "of the matrix products", choices=("float32", "bfloat16"))
    seed: int = _set(0, "of all random numbers")
    device: str = _set("auto", "where to train", choices=("auto", "cpu", "cuda", "mps"))
    threads: int = _set(0, "processor threads (default: torch's own choice)")
    memory: float = _set(1.0, "gigabytes of data to hold in memory; more are streamed", metavar="GB")
    checkpoint_every: float = _set(5.0, "keep the state every so many minutes", metavar="MINUTES")


@dataclass(frozen=True)
class FitSettings(Common):
    """What `fit` is told."""

    usual_data = "digits"

    layers: tuple[int, ...] = _set((500, 500), "units of the hidden layers, from the data up", metavar="N,N,…")
    unit: str = _set("rbm", "what each layer is trained as", choices=UNITS)
    visible: str = _set("bernoulli", "the data: probabilities, or any numbers", choices=("bernoulli", "gaussian"))
    hidden: str = _set("bernoulli", "hidden units of machines", choices=("bernoulli", "rectified"))
    label_units: bool = _set(False, "the top machine learns the labels too (a deep belief net)")
    up_down_epochs: int = _set(0, "then train the belief net up and down for so many epochs")
    epochs: tuple[int, ...] = _set((10,), "of each layer: one number, or one a layer", metavar="N,N,…")
    learning_rate: float = _set(0.0, "(default: 0.1 for machines, 0.001 for other units and layers)")
    method: str = _set("cd", "of machines", choices=("cd", "pcd", "fast-pcd", "tempering", "noise"))
    steps: int = _set(1, "of Gibbs sampling a step of training")
    chains: int = _set(100, "persistent chains of pcd, fast-pcd and tempering")
    temperatures: int = _set(10, "of each chain of tempering")
    burn_in: int = _set(0, "of the steps of noise, those that do not count")
    fast_rate: float = _set(0.05, "learning rate of fast-pcd's fast weights")
    centred: bool = _set(False, "the centred gradient of machines")
    clip: float = _set(0.0, "bound on the norm of a machine's gradient")
    weight_cost: float = _set(0.0002, "L2 decay of machines")
    l1_cost: float = _set(0.0, "L1 decay of machines")
    sparsity_cost: float = _set(0.0, "how strongly machines' units are pulled to the target")
    sparsity_target: float = _set(0.05, "mean activity that is wanted of machines' and sparse layers' units")
    activation: str = _set("sigmoid", "of autoencoders", choices=("sigmoid", "tanh", "relu", "linear"))
    untied: bool = _set(False, "autoencoders get decoder weights of their own")
    noise: str = _set("masking", "of denoising layers", choices=("masking", "gaussian", "salt-and-pepper"))
    level: float = _set(0.25, "of that noise: a probability, or a standard deviation")
    contraction: float = _set(0.1, "weight of contractive layers' penalty")
    pass_on: str = _set("probabilities", "what the next layer learns from", choices=("probabilities", "samples"))


@dataclass(frozen=True)
class FinetuneSettings(Common):
    """What `finetune` is told."""

    usual_data = "those of fit"

    task: str = _set("classify", "tell the labels, or rebuild the data", choices=("classify", "autoencode"))
    optimizer: str = _set("adam", "how", choices=("adam", "sgd", "lbfgs", "cg"))
    epochs: int = _set(20, "at most")
    learning_rate: float = _set(0.0, "(default: 0.001 for adam, 0.1 for sgd)")
    dropout: float = _set(0.0, "share of the hidden units left out at each step")
    input_dropout: float = _set(0.0, "share of the inputs left out")
    max_norm: float = _set(0.0, "bound on the norm of a hidden unit's weights")
    validation: float = _set(0.1, "share of the examples for validation, where the data have none of their own")
    patience: int = _set(0, "stop after so many epochs without a lower validation error")
    loss: str = _set("", "of rebuilding", choices=("cross-entropy", "squared"))


def add_flags(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """A flag for each setting; what is not given is left out of the namespace."""
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings by these names; flags go before")
    for setting in fields(kind):
        flag = "--" + setting.name.replace("_", "-")
        told = setting.metadata
        shown = _shown(setting.default)
        help = told["help"].replace("{data}", kind.usual_data) + (
            f" (default: {shown})" if shown and "(default" not in told["help"] else ""
        )
        if isinstance(setting.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help)
            continue
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": help, "type": _parser_of(setting.default)}
        if told["choices"]:
            options["choices"] = told["choices"]
        else:
            options["metavar"] = told["metavar"] or ("N" if isinstance(setting.default, int) else "NUMBER")
        parser.add_argument(flag, **options)


def settings_of(kind: type[T], given: Mapping[str, Any]) -> T:
    """The settings of a namespace that `add_flags` filled, and of the TOML file that it names.

    Raises `DataError` for a file that cannot be read, and for names and values that there are not.
    """
    path = given.get("config")
    table = {} if path is None else _table(path)
    known = {setting.name: setting for setting in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in table.items():
        key = name.replace("-", "_")
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise DataError(f"{path}: there is no setting {name!r}{hint}")
        values[key] = _fitting(known[key], value, f"{path}: {name}")
    values.update({name: value for name, value in given.items() if name in known})
    return kind(**values)


def _table(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            table: dict[str, Any] = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    return table


def _fitting(setting: Any, value: Any, where: str) -> Any:
    """A value of a TOML file, as the setting has it."""
    default, choices = setting.default, setting.metadata["choices"]
    assert default is not MISSING
    if isinstance(default, tuple):
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in values):
            raise DataError(f"{where} must be whole numbers, not {value!r}")
        return tuple(values)
    kinds = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise DataError(f"{where} must be {_NOUNS[type(default)]}, not {value!r}")
    if choices and value not in choices:
        raise DataError(f"{where} is one of {', '.join(choices)}, not {value!r}")
    return float(value) if isinstance(default, float) else value


_NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _parser_of(default: Any) -> Any:
    if isinstance(default, tuple):
        return _numbers
    return type(default)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, such as 500,500,2000") from None


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(str(number) for number in default)
    return "" if default in ("", 0, -1.0) or isinstance(default, bool) else f"{default}"
