"""Sees the graphs that `torch.compile` captures, so that what flows through them can be sampled.

Hooks would change what is compiled. Instead a copy of each captured graph is kept, and a function stands around what
the compiler made of it. When a sample is due, that runs the copy once beside the training: operation by operation,
without gradients, on copies of the inputs and buffers, and with the random generators restored. What is compiled stays
as it is: the same graphs, guards and numbers, and no break.
"""

from __future__ import annotations

import importlib
import sys
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import fx, nn

from gradtui.record.graph_copy import GraphCopy
from gradtui.record.patches import Replaced


class Observer(Protocol):
    """Is shown what flows through a compiled graph that is run for it."""

    def wants(self, graph: GraphCopy) -> bool:
        """True if what flows through it is to be seen now."""

    def observe(self, graph: GraphCopy, arguments: tuple[Any, ...]) -> None:
        """Run it; must not raise."""


class CompiledGraphs:
    """All graphs that are compiled from here on. There is one, `compiled_graphs`.

    Attributes:
        observer: samples in this step, if anybody does.
        missed: something was compiled that has not been seen.
    """

    def __init__(self) -> None:
        self.observer: Observer | None = None
        self.missed = False
        self._copies: weakref.WeakSet[GraphCopy] = weakref.WeakSet()  # they live as long as what is compiled
        self._is_function_inside = False  # a function without modules was compiled while an eager module ran
        self._before = 0  # graphs when this ended
        self._users = 0
        self._entry: Replaced | None = None  # of `torch.compile`, while the compiler is not loaded
        self._compiler: Replaced | None = None

    @property
    def modules(self) -> set[int]:
        """The ids of all modules that are in a graph."""
        return set().union(*(copy.modules for copy in self._copies))

    @property
    def inside_modules(self) -> bool:
        """True if something was compiled while an eager module ran, around which no mode may be put."""
        return self._is_function_inside or any(copy.is_inside for copy in self._copies)

    def begin(self) -> None:
        """See what is compiled, until `end` has been called as often."""
        self._users += 1
        self.put_on()

    def put_on(self) -> None:
        """Do so if the compiler has been loaded meanwhile. Does not load it."""
        if not self._users or self._compiler is not None:
            return
        compiler = getattr(sys.modules.get("torch._dynamo.output_graph"), "OutputGraph", None)
        if compiler is not None:
            self.missed |= _graphs_so_far() not in (0, self._before)
            self._compiler = Replaced(compiler, "call_user_compiler", self._wrap_compiler)
        elif self._entry is None:
            self._entry = Replaced(torch, "compile", self._wrap_compile)

    def end(self) -> None:
        """See it no longer."""
        self._users -= 1
        if not self._users:
            self._before = _graphs_so_far()
            if self._entry is not None and self._entry.undo():
                self._entry = None
            if self._compiler is not None and self._compiler.undo():
                self._compiler = None

    def _wrap_compile(self, original: Any) -> Any:
        def compile(*arguments: Any, **keywords: Any) -> Any:
            importlib.import_module("torch._dynamo")  # as the original is about to
            self.put_on()
            return original(*arguments, **keywords)

        return _as(compile, original)

    def _wrap_compiler(self, original: Any) -> Any:
        def call_user_compiler(output: Any, module: fx.GraphModule, *arguments: Any, **keywords: Any) -> Any:
            # what is exported or stored has to be what the compiler made
            is_ours = not getattr(output, "export", False) and getattr(output, "package", None) is None
            copy = self._copy(module) if is_ours and self._users else None
            made = original(output, module, *arguments, **keywords)
            return made if copy is None else self._around(copy, made)

        return _as(call_user_compiler, original)

    def _copy(self, module: fx.GraphModule) -> GraphCopy | None:
        """A copy of a graph that is about to be compiled; the compiler may change the original."""
        try:
            copy = GraphCopy(module)
        except Exception:
            self.missed = True
            return None
        copy.is_inside = _runs_inside_a_module(copy.modules)
        if copy.modules:
            self._copies.add(copy)
            return copy
        self._is_function_inside |= copy.is_inside
        return None

    def _around(self, copy: GraphCopy, made: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            observer = self.observer
            if observer is not None and not keywords and torch.is_grad_enabled() and observer.wants(copy):
                observer.observe(copy, arguments)
            return made(*arguments, **keywords)

        return run


def _as(ours: Any, original: Any) -> Any:
    ours.__wrapped__, ours.__doc__, ours.__name__ = original, original.__doc__, original.__name__
    return ours


def _graphs_so_far() -> int:
    counters: Any = getattr(sys.modules.get("torch._dynamo.utils"), "counters", {})
    return int(counters.get("stats", {}).get("unique_graphs", 0))


def _runs_inside_a_module(modules: frozenset[int]) -> bool:
    """True if an eager module that is not in a graph is running: it is what had the graph compiled."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is nn.Module._call_impl.__code__:
            module = frame.f_locals.get("self")
            if id(module) not in modules and not hasattr(module, "_orig_mod"):
                return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


compiled_graphs = CompiledGraphs()
