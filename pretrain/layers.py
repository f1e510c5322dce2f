"""Kinds of layers by name: ours, those that a user's code registers, and those of installed packages.

A kind is what `--unit`, the estimators' `unit` and files of layers name. A package registers its own by an entry point
of the group `pretrain.layers`, whose module calls `register_layer` and is imported at the first look. No torch here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pretrain.errors import DataError

if TYPE_CHECKING:
    import torch

    from pretrain.protocols import Layer
    from pretrain.settings import LayerSettings

ENTRY_POINTS = "pretrain.layers"
_NEEDED = ("encode", "decode", "fill_gradient", "spec", "from_spec", "from_settings", "activation")


@dataclass(frozen=True)
class LayerKind:
    """One way to pretrain a layer.

    Args:
        name: its name in commands, estimators and files.
        layer: the class, or "module:Class", which is imported when it is first needed.
        description: what each layer learns, in a phrase.
        source: the paper.
        activations: the activation functions that its hidden units may have.
        supervised: whether a layer learns the labels, with an output layer that is then removed.
        settings: keyword arguments of the class's `from_settings` that this kind sets.
    """

    name: str
    layer: type[Any] | str
    description: str = ""
    source: str = ""
    activations: tuple[str, ...] = ("sigmoid",)
    supervised: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def layer_class(self) -> type[Any]:
        """The class; raises `DataError` if it cannot be imported or lacks what a layer needs."""
        return _loaded(self.name, self.layer) if isinstance(self.layer, str) else self.layer

    def make(
        self,
        inputs: int,
        outputs: int,
        settings: LayerSettings,
        *,
        bounded: bool = True,
        label_units: int = 0,
        generator: torch.Generator | None = None,
    ) -> Any:
        """A new layer; `bounded` says that its inputs lie in [0, 1], and the last `label_units` inputs are labels.

        Raises `DataError` for settings that the layer cannot have.
        """
        how: dict[str, Any] = {"bounded": bounded, "label_units": label_units, "generator": generator, **self.settings}
        try:
            return self.layer_class.from_settings(inputs, outputs, settings, **how)
        except DataError:
            raise
        except ValueError as error:
            raise DataError(str(error)) from error
        except Exception as error:
            raise DataError(f"a layer of the kind {self.name!r} cannot be made: {_one_line(error)}") from error


class _Kinds(Mapping[str, LayerKind]):
    """The kinds in the order in which they were registered."""

    def __init__(self) -> None:
        self.entries: dict[str, LayerKind] = {}
        self._are_packages_loaded = False

    def __getitem__(self, name: str) -> LayerKind:
        self._load_packages()
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load_packages()
        return iter(list(self.entries))

    def __len__(self) -> int:
        self._load_packages()
        return len(self.entries)

    def _load_packages(self) -> None:
        if self._are_packages_loaded:
            return
        self._are_packages_loaded = True
        from importlib.metadata import entry_points

        for point in entry_points(group=ENTRY_POINTS):
            try:
                point.load()
            except Exception as error:
                # a broken package must not end a training
                say_once(f"the layer kind {point.name!r} of {point.value} is left out ({_one_line(error)})")


LAYERS = _Kinds()


def register_layer(
    name: str,
    layer: type[Any] | str | None = None,
    *,
    description: str = "",
    source: str = "",
    activations: Sequence[str] = ("sigmoid",),
    supervised: bool = False,
    **settings: Any,
) -> Any:
    """Register a class of layers, or decorate it: `@register_layer("my-rbm") class MyRBM(RBM): …`.

    The arguments are those of `LayerKind`. Files name a layer by the first kind registered for its class. Returns the
    class. Raises `ValueError` if another kind has the name, `TypeError` if the class lacks what a layer needs.
    """
    if layer is None:
        return lambda made: register_layer(
            name, made, description=description, source=source, activations=activations, supervised=supervised,
            **settings,
        )  # fmt: skip
    if not isinstance(layer, str):
        _check_class(layer)
    kind = LayerKind(name, layer, description, source, tuple(activations), supervised, settings)
    if not name or name == "none" or LAYERS.entries.setdefault(name, kind) != kind:
        raise ValueError(f"the layer kind {name!r} exists already: use another name")
    return layer


def unregister_layer(name: str) -> None:
    """Remove a kind, if there is one of this name."""
    LAYERS.entries.pop(name, None)


def kind_of(layer: object) -> LayerKind:
    """The first kind registered for exactly the class of `layer`; raises `DataError` if there is none."""
    for kind in LAYERS.values():
        try:
            if kind.layer_class is type(layer):
                return kind
        except DataError as error:
            say_once(str(error))
    made = type(layer).__name__
    raise DataError(
        f"a {made} cannot be saved, its class is not registered: call pretrain.register_layer({made.lower()!r}, {made})"
    )


def spec_of(layer: Any) -> dict[str, Any]:
    """What makes the layer again, besides its weights, fit for JSON; raises `DataError` as `kind_of`."""
    return {"layer": kind_of(layer).name, **layer.spec()}


def layer_from(spec: Mapping[str, Any]) -> Layer:
    """A new layer from what `spec_of` returned; raises `DataError` for a kind that is not registered."""
    name, rest = spec["layer"], {key: value for key, value in spec.items() if key != "layer"}
    if name not in LAYERS:
        raise DataError(f"the layer kind {name!r} is not registered: import what calls pretrain.register_layer for it")
    made: Layer = LAYERS[name].layer_class.from_spec(rest)
    return made


def check_saveable(layers: Sequence[Any]) -> None:
    """Raise `DataError`, before any training, for a layer that could not be saved and loaded as what it is."""
    import torch

    for number, layer in enumerate(layers, 1):
        for one in getattr(layer, "layers", (layer,)):  # those of a deep belief net are saved one by one
            spec = spec_of(one)
            try:
                with torch.random.fork_rng(devices=[]):  # a new layer draws its first weights
                    made = layer_from(json.loads(json.dumps(spec)))
                same = type(made) is type(one) and _shapes(made) == _shapes(one)
            except Exception as error:
                raise DataError(f"layer {number}, {spec['layer']!r}, cannot be saved: {_one_line(error)}") from error
            if not same:
                raise DataError(f"layer {number}, {spec['layer']!r}, cannot be saved: its spec() makes another layer")


def _shapes(module: Any) -> dict[str, Any]:
    return {name: value.shape for name, value in module.state_dict().items()}


@cache
def _loaded(name: str, reference: str) -> type[Any]:
    module, _, attribute = reference.partition(":")
    try:
        found: type[Any] = getattr(import_module(module), attribute)
        _check_class(found)
    except Exception as error:
        raise DataError(f"the layer kind {name!r} cannot be loaded from {reference}: {_one_line(error)}") from error
    return found


def _check_class(layer: type[Any]) -> None:
    # an instance may set its activation itself
    missing = [need for need in _NEEDED if not hasattr(layer, need) and need not in _annotations_of(layer)]
    if missing:
        raise TypeError(f"{layer.__name__} has no {', no '.join(missing)}: pretrain.protocols says what a layer needs")


def _annotations_of(layer: type[Any]) -> set[str]:
    return {name for base in layer.__mro__ for name in vars(base).get("__annotations__", ())}


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


@cache
def say_once(text: str) -> None:
    """Print a line on stderr, the same one only once in a process."""
    print(f"pretrain: {text}", file=sys.stderr, flush=True)


_SIGMOID_TO_RELU = ("sigmoid", "tanh", "relu")

register_layer(
    "rbm", "pretrain.rbm:RBM",
    description="each layer is trained as a restricted Boltzmann machine", source="Hinton et al. 2006",
)  # fmt: skip
register_layer(
    "autoencoder", "pretrain.autoencoder:Autoencoder", activations=_SIGMOID_TO_RELU,
    description="each layer learns to reconstruct its input", source="Bengio et al. 2007",
)  # fmt: skip
register_layer(
    "denoising", "pretrain.autoencoder:Autoencoder", activations=_SIGMOID_TO_RELU, kind="denoising",
    description="each layer learns to reconstruct its input from a corrupted copy", source="Vincent et al. 2010",
)  # fmt: skip
register_layer(
    "contractive", "pretrain.autoencoder:Autoencoder", activations=_SIGMOID_TO_RELU, kind="contractive",
    description="an autoencoder whose code changes little with its input", source="Rifai et al. 2011",
)  # fmt: skip
register_layer(
    "sparse", "pretrain.autoencoder:Autoencoder", kind="sparse",
    description="an autoencoder whose units are rarely active", source="Ng 2011",
)  # fmt: skip
register_layer(
    "supervised", "pretrain.autoencoder:Autoencoder", activations=_SIGMOID_TO_RELU, supervised=True,
    description="each layer learns to classify, on top of those below", source="Bengio et al. 2007",
)  # fmt: skip
