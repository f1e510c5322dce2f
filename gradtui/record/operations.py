"""The operations of an autograd graph: what they are called, what they keep, and where they are infinite."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gradtui.record.dtensor import local_shard

RESULTS = ("_saved_result", "_saved_output", "_saved_out")
MASKING = ("add", "masked_fill", "where", "masked_scatter")
MASK_HOPS = 4  # operations before a softmax among which a mask is looked for
COMPILED = "CompiledFunction"
# as users call them, where autograd has another name
SPELLINGS = {
    "addmm": "linear", "baddbmm": "matmul", "bmm": "matmul", "convolution": "conv", "linalg_vector_norm": "norm",
    "mm": "matmul", "native_batch_norm": "batch_norm", "native_group_norm": "group_norm",
    "native_layer_norm": "layer_norm", "safe_softmax": "softmax", "to_copy": "a cast",
}  # fmt: skip
# what may return numbers much larger than those it is given
EXPONENTIAL = frozenset({"exp", "exp2", "expm1", "cosh", "sinh"})
GROWING = EXPONENTIAL | frozenset(
    {"add", "addmm", "baddbmm", "bmm", "convolution", "cumprod", "cumsum", "div", "linear"}
    | {"mm", "mse_loss", "mul", "pow", "prod", "rsub", "square", "sub", "sum", "to_copy"}
)
KINDS = {
    "value": ("edge", "outside", "value"),
    "slope": ("edge", "outside", "slope"),
    "slope of NaN": ("edge", "slope"),
}


@dataclass(frozen=True)
class Pole:
    """Numbers at which the value of an operation, or its slope alone, is not finite.

    Attributes:
        kept: what autograd keeps that shows them.
        at: of that and the node, where they are.
        what: in words, e.g. "log of 0".
        kind: "edge" of where it is defined: value and slope are infinite; "slope": that alone is; "outside": both are
            NaN; "value": that alone is.
    """

    kept: str
    at: Callable[[Tensor, Any], Tensor]
    what: str
    kind: Literal["edge", "slope", "outside", "value"] = "edge"


def _masked_rows(result: Tensor, node: Any) -> Tensor:
    """Rows of a softmax that are NaN although what it was given comes from a mask, in which -∞ is no fault."""
    rows = torch.isnan(result).all(_signed(node._saved_dim))
    before, is_masked = [node], False
    for _ in range(MASK_HOPS):
        before = [following for one in before for following, _ in one.next_functions if following is not None]
        is_masked |= any(operation(one) in MASKING for one in before)
    # in half precision a product that overflowed looks the same
    return rows & (is_masked and result.element_size() > 2)


def _too_few(given: Tensor, node: Any) -> Tensor:
    dims = [_signed(dim) for dim in node._saved_dim or range(given.dim())]
    count = math.prod(given.shape[dim] for dim in dims)
    return torch.tensor(count <= (1 if node._saved_correction is None else node._saved_correction))


def _signed(dim: int) -> int:
    """A dimension as it was given: autograd tells -1 as 2⁶⁴ − 1."""
    return dim - 2**64 if dim >= 2**63 else dim


def _exponent(node: Any) -> Any:
    return node._saved_exponent


POLES: dict[str, tuple[Pole, ...]] = {
    "sqrt": (
        Pole("_saved_result", lambda y, _: y == 0, "sqrt of 0", "slope"),
        Pole("_saved_result", lambda y, _: y.isnan(), "sqrt of a negative number", "outside"),
    ),
    "rsqrt": (
        Pole("_saved_result", lambda y, _: y.isinf(), "rsqrt of 0"),
        Pole("_saved_result", lambda y, _: y.isnan(), "rsqrt of a negative number", "outside"),
    ),
    "reciprocal": (Pole("_saved_result", lambda y, _: y.isinf(), "division by 0"),),
    "div": (Pole("_saved_other", lambda x, _: x == 0, "division by 0"),),
    "pow": (
        Pole("_saved_self", lambda x, n: (x == 0) & (_exponent(n) < 0), "a negative power of 0"),
        Pole(
            "_saved_self",
            lambda x, n: (x == 0) & (_exponent(n) > 0) & (_exponent(n) < 1),
            "a power of 0 with an exponent below 1",
            "slope",
        ),
        Pole(
            "_saved_self",
            lambda x, n: (x < 0) & (_exponent(n) % 1 != 0),
            "a fractional power of a negative number",
            "outside",
        ),
    ),
    "log1p": (
        Pole("_saved_self", lambda x, _: x == -1, "log1p of -1"),
        Pole("_saved_self", lambda x, _: x < -1, "log1p of a number below -1", "value"),
    ),
    "acosh": (
        Pole("_saved_self", lambda x, _: x.abs() == 1, "acosh of 1", "slope"),
        Pole("_saved_self", lambda x, _: x.abs() < 1, "acosh of a number below 1", "outside"),
        Pole("_saved_self", lambda x, _: x <= -1, "acosh of a number below 1", "value"),
    ),
    "logit": (
        Pole("_saved_self", lambda x, _: (x == 0) | (x == 1), "logit of 0 or 1"),
        Pole("_saved_self", lambda x, _: (x < 0) | (x > 1), "logit of a number not between 0 and 1", "outside"),
    ),
    "hypot": (Pole("_saved_result", lambda y, _: y == 0, "hypot of 0 and 0", "slope"),),
    "xlogy": (
        Pole("_saved_other", lambda x, _: x == 0, "log of 0"),
        Pole("_saved_other", lambda x, _: x < 0, "log of a negative number", "value"),
    ),
    "logsumexp": (Pole("_saved_result", lambda y, _: y == -torch.inf, "logsumexp of a row that is all -∞"),),
    "std": (Pole("_saved_self", _too_few, "std of a single number", "outside"),),
    "var": (Pole("_saved_self", _too_few, "var of a single number", "outside"),),
    "nll_loss": (
        Pole(
            "_saved_total_weight",
            lambda x, n: (x == 0) & (n._saved_reduction == 1),
            "the mean of no targets at all",
            "outside",
        ),
    ),
    "linalg_eigh": (
        Pole("_saved_eigenvalues", lambda x, _: x.diff() == 0, "eigh with two equal eigenvalues", "slope"),
    ),
}
for _name in ("log", "log2", "log10"):
    POLES[_name] = (
        Pole("_saved_self", lambda x, _: x == 0, f"{_name} of 0"),
        Pole("_saved_self", lambda x, _: x < 0, f"{_name} of a negative number", "value"),
    )
for _name in ("softmax", "log_softmax"):
    POLES[_name] = (Pole("_saved_result", _masked_rows, f"{_name} of a row that is all -∞", "outside"),)
for _name in ("acos", "asin", "atanh", "erfinv"):
    _is_bounded = _name in ("acos", "asin")
    POLES[_name] = (
        Pole("_saved_self", lambda x, _: x.abs() == 1, f"{_name} of ±1", "slope" if _is_bounded else "edge"),
        Pole(
            "_saved_self",
            lambda x, _: x.abs() > 1,
            f"{_name} of a number beyond ±1",
            "value" if _name == "atanh" else "outside",
        ),
    )


def operation(node: Any) -> str:
    """What autograd calls an operation: `nll_loss` for NllLossBackward0."""
    words = re.findall(r"[A-Z][a-z0-9]*", str(type(node).__name__).partition("Backward")[0])
    return "_".join(words).lower().replace("log1_p", "log1p") or str(type(node).__name__)


def spelled(node: Any) -> str:
    """What its users call it: `layer_norm`."""
    name = operation(node)
    return SPELLINGS.get(name, name)


def kept(node: Any, name: str) -> Any:
    """What an operation keeps under a name; None if it is freed, changed since, or would have to be computed again."""
    try:
        raw = getattr(node, name.replace("_saved_", "_raw_saved_", 1), None)
        # a hook may do anything, such as compute the forward pass of a checkpoint again
        return None if getattr(raw, "unpack_hook", None) is not None else getattr(node, name, None)
    except RuntimeError:
        return None


def saved(node: Any) -> tuple[list[Tensor], list[Tensor]]:
    """What an operation kept of its inputs, and of its results; parameters are left out."""
    given: list[Tensor] = []
    made: list[Tensor] = []
    for name in dir(node):
        if name.startswith("_saved_"):
            value = kept(node, name)
            if isinstance(value, Tensor) and not (value.is_leaf and value.requires_grad):
                (made if name in RESULTS else given).append(value)
    return given, made


def poles(node: Any, of: Literal["value", "slope", "slope of NaN"]) -> tuple[list[str], list[str]]:
    """Where the value of an operation was not finite, or its slope, in words: what is certain, and what may be.

    "slope of NaN": what it was given is NaN now, which it was not when the slope counted.
    """
    certain, possible = [], []
    for pole in POLES.get(operation(node), ()):
        value = kept(node, pole.kept)
        if pole.kind not in KINDS[of] or not isinstance(value, Tensor):
            continue
        try:
            value = local_shard(value.detach())  # of a whole one other processes would be asked
            if bool(pole.at(value, node).any()):
                certain.append(pole.what)
            elif pole.kind in ("edge", "slope") and not bool(torch.isfinite(value).all()) and _is_possible(pole, node):
                possible.append(pole.what)
        except (RuntimeError, TypeError, AttributeError, IndexError):
            continue  # complex numbers, nested tensors, or what another PyTorch keeps in another way
    return certain, possible


def _is_possible(pole: Pole, node: Any) -> bool:
    """Whether any number at all is a pole: a square has none."""
    probe = torch.tensor([-2.0, -1.0, 0.0, 1.0, torch.nan])
    return not isinstance(getattr(node, "_saved_exponent", None), (int, float)) or bool(pole.at(probe, node).any())


def output_type(node: Any) -> torch.dtype | None:
    """The type of what an operation returned, where PyTorch tells."""
    told = getattr(node, "_input_metadata", None)
    kind = told[0].dtype if told else None
    return kind if isinstance(kind, torch.dtype) else None


def limit_of(kind: torch.dtype) -> str:
    """A type and its largest number: "float16, whose largest number is 65,504"."""
    largest = torch.finfo(kind).max
    number = f"{largest:,.0f}" if largest < 1e9 else f"{largest:.3g}"
    return f"{str(kind).removeprefix('torch.')}, whose largest number is {number}"
