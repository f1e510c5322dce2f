"""Run by Python at the start of each process under `gradtui run`: waits for the script to import torch.

It stands in for a `sitecustomize` that the environment may have of its own, so it runs that one first.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
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


class TorchLoader:
    """Loads torch as its own loader does, and begins to look afterwards."""

    def __init__(self, spec: ModuleSpec) -> None:
        self.spec, self.loader = spec, spec.loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As torch's own loader does."""
        assert self.loader is not None
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Load torch, with everything about it as it would be; then look at what it trains."""
        assert self.loader is not None
        self.spec.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        try:
            from gradtui.record.process import begin

            begin()
        except Exception as error:
            print(f"gradtui: nothing is recorded ({type(error).__name__}: {error})", file=sys.stderr)


class TorchFinder:
    """Sees torch being imported, once."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The specification of torch that everybody else finds, with our loader around its own."""
        if name != "torch":
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec("torch")
        if spec is not None and spec.loader is not None:
            spec.loader = TorchLoader(spec)  # type: ignore[assignment]
        return spec


try:
    run_hidden_one()
finally:
    sys.meta_path.append(PackageFinder)
    sys.meta_path.insert(0, TorchFinder)
