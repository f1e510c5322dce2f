"""Run by Python at the start of each process under `gradtui run`: waits until the process imports torch.

It stands in for a `sitecustomize` that the environment may have, so it runs that one first. The Python and the
environment are those of the command: nothing here needs another library, nor a newer Python than 3.7.

What stays of this in the process:

- the folder of this file in `PYTHONPATH` and `sys.path`, so that processes that the command starts are recorded too;
- a finder in `sys.meta_path` for each of `gradtui`, `torch` and, once torch is there, `torch._dynamo`, until that
  module has been imported. A process that imports none of them keeps the first two, which compare names.
"""

import atexit
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1]
OLDEST_PYTHON = (3, 10)
SAID = "GRADTUI_RUN_SAID"  # set once a line was said that need not be repeated by the processes that this one starts


def run_hidden_one() -> None:
    """Run the `sitecustomize` that Python would have found without this one."""
    rest = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


class Loader:
    """Loads a module as its own loader does; afterwards its finder goes, and `then` is called."""

    def __init__(self, spec: Any, finder: "Finder") -> None:
        self.spec, self.loader, self.finder = spec, spec.loader, finder

    def __getattr__(self, name: str) -> Any:
        """Whatever else the module's own loader has, for who only looks for the module."""
        return getattr(self.loader, name)

    def create_module(self, spec: Any) -> Any:
        """As the module's own loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Load the module, and leave everything about it as it would be without this loader."""
        self.spec.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.finder.remove()
        self.finder.then()


class Finder:
    """Waits in `sys.meta_path` until a module has been imported, and calls `then`.

    To look for the module does not import it: the finder stays.
    """

    def __init__(self, name: str, then: "Callable[[], None]") -> None:
        self.name, self.then = name, then

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The specification of the module that everybody else finds, with our loader around its own."""
        if name != self.name:
            return None
        spec = self.find()
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec, self)
        return spec

    def find(self) -> Any:
        """What the other finders find."""
        parent = sys.modules.get(self.name.rpartition(".")[0])
        for finder in list(sys.meta_path):
            find_spec = getattr(finder, "find_spec", None)
            if isinstance(finder, Finder) or find_spec is None:
                continue
            spec = find_spec(self.name, getattr(parent, "__path__", None), None)
            if spec is not None:
                return spec
        return None

    def remove(self) -> None:
        """Leave `sys.meta_path`."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)


class TorchFinder(Finder):
    """Notes that torch is imported and not there."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """As `Finder` does."""
        spec = super().find_spec(name, path, target)
        if name == self.name and spec is None:
            note(notes.NO_TORCH, sys.executable)
        return spec


class PackageFinder(Finder):
    """Finds the gradtui that runs the command, also where the environment has none, or one of another version."""

    def __init__(self) -> None:
        super().__init__("gradtui", lambda: None)
        self.others: str | None = None

    def find(self) -> Any:
        """The package; its modules are found through it."""
        others = super().find()
        self.others = None if others is None else others.origin
        return importlib.util.spec_from_file_location(
            self.name, str(PACKAGE / "__init__.py"), submodule_search_locations=[str(PACKAGE)]
        )


def after_import(name: str, then: "Callable[[], None]") -> None:
    """Call `then` once the module has been imported: now, if it is."""
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, TorchFinder(name, then) if name == "torch" else Finder(name, then))


def load_notes() -> Any:
    """What notes why nothing is recorded; it is loaded by itself, without the package."""
    spec = importlib.util.spec_from_file_location("gradtui_run_notes", str(PACKAGE / "run_notes.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def note(kind: str, detail: str = "") -> None:
    """Note something that says at the end why nothing was recorded, if nothing is."""
    if run:
        notes.add(run, kind, detail)


def tell_why_nothing(process: int) -> None:
    """Say why nothing was recorded, if nothing was; not in a child that was forked."""
    why = notes.end(run) if os.getpid() == process else ""
    if why:
        print(f"gradtui: nothing was recorded: {why}", file=sys.stderr)


def begin() -> None:
    """Look at what torch trains from now on."""
    try:
        why_not = what_is_missing()
        if why_not:
            note(notes.SAID)
            say_to_all(f"nothing is recorded: {why_not}")
            return
        from gradtui.record.autoattach import begin

        say_which_version()
        begin(after_import)
    except Exception as error:
        note(notes.SAID)
        print(f"gradtui: nothing is recorded ({type(error).__name__}: {error})", file=sys.stderr)


def what_is_missing() -> str:
    """What the environment of the command lacks; "" if it has what the recorder needs."""
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(str(number) for number in OLDEST_PYTHON)
        return f"the recorder needs Python {oldest} or newer, and {sys.executable} is {sys.version.split()[0]}"
    if importlib.util.find_spec("numpy") is None:
        return f"the recorder needs numpy, which this environment lacks: {sys.executable} -m pip install numpy"
    return ""


def say_which_version() -> None:
    """Say which gradtui records, if the environment has one of another version, which is not used."""
    if package_finder.others is None or Path(package_finder.others).resolve().parent == PACKAGE:
        return
    import gradtui

    theirs, folder = "of another version", Path(package_finder.others).parent
    try:
        from importlib.metadata import version

        theirs = version("gradtui")
    except Exception:
        pass  # a copy that was not installed has no version to ask for
    if theirs != gradtui.__version__:
        say_to_all(f"gradtui {gradtui.__version__}, which runs this, records; gradtui {theirs} in {folder} is not used")


def say_to_all(text: str) -> None:
    """One line on stderr, unless a process that started this one has said it."""
    if os.environ.get(SAID) != text:
        os.environ[SAID] = text
        print(f"gradtui: {text}", file=sys.stderr)


package_finder = PackageFinder()
notes = load_notes()
run = json.loads(os.environ.get("GRADTUI_RUN") or "{}").get("path", "")
note(notes.PYTHON)
if run and notes.tells(run):
    atexit.register(tell_why_nothing, os.getpid())
try:
    if __name__ == "sitecustomize":
        run_hidden_one()
finally:
    sys.meta_path.insert(0, package_finder)
    after_import("torch", begin)
