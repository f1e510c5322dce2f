"""Do the tests hold the code? Small faults are put into copies of it, one at a time, and the tests have to fail.

    python benchmarks/mutation.py [--count N] [--seed S] [--jobs J] [--timeout SECONDS] [--only TEXT] [--list]

The code: all of `gradtui/diagnosis` and `gradtui/runfile`, and the arithmetic of `gradtui/record`. A fault is another
comparison, `and` for `or`, a `not` less, another operation, `min` for `max`, a number that is a fifth off, True for
False, or a function that returns at once. A fault that lasts longer than --timeout counts as found. Of those
that no test finds, some change nothing that anybody could see; the figure says how many were found. Standard library.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
COPIED = ("gradtui", "pretrain", "tests", "docs", "pyproject.toml", "README.md")
RECORD = ("budget", "fold", "host_norms", "layers", "slots", "step_sample")
RECORD_TESTS = ("test_measures", "test_budget", "test_layers", "test_recorder", "test_activations", "test_hard_cases")
# where the code is, by what part of it, and the tests that should hold it
AREAS: dict[str, tuple[list[Path], list[str]]] = {
    "diagnosis": (sorted((ROOT / "gradtui/diagnosis").rglob("*.py")), ["tests/diagnosis"]),
    "record": (
        [ROOT / f"gradtui/record/{name}.py" for name in RECORD],
        [f"tests/record/{name}.py" for name in RECORD_TESTS],
    ),
    "runfile": (sorted((ROOT / "gradtui/runfile").glob("*.py")), ["tests/runfile", "tests/test_view.py"]),
}
COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is": "is not", "in": "not in"}
OPERATIONS = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "**": "*", "%": "//", "&": "|", "|": "&"}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "nanmax": "nanmin", "argmax": "argmin"}


@dataclass(frozen=True)
class Fault:
    """One change of the text of a file: `new` stands in the place of `text[start:stop]`."""

    area: str
    path: Path
    start: int
    stop: int
    old: str
    new: str

    @property
    def place(self) -> str:
        line = self.path.read_bytes()[: self.start].count(b"\n") + 1
        return f"{self.path.relative_to(ROOT)}:{line}"

    def text(self) -> bytes:
        """The file with the fault in it."""
        text = self.path.read_bytes()
        return text[: self.start] + self.new.encode() + text[self.stop :]


class Faults(ast.NodeVisitor):
    """All faults of one file. Positions are in bytes, as those of `ast` are."""

    def __init__(self, area: str, path: Path) -> None:
        self.found: list[Fault] = []
        self._area, self._path = area, path
        self._text = path.read_bytes()
        self._lines = [0]
        for line in self._text.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self.visit(ast.parse(self._text))

    def _span(self, node: ast.AST) -> tuple[int, int]:
        start, stop = self._lines[node.lineno - 1], self._lines[node.end_lineno - 1]  # type: ignore[attr-defined]
        return start + node.col_offset, stop + node.end_col_offset  # type: ignore[attr-defined]

    def _add(self, start: int, stop: int, new: str) -> None:
        old = self._text[start:stop].decode()
        if old != new:
            self.found.append(Fault(self._area, self._path, start, stop, old, new))

    def _between(self, left: ast.AST, right: ast.AST, words: dict[str, str]) -> None:
        """Another word in the place of the one between two nodes."""
        start, stop = self._span(left)[1], self._span(right)[0]
        found = re.search(rb"(?<![\w*/<>=!])(" + rb"|".join(re.escape(w.encode()) for w in sorted(words, key=len)[::-1])
                          + rb")(?![\w*/=])", self._text[start:stop])  # fmt: skip
        if found:
            self._add(start + found.start(), start + found.end(), words[found[1].decode()])

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, right in zip([node.left, *node.comparators], node.comparators, strict=False):
            self._between(left, right, COMPARISONS)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._between(node.left, node.right, OPERATIONS)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(left, right, {"and": "or", "or": "and"})
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
            start, stop = self._span(node)
            self._add(start, stop, self._text[slice(*self._span(node.operand))].decode())
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func
        word = name.id if isinstance(name, ast.Name) else name.attr if isinstance(name, ast.Attribute) else ""
        if word in CALLS:
            stop = self._span(name)[1]
            self._add(stop - len(word), stop, CALLS[word])
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        span = self._span(node)
        if isinstance(node.value, bool):
            self._add(*span, str(not node.value))
        elif isinstance(node.value, int):
            more = max(1, round(abs(node.value) / 5))
            self._add(*span, str(node.value + more))
            if node.value > 0:
                self._add(*span, str(node.value - more))
        elif isinstance(node.value, float):
            self._add(*span, repr(node.value * 1.2 if node.value else 0.2))
            self._add(*span, repr(node.value * 0.8 if node.value else -0.2))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        body = node.body[1:] if ast.get_docstring(node) else node.body
        if len(body) > 1 and node.name != "__init__":
            self._add(*self._span(body[0]), "return")
        for one in (*node.args.defaults, *node.args.kw_defaults, *body):
            if one is not None:
                self.visit(one)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Nothing: before Python 3.12 the positions in an f-string are not those in the file."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)


def all_faults(only: str) -> Iterator[Fault]:
    for area, (paths, _) in AREAS.items():
        for path in paths:
            if only in str(path.relative_to(ROOT)):
                yield from Faults(area, path).found


class Copy:
    """A copy of the tree, in which one fault at a time is tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignore = shutil.ignore_patterns("__pycache__", "*.svg")
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=ignore)
            else:
                shutil.copy(source, folder / name)

    def passes(self, area: str, timeout: float) -> bool:
        """True if the tests of an area pass within so many seconds."""
        words = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *AREAS[area][1]]
        env = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        quiet = subprocess.DEVNULL
        child = subprocess.Popen(
            words, cwd=self.folder, env=env, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        try:
            return child.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def finds(self, fault: Fault, timeout: float) -> bool:
        """True if a test fails with the fault."""
        place = self.folder / fault.path.relative_to(ROOT)
        before = place.read_bytes()
        place.write_bytes(fault.text())
        try:
            return not self.passes(fault.area, timeout)
        finally:
            place.write_bytes(before)


def check(copy: Copy) -> None:
    """The copy's own code has to be what is imported, and its tests have to pass without a fault."""
    words = [sys.executable, "-c", "import gradtui; print(gradtui.__file__)"]
    env = {**os.environ, "PYTHONPATH": str(copy.folder)}
    found = subprocess.run(words, cwd=copy.folder, env=env, capture_output=True, text=True, check=True).stdout
    if not Path(found.strip()).is_relative_to(copy.folder):
        raise SystemExit(f"the copy is not what is imported: {found}")


def try_all(faults: Sequence[Fault], jobs: int, timeout: float) -> dict[Fault, bool]:
    """Whether each fault was found."""
    with tempfile.TemporaryDirectory() as temporary:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for job in range(jobs):
            copies.put(Copy(Path(temporary) / str(job)))
        first = copies.get()
        check(first)
        for area in dict.fromkeys(fault.area for fault in faults):
            begin = time.monotonic()
            if not first.passes(area, timeout):
                raise SystemExit(f"the tests of {area} fail, or take longer than {timeout:.0f} s, without any fault")
            print(f"{area}: its tests pass in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        copies.put(first)

        def one(fault: Fault) -> bool:
            copy = copies.get()
            try:
                found = copy.finds(fault, timeout)
            finally:
                copies.put(copy)
            if not found:
                print(f"survived: {fault.place}: {described(fault)}", flush=True)
            return found

        with ThreadPoolExecutor(jobs) as pool:
            return dict(zip(faults, pool.map(one, faults), strict=True))


def described(fault: Fault) -> str:
    line = fault.old.splitlines()[0]
    return f"{line[:60]} -> {fault.new.splitlines()[0][:60]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="faults that are tried (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="chooses them (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="at a time (default: 2)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for the tests of an area (default: 300)")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults in files whose path has this in it")
    parser.add_argument("--list", action="store_true", help="list all faults, and try none")
    options = parser.parse_args()
    faults = list(all_faults(options.only))
    if options.list:
        for fault in faults:
            print(f"{fault.place}: {described(fault)}")
        return
    chosen = random.Random(options.seed).sample(faults, min(options.count, len(faults)))
    begin = time.monotonic()
    found = try_all(chosen, options.jobs, options.timeout)
    print(f"\n{'area':12}{'faults':>8}{'tried':>7}{'found':>7}")
    for area in AREAS:
        own = [was_found for fault, was_found in found.items() if fault.area == area]
        total = sum(fault.area == area for fault in faults)
        share = f"{sum(own) / len(own):9.0%}" if own else ""
        print(f"{area:12}{total:8}{len(own):7}{sum(own):7}{share}")
    killed = sum(found.values())
    print(f"{killed} of {len(found)} found, {len(found) - killed} survived; {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
