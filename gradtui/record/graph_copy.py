"""A copy of a captured graph, which can be run beside the training to see what flows through it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from gradtui.record.columns import generators_restored

CALLS = ("call_function", "call_method", "call_module")
# graphs that hold one of these are not run: other processes would have to take part, or gradients are needed
REFUSED = ("c10d", "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "barrier", "autograd.grad", "backward")
# what would switch gradients on
IGNORED = ("_set_grad_enabled", "set_grad_enabled")
# operations that run a graph of their own, which is their first argument
WRAPPING = ("tag_activation_checkpoint", "wrap_activation_checkpoint", "invoke_subgraph")


class Shown(Protocol):
    """Is shown what flows through a graph."""

    def enter_module(self, module: int) -> None:
        """The forward pass of a module (its id) begins."""

    def leave_module(self, module: int, output: Tensor | None) -> None:
        """It ends; `output` is the last tensor that was computed in it."""

    def called(self, function: Any, output: Tensor) -> None:
        """A function was called."""


class GraphCopy:
    """Takes the copy; the graph itself may be changed and compiled afterwards.

    Attributes:
        modules: ids of the modules whose forward passes are in it.
        refusal: why it cannot be run, in words; "" if it can.
        is_inside: an eager module ran when it was captured.
    """

    is_inside = False

    def __init__(self, module: fx.GraphModule) -> None:
        graph = fx.Graph()
        values: dict[fx.Node, fx.Node] = {}
        graph.output(graph.graph_copy(module.graph, values))
        for old, new in values.items():
            new.meta = {"nn_module_stack": old.meta.get("nn_module_stack")}  # the rest holds tensors
        self._graph = fx.GraphModule(module, graph)
        inner = [one.graph for one in self._graph.children() if isinstance(one, fx.GraphModule)]
        calls = [node for one in (graph, *inner) for node in one.nodes if node.op in CALLS]
        self.modules = frozenset(key for node in calls for key in _path(node))
        names = [_name(node) for node in calls]
        self.refusal = next((f"it has {name}" for name in names if any(word in name for word in REFUSED)), "")
        self._changed = _inputs_changed_in_place(graph)

    def can_run(self, arguments: Sequence[Any]) -> bool:
        """True if it can be run on these; otherwise there is a `refusal`."""
        kinds = {type(one) for one in arguments if isinstance(one, Tensor)} - {Tensor, nn.Parameter}
        if not self.refusal and any(isinstance(arguments[i], nn.Parameter) for i in self._changed):
            self.refusal = "it changes a parameter"
        elif not self.refusal and kinds:
            self.refusal = f"it is given a {min(kind.__name__ for kind in kinds)}"
        return not self.refusal

    def run(self, arguments: Sequence[Any], shown: Shown) -> None:
        """Run it on copies of all but the parameters, unless there is a `refusal`."""
        devices = {one.device for one in arguments if isinstance(one, Tensor)}
        device = next((one for one in devices if one.type != "cpu"), torch.device("cpu"))
        with torch.no_grad(), generators_restored(device):
            _Runner(self._graph, shown).run(*[_copied(one) for one in arguments])


def _copied(argument: Any) -> Any:
    is_data = isinstance(argument, Tensor) and not isinstance(argument, nn.Parameter)
    return argument.detach().clone() if is_data else argument


class _Runner(fx.Interpreter):
    """Runs a graph and shows what flows through it."""

    def __init__(self, module: Any, shown: Shown, path: tuple[int, ...] = ()) -> None:
        super().__init__(module)
        self._shown, self._path, self._outer = shown, path, path
        self._last: dict[int, Tensor] = {}  # the last tensor computed in each module that runs

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_function" and getattr(n.target, "__name__", "") in IGNORED:
            return None
        if n.op in CALLS:
            self._go_to(_path(n) or self._outer)
        result: Any = self._run_inside(n) if _is_wrapping(n) else super().run_node(n)
        output = result[0] if isinstance(result, (tuple, list)) and result else result
        if n.op == "output":
            self._go_to(self._outer)
        elif isinstance(output, Tensor) and n.op not in ("placeholder", "get_attr"):
            for module in self._path:
                self._last[module] = output
            function = getattr(Tensor, str(n.target), None) if n.op == "call_method" else n.target
            self._shown.called(function, output)
        return result

    def _run_inside(self, node: fx.Node) -> Any:
        arguments, _ = self.fetch_args_kwargs_from_env(node)
        inner, *others = arguments
        others = [one for one in others if not isinstance(one, str)]  # the name of a subgraph
        return _Runner(inner, self._shown, self._path).run(*others)

    def _go_to(self, path: tuple[int, ...]) -> None:
        """Tell which modules have been left and entered on the way to an operation."""
        common = 0
        while common < min(len(path), len(self._path)) and path[common] == self._path[common]:
            common += 1
        for module in reversed(self._path[common:]):
            self._shown.leave_module(module, self._last.pop(module, None))
        for module in path[common:]:
            self._shown.enter_module(module)
        self._path = path


def _path(node: fx.Node) -> tuple[int, ...]:
    """Ids of the modules, outermost first, in whose forward passes an operation was captured."""
    keys = [str(key).partition("@")[0] for key in node.meta.get("nn_module_stack") or {}]
    return tuple(int(key) for key in keys if key.isdigit())


def _is_wrapping(node: fx.Node) -> bool:
    return node.op == "call_function" and str(getattr(node.target, "_name", "")) in WRAPPING


def _name(node: fx.Node) -> str:
    target = node.target
    return target if isinstance(target, str) else f"{getattr(target, '__module__', '')}.{target}"


def _inputs_changed_in_place(graph: fx.Graph) -> list[int]:
    """The numbers of the inputs that an operation may write into, directly or through a view."""
    inputs = {node: number for number, node in enumerate(node for node in graph.nodes if node.op == "placeholder")}
    found = set()
    for node in graph.nodes:
        if _is_in_place(node):
            first: Any = node.args[0] if node.args else None
            while isinstance(first, fx.Node) and first not in inputs:
                first = first.args[0] if first.args else None
            if first in inputs:
                found.add(inputs[first])
        if isinstance(out := node.kwargs.get("out"), fx.Node) and out in inputs:
            found.add(inputs[out])
    return sorted(found)


def _is_in_place(node: fx.Node) -> bool:
    if node.op not in ("call_function", "call_method"):
        return False
    if isinstance(node.target, str):
        return node.target.endswith("_") and not node.target.endswith("__")
    name = str(getattr(node.target, "__name__", ""))
    if getattr(node.target, "__module__", "") == "_operator":  # setitem, and iadd for add
        return name == "setitem" or (name.startswith("i") and hasattr(operator, name[1:]))
    return name.endswith("_")
