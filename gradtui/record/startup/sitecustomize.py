"""Run by Python at the start of each process under `gradtui run`: waits for the script to import torch.

It stands in for a `sitecustomize` that the environment may have of its own, so it runs that one first.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1]


def run_hidden_one() -> None:
    """Run the `sitecustomize` that Python would have found without ours."""
    rest = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


class PackageFinder:
    """Finds gradtui where the command's own environment does not have it."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The package itself; its modules are found through it."""
        if name != "gradtui":
            return None
        return importlib.util.spec_from_file_location(
            name, PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
        )


class Loader:
    """Loads a module as its own loader does, and calls `then` afterwards."""

    def __init__(self, spec: ModuleSpec, then: Callable[[], None]) -> None:
        self.spec, self.loader, self.then = spec, spec.loader, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        assert self.loader is not None
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Load the module, with everything about it as it would be."""
        assert self.loader is not None
        self.spec.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.then()


class Finder:
    """Sees a module being imported, once."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name, self.then = name, then

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The specification of the module that everybody else finds, with our loader around its own."""
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec, self.then)  # type: ignore[assignment]
        return spec


def after_import(name: str, then: Callable[[], None]) -> None:
    """Call `then` once the module has been imported."""
    sys.meta_path.insert(0, Finder(name, then))


def begin() -> None:
    """Look at what torch trains from now on."""
    try:
        from gradtui.record.autoattach import begin

        begin(after_import)
    except Exception as error:
        print(f"gradtui: nothing is recorded ({type(error).__name__}: {error})", file=sys.stderr)


try:
    run_hidden_one()
finally:
    sys.meta_path.append(PackageFinder)
    after_import("torch", begin)
