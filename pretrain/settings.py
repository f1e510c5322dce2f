"""Settings of the commands and of the functions behind them; `pretrain.flags` reads them from flags and TOML files."""

# ruff: noqa: RUF009  the function makes a field
from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pretrain.choices import (
    Activation,
    HiddenUnits,
    Loss,
    Method,
    Noise,
    Optimizer,
    Precision,
    Propagate,
    Task,
    VisibleUnits,
    check_choice,
)
from pretrain.errors import DataError
from pretrain.limits import check_burn_in, check_level, check_numbers

if TYPE_CHECKING:
    import torch

    from pretrain.schedule import Schedule

GIGABYTE = 10**9
SECONDS = 60.0  # in a minute
T = TypeVar("T")


def setting(
    default: Any,
    help: str,
    *,
    choices: Any = (),
    metavar: str = "",
    unset: Any = None,
    factor: float = 1,
    was: str = "",
    decides: bool = True,
) -> Any:
    """A field that is a flag and a name in TOML files.

    Args:
        default: of the function; None leaves the choice to it.
        help: for `--help`.
        choices: a `Literal` type, or a function that returns the values.
        metavar: the placeholder in `--help`.
        unset: what stands for None in the settings that files of layers and checkpoints hold.
        factor: how many units of the function one unit of the flag is.
        was: the name in an earlier version, still read.
        decides: whether the result of a training depends on it.
    """
    told = {"help": help, "choices": choices, "metavar": metavar, "unset": unset, "factor": factor, "was": was}
    return field(default=default, metadata={**told, "decides": decides})


def flags_of(kind: Any) -> list[Field[Any]]:
    """The fields of settings, or of their class, that have a flag."""
    return [one for one in fields(kind) if "help" in one.metadata]


def choices_of(one: Field[Any]) -> tuple[str, ...]:
    """The values that a setting takes; () if it is no choice."""
    choices = one.metadata["choices"]
    return tuple(choices()) if callable(choices) and not get_args(choices) else get_args(choices)


def renamed(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` by name, with the names of an earlier version replaced by today's."""
    names = {one.metadata["was"]: one.name for one in flags_of(kind) if one.metadata["was"]}
    return {names.get(name, name): value for name, value in values.items()}


def decisive(settings: Any) -> dict[str, Any]:
    """The settings that decide the result, as JSON holds them."""
    found: dict[str, Any] = {}
    for one in flags_of(settings):
        value = getattr(settings, one.name)
        if one.metadata["decides"]:
            found[one.name] = (
                list(value) if isinstance(value, tuple) else one.metadata["unset"] if value is None else value
            )
    return found


def check_settings(settings: Any) -> None:
    """Raise `DataError` for a number out of its range, `ValueError` for a value that is no choice of its setting."""
    check_numbers((one.name, getattr(settings, one.name)) for one in fields(settings))
    for one in flags_of(settings):
        value, choices = getattr(settings, one.name), one.metadata["choices"]
        if value is not None and get_args(choices):
            check_choice(one.name, value, choices)


def with_changes(function: str, kind: type[T], settings: T | None, changes: Mapping[str, Any]) -> T:
    """The settings, or the defaults, with these changes; raises `TypeError`, as a call does, for an unknown name."""
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    for name in changes:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")
    return replace(settings or kind(), **changes)  # type: ignore[type-var]


@dataclass(frozen=True)
class TrainingSettings:
    """What greedy training and fine-tuning have in common.

    `memory` is in bytes, `checkpoint_every` in seconds of `clock`. All randomness is `generator`'s; None is one seeded
    with 0. The state is written to `checkpoint`, from which a training continues if the file exists. Raises `DataError`
    for numbers that are out of range.
    """

    batch_size: int | None = setting(None, "examples per step (default: 100; 1000 for lbfgs and cg)", unset=0)
    momentum: Any = setting(
        None, "of stochastic gradient descent (default: 0.5, from the 6th epoch 0.9; fine-tuning 0.9)", unset=-1.0
    )
    decay: bool = setting(False, "decay the learning rate linearly to zero over the epochs")
    memory: int = setting(
        GIGABYTE, "gigabytes of data to hold in memory; more are streamed", metavar="GB", factor=1e9, decides=False
    )
    checkpoint_every: float = setting(
        600.0, "write a checkpoint every so many minutes", metavar="MINUTES", factor=SECONDS, decides=False
    )
    checkpoint: Path | None = None
    generator: torch.Generator | None = None
    on_step: Callable[[Any], None] | None = None
    on_epoch: Callable[[Any], None] | None = None
    should_stop: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class GreedySettings(TrainingSettings):
    """Settings of `train_greedily`.

    `epochs`, `learning_rate` and `momentum` may differ from layer to layer, the latter two from epoch to epoch.
    `epochs_before`, one number or one per layer, are part of `epochs`: the layers have them behind them. `optimizer`
    makes an optimizer from parameters. The callbacks get a `LayerProgress`.
    """

    epochs: int | Sequence[int] = setting(
        10, "of each layer: one number, or one per layer; 0 leaves a layer as it starts", metavar="N,N,…"
    )
    learning_rate: Schedule | Sequence[Schedule | None] | None = setting(
        None, "(default: 0.1 for RBMs, 0.001 for other units and layers)", unset=0.0
    )
    propagate: Propagate = setting("probabilities", "what the next layer learns from", choices=Propagate, was="pass_on")
    epochs_before: int | Sequence[int] = 0
    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    on_layer: Callable[[Any], None] | None = None


@dataclass(frozen=True)
class FinetuneSettings(TrainingSettings):
    """Settings of `finetune`; the callbacks get a `NetProgress`.

    `epochs_before` are part of `epochs`: the net has them behind it.
    """

    optimizer: Optimizer = setting("adam", "the optimizer", choices=Optimizer)
    epochs: int = setting(20, "maximum number of epochs")
    learning_rate: Schedule | None = setting(None, "(default: 0.001 for adam, 0.1 for sgd)", unset=0.0)
    max_norm: float | None = setting(
        None, "bound on the norm of a hidden unit's incoming weights (default: 0: none)", unset=0.0
    )
    patience: int | None = setting(
        None, "stop after so many epochs without a lower validation error (default: 0: never)", unset=0
    )
    loss: Loss | None = setting(None, "of a reconstruction", choices=Loss, unset="")
    precision: Precision = setting("float32", "of the matrix products", choices=Precision)
    epochs_before: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum is not None and self.optimizer != "sgd":
            raise DataError(f"{self.optimizer} takes no momentum: leave it out, or use sgd")


@dataclass(frozen=True)
class DataSettings:
    """The data, and where a command computes."""

    usual_data = ""

    data: str = setting("", "digits, mnist, or a file: NAME.npz, NAME.npy (default: {data})", metavar="DATA")
    data_dir: str = setting(
        "", "the folder of MNIST's IDX files (default: $GRADTUI_DATA)", metavar="DIR", decides=False
    )
    labels: str = setting("", "labels [n] for an .npy file", metavar="FILE.npy")
    scale: float | None = setting(
        None, "divide the data by this (default: bytes by 255, others by 1)", metavar="NUMBER", unset=0.0
    )
    seed: int = setting(0, "of all random numbers")
    device: str = setting(
        "auto",
        "where to train: auto, or a device of torch, such as cpu, cuda:1, mps, xpu",
        metavar="DEVICE",
        decides=False,
    )
    threads: int = setting(0, "CPU threads (default: torch's own choice)", decides=False)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class LayerSettings:
    """How layers are made; each kind of layer reads what concerns it."""

    visible: VisibleUnits = setting("bernoulli", "the data: probabilities, or any numbers", choices=VisibleUnits)
    hidden: HiddenUnits = setting("bernoulli", "hidden units of RBMs", choices=HiddenUnits)
    method: Method = setting("cd", "how RBMs estimate their gradient", choices=Method)
    steps: int = setting(1, "of Gibbs sampling per training step")
    chains: int = setting(100, "persistent chains of pcd, fast-pcd and tempering")
    temperatures: int = setting(10, "of each chain of tempering")
    burn_in: int = setting(0, "Gibbs steps of the method noise that are not counted")
    fast_rate: float = setting(0.05, "learning rate of fast-pcd's fast weights")
    centred: bool = setting(False, "use the centred gradient of RBMs")
    clip: float | None = setting(None, "bound on the norm of an RBM's gradient (default: 0: none)", unset=0.0)
    weight_cost: float = setting(0.0002, "L2 penalty of RBMs")
    l1_cost: float = setting(0.0, "L1 penalty of RBMs")
    sparsity_cost: float = setting(0.0, "weight of the sparsity penalty of RBMs")
    sparsity_target: float = setting(0.05, "target mean activity of RBMs' and sparse layers' units")
    precision: Precision = setting("float32", "of the matrix products", choices=Precision)
    activation: Activation = setting("sigmoid", "of autoencoders", choices=Activation)
    untied: bool = setting(False, "give autoencoders decoder weights of their own")
    noise: Noise = setting("masking", "of denoising layers", choices=Noise)
    level: float = setting(0.25, "of that noise: a probability, or a standard deviation")
    contraction: float = setting(0.1, "weight of contractive layers' penalty")

    def __post_init__(self) -> None:
        check_layer_settings(self)


def check_layer_settings(settings: LayerSettings) -> None:
    """Raise as `check_settings`, and for numbers that do not go together."""
    check_settings(settings)
    check_burn_in(settings.burn_in, settings.steps)
    check_level(settings.noise, settings.level)


def _units() -> tuple[str, ...]:
    from pretrain.layers import LAYERS

    return tuple(LAYERS)


@dataclass(frozen=True)
class FitCommand(GreedySettings, LayerSettings, DataSettings):
    """Settings of `python -m pretrain fit`."""

    usual_data = "digits"

    layers: tuple[int, ...] = setting((500, 500), "units of the hidden layers, from the data up", metavar="N,N,…")
    unit: str = setting("rbm", "how each layer is trained", choices=_units)
    label_units: bool = setting(False, "let the top RBM learn the labels too (a deep belief net)")
    up_down_epochs: int = setting(0, "then train the belief net by the up-down algorithm for so many epochs")
    epochs: tuple[int, ...] = setting(
        (10,), "of each layer: one number, or one per layer; 0 leaves a layer as it starts", metavar="N,N,…"
    )
    epochs_before: tuple[int, ...] = ()
    checkpoint_every: float = setting(
        5 * SECONDS, "write a checkpoint every so many minutes", metavar="MINUTES", factor=SECONDS, decides=False
    )

    def __post_init__(self) -> None:
        check_layer_settings(self)
        if len(self.epochs) not in (1, len(self.layers)):
            raise DataError(f"there are {len(self.layers)} layers, but {len(self.epochs)} values of epochs")


@dataclass(frozen=True)
class FinetuneCommand(FinetuneSettings, DataSettings):
    """Settings of `python -m pretrain finetune`."""

    usual_data = "those of fit"

    task: Task = setting("classify", "classify the data, or reconstruct them", choices=Task)
    dropout: float = setting(0.0, "fraction of the hidden units dropped at each step")
    input_dropout: float = setting(0.0, "fraction of the inputs dropped")
    validation: float = setting(0.1, "fraction of the examples for validation, if the data have no validation set")
    checkpoint_every: float = setting(
        5 * SECONDS, "write a checkpoint every so many minutes", metavar="MINUTES", factor=SECONDS, decides=False
    )
