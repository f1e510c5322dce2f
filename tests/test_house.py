"""What holds for every file of the two packages: how long, how many parameters, one name a file, plain words."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gradtui

ROOT = Path(__file__).parents[1]
FILES = sorted(path for package in ("gradtui", "pretrain") for path in (ROOT / package).rglob("*.py"))
MOST_LINES = 400  # of a file
MOST_IN_FUNCTION = 60  # lines
MOST_PARAMETERS = 8

# idioms and words of our own, and where each belongs: everywhere, or in one package
NOT_PLAIN = {
    "": r"ails?|falls? ill|ill|deaf|by hand|mails?|letters|outbox|lanes?|ledger|that there are not|in a blink|mends?",
    "pretrain": r"(?<!boltzmann )machines?",  # an RBM
}


def functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Every function, and whether it makes the objects of a public class."""
    makes = {
        id(member)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        for member in node.body
        if isinstance(member, ast.FunctionDef) and member.name == "__init__"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, id(node) in makes


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def problems_of(path: Path) -> Iterator[str]:
    name, source = path.relative_to(ROOT), path.read_text()
    if source.count("\n") > MOST_LINES:
        yield f"{name}: long file"
    for function, makes in functions(ast.parse(source)):
        assert function.end_lineno is not None
        if function.end_lineno - function.lineno + 1 > MOST_IN_FUNCTION:
            yield f"{name}: long function {function.name}"
        if not makes and parameters(function) > MOST_PARAMETERS:
            yield f"{name}: parameters of {function.name}"
    text = re.sub(r"[\s_]+", " ", source.lower().replace("#", " "))  # words that a line's end divides, and in names
    for package, words in NOT_PLAIN.items():
        if name.parts[0].startswith(package):
            for word in sorted(set(re.findall(rf"\b({words})\b", text))):
                yield f"{name}: says {word!r}"


def names_that_two_files_have() -> Iterator[str]:
    for package in ("gradtui", "pretrain"):
        names = Counter(path.name for path in FILES if path.is_relative_to(ROOT / package))
        for name, count in names.items():
            if count > 1 and name not in ("__init__.py", "__main__.py"):
                yield f"{package}: {count} files named {name}"


def test_files_and_functions_are_short_names_differ_and_words_are_plain() -> None:
    found = {*names_that_two_files_have(), *(problem for path in FILES for problem in problems_of(path))}
    assert found == set()


def test_no_two_files_of_tests_have_one_name() -> None:
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]  # pytest would collect one of them only


def test_the_version_stands_in_one_place() -> None:
    version = re.escape(gradtui.__version__)
    places = [
        path.relative_to(ROOT).as_posix()
        for path in (*FILES, ROOT / "pyproject.toml", ROOT / ".ci" / "run", *(ROOT / "docs").glob("*.py"))
        if re.search(rf"""["']{version}["']""", path.read_text())
    ]
    assert places == ["gradtui/__init__.py"]
