"""What a layer maps, in a few characters: `784→30`, `3→16 5×5`. What is not known is not guessed. Needs no torch.

The attributes of the module say it, else the shapes of what went in and came out, else the shapes of parameters where
the kind of the layer says which dimension is which. Otherwise the number of its parameters has to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Shape = Sequence[int]

# attributes by which modules say what goes in and what comes out
PAIRS = (
    ("in_features", "out_features"),
    ("in_channels", "out_channels"),
    ("num_embeddings", "embedding_dim"),
    ("nx", "nf"),  # Conv1D of transformers
    ("infeatures", "outfeatures"),
    ("in_dim", "out_dim"),
    ("input_dim", "output_dim"),
)
SIZES = ("num_features", "normalized_shape", "num_channels", "num_parameters")  # of what keeps its size


def size_by_attributes(module: object) -> str:
    """What a module says of itself; "" if it says nothing."""
    hidden = _number(module, "hidden_size")
    if hidden and _number(module, "input_size"):
        return _recurrent(module, hidden)
    if _number(module, "in1_features") and _number(module, "out_features"):
        first, second, out = (_number(module, name) for name in ("in1_features", "in2_features", "out_features"))
        return f"{first}×{second}→{out}"
    if _number(module, "embed_dim") and _number(module, "num_heads"):
        width = _number(module, "embed_dim")
        return f"{width}→{width} {_number(module, 'num_heads')} heads"
    for before, after in PAIRS:
        into, out = _number(module, before), _number(module, after)
        if into and out:
            kernel = getattr(module, "kernel_size", None) if before == "in_channels" else None
            return f"{into}→{out}{_kernel(kernel)}"
    for name in SIZES:
        size = getattr(module, name, None)
        if _number(module, name):
            return str(size)
        if isinstance(size, (tuple, list)) and _are_numbers(size):
            return _times(size)
    return ""


def size_by_observation(into: Shape | None, out: Shape | None) -> str:
    """By the shapes, without the batch, of what went into a layer and came out; "" if they were not seen."""
    if not into or not out:
        return ""
    if len(into) == len(out):
        differ = [i for i, (a, b) in enumerate(zip(into, out, strict=True)) if a != b]
        if not differ:
            return f"{into[-1]}→{out[-1]}" if len(into) == 1 else f"{_times(into)}→{_times(out)}"
        if len(differ) == 1 and differ[0] in (0, len(into) - 1):
            return f"{into[differ[0]]}→{out[differ[0]]}"  # the channels, or the features
    return f"{_times(into)}→{_times(out)}"


def size_by_shapes(kind: str, shapes: Mapping[str, Shape], parameters: int) -> str:
    """By the shapes of a layer's parameters, as far as its kind, or its bias, tells which dimension is which."""
    distinct = {tuple(shape) for shape in shapes.values()}
    if not distinct:
        return ""
    if len(distinct) == 1 and len(next(iter(distinct))) < 2:
        return _times(next(iter(distinct)))  # a normalisation's scale and shift, or a vector
    if kind.removesuffix("Cell") in ("LSTM", "GRU", "RNN"):
        return _recurrent_by_shapes(shapes)
    known = _by_weight(kind, shapes.get("weight"))
    if not known and set(shapes) == {"weight", "bias"}:
        known = _by_bias(shapes["weight"], shapes["bias"])
    if known:
        return known
    return _times(next(iter(distinct))) if len(shapes) == 1 else f"{parameters:,} parameters"


def size_of(
    module: object | None, kind: str, shapes: Mapping[str, Shape], parameters: int,
    seen: tuple[Shape | None, Shape | None] = (None, None),
) -> str:  # fmt: skip
    """The size of a layer by all that is known; `seen` are the shapes of its input and output."""
    said = size_by_attributes(module) if module is not None else ""
    by_shapes = size_by_shapes(kind, shapes, parameters)
    distinct = {tuple(shape) for shape in shapes.values()}
    is_vector = len(distinct) == 1 and len(next(iter(distinct))) < 2
    if said or "→" in by_shapes or is_vector:
        return said or by_shapes
    return size_by_observation(*seen) or by_shapes


def _by_weight(kind: str, weight: Shape | None) -> str:
    """Of the kinds of PyTorch, and Conv1D of transformers, whose weight has its dimensions in a known order."""
    if weight is None or len(weight) < 2:
        return ""
    if kind == "Bilinear" and len(weight) == 3:
        return f"{weight[1]}×{weight[2]}→{weight[0]}"
    if re.fullmatch(r"(Lazy)?ConvTranspose\dd|Conv1D|Embedding(Bag)?", kind):
        return f"{weight[0]}→{weight[1]}{_kernel(weight[2:])}"
    if re.fullmatch(r"(Lazy|NonDynamicallyQuantizable)?Linear|(Lazy)?Conv\dd", kind):
        return f"{weight[1]}→{weight[0]}{_kernel(weight[2:])}"
    return ""


def _by_bias(weight: Shape, bias: Shape) -> str:
    """Of a matrix: the bias is as long as the output."""
    if len(weight) != 2 or len(bias) != 1 or weight[0] == weight[1] or bias[0] not in weight:
        return ""
    into = weight[1] if bias[0] == weight[0] else weight[0]
    return f"{into}→{bias[0]}"


def _recurrent(module: object, hidden: int) -> str:
    out = (_number(module, "proj_size") or hidden) * (2 if getattr(module, "bidirectional", False) is True else 1)
    layers = _number(module, "num_layers")
    return f"{_number(module, 'input_size')}→{out}" + (f" ×{layers}" if layers and layers > 1 else "")


def _recurrent_by_shapes(shapes: Mapping[str, Shape]) -> str:
    into = shapes.get("weight_ih", shapes.get("weight_ih_l0"))
    out = shapes.get("weight_hh", shapes.get("weight_hh_l0"))  # what comes out goes in again, projected or not
    if into is None or out is None or len(into) != 2 or len(out) != 2:
        return ""
    layers = sum(re.fullmatch(r"weight_ih_l\d+", name) is not None for name in shapes)
    ways = 2 if "weight_ih_l0_reverse" in shapes else 1
    return f"{into[1]}→{out[1] * ways}" + (f" ×{layers}" if layers > 1 else "")


def _number(module: object, name: str) -> int:
    """An attribute that is a number of something; 0 if it is none."""
    value = getattr(module, name, 0)
    return value if _is_number(value) else 0


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_numbers(value: object) -> bool:
    return isinstance(value, (tuple, list)) and bool(value) and all(map(_is_number, value))


def _kernel(size: object) -> str:
    if _is_number(size):
        return f" {size}"
    return f" {_times(size)}" if isinstance(size, (tuple, list)) and _are_numbers(size) else ""


def _times(numbers: Sequence[int]) -> str:
    return "×".join(str(number) for number in numbers)
