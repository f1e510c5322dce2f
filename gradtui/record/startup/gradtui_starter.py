"""Stands before the program of a Python that was started with -I, -E or -S, and so does not run `sitecustomize`.

It does what that does, and then runs the program as Python would have: a script, `-m MODULE`, `-c CODE` or `-`.
"""

import importlib.util
import pkgutil
import runpy
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any


def load(name: str, path: Path) -> Any:
    """The module in a file that is not on the path."""
    spec = importlib.util.spec_from_file_location(name, str(path))
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(words: "list[str]") -> None:
    """Run a program as `__main__`, with nothing of this file in it."""
    what, rest = words[0], words[1:]
    main = vars(sys.modules["__main__"])
    for name in [name for name in main if not (name.startswith("__") and name.endswith("__"))]:
        del main[name]
    main.update(__doc__=None, __spec__=None, __cached__=None)
    is_archive = what[0] != "-" and pkgutil.get_importer(what) is not None  # or a folder
    if what[0] != "-":
        sys.argv, first = [what, *rest], str(Path(what).resolve().parent)
    else:
        sys.argv, first = [what, *(rest if what == "-" else rest[1:])], str(Path.cwd()) if what == "-m" else ""
    if is_archive:
        sys.path.insert(0, what)
    elif not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = first  # it is the folder of this file
    sys.excepthook = show
    if what == "-m" or is_archive:
        runpy._run_module_as_main("__main__" if is_archive else rest[0], not is_archive)  # type: ignore[attr-defined]
        return
    if what[0] != "-":
        source, name = Path(what).read_bytes(), str(Path(what).absolute())
        main.update(__file__=name, __loader__=SourceFileLoader("__main__", name))
    else:
        source, name = (sys.stdin.buffer.read(), "<stdin>") if what == "-" else (rest[0].encode(), "<string>")
        main.pop("__file__", None)
    exec(compile(source, name, "exec", dont_inherit=True), main)


def show(kind: Any, error: Any, trace: Any) -> None:
    """Show an error that ends the program as Python does, without the frames of this file."""
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, sys.modules[__name__].__file__):
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


if __name__ == "__main__":
    here = Path(__file__).resolve()
    try:
        load("gradtui_startup", here.with_name("sitecustomize.py"))
    except Exception as error:
        print(f"gradtui: nothing is recorded ({type(error).__name__}: {error})", file=sys.stderr)
    load("gradtui_starter", here).run(sys.argv[1:])
