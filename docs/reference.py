"""Builds the reference of the public API from the docstrings, by pdoc: `python docs/reference.py FOLDER`.

Needs `pip install -e '.[docs,lab]'`; a framework's callbacks are left out where the framework is not installed. Any
warning of pdoc's fails the build, as does a public name that has no docstring or is not on its page.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import warnings
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pdoc
import pdoc.doc

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gradtui.callbacks import CALLBACKS  # noqa: E402

MODULES = ("gradtui", "gradtui.callbacks", "pretrain", "pretrain.estimators")
PAGES = {"run_file": "docs/run-file.md", "contributing": "CONTRIBUTING.md", "pretrain_by_example": "pretrain/README.md"}


def loaded(name: str) -> ModuleType:
    """A module with its public names in it, also those that it imports when they are first used."""
    module = import_module(name)
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        needs_one = inspect.isclass(value) or inspect.isroutine(value)
        assert not needs_one or inspect.getdoc(value), f"{name}.{public} has no docstring"
        vars(module)[public] = value
        if is_dataclass(value) and isinstance(value, type):
            resolve(value)
    return module


def resolve(of: type) -> None:
    """Replace the annotations of a dataclass's `__init__`, which pdoc reads in the module of the class alone."""
    with contextlib.suppress(NameError):  # of types that are imported for type checkers only, which pdoc finds
        hints = get_type_hints(of)
        of.__init__.__annotations__.update({one.name: hints[one.name] for one in fields(of)})  # type: ignore[misc]


def callbacks() -> list[ModuleType]:
    """The callbacks of the frameworks that are installed."""
    found = []
    for framework in CALLBACKS:
        try:
            found.append(loaded(f"gradtui.callbacks.{framework}"))
        except ImportError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def pages() -> list[ModuleType]:
    """Pages that are written as Markdown, as pdoc takes them: the docstrings of modules."""
    return [ModuleType(name, (ROOT / path).read_text()) for name, path in PAGES.items() if (ROOT / path).exists()]


def build(folder: Path) -> dict[str, str]:
    """Write the reference into a folder; the text of each page by the name of its module."""
    pdoc.render.configure(docformat="google", show_source=False, footer_text="gradtui")
    modules = {
        module.__name__: pdoc.doc.Module(module)
        for module in [*(loaded(name) for name in MODULES), *callbacks(), *pages()]
    }
    written = {name: pdoc.render.html_module(module, modules) for name, module in modules.items()}
    written["index"] = pdoc.render.html_index(modules)
    for name, text in written.items():
        file = folder / f"{name.replace('.', '/')}.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (folder / "search.js").write_text(pdoc.render.search_index(modules), encoding="utf-8")
    return written


def main(folder: Path) -> int:
    """Build it; the exit code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        written = build(folder)
    problems = sorted({str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)})
    problems += [
        f"{name}.{public} is not on its page"
        for name in MODULES
        for public in getattr(import_module(name), "__all__", ())
        if f'id="{public}"' not in written[name]
    ]
    print(*problems, f"{len(written)} pages in {folder}, {len(problems)} warnings", sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
