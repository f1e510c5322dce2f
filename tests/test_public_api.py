"""What can be kept: the names of the package, and nothing else."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import gradtui

ASKED_FOR = {
    "Finding", "Measure", "RecordOptions", "Recorder", "Remedy", "Thresholds", "diagnose", "finding", "open_run",
    "runs", "watch",
}  # fmt: skip
IN_SIGNATURES = {
    "Layer", "Norm", "Outcome", "RecordKeywords", "RunReader", "RunSummary", "Series", "Status", "Threshold",
}  # fmt: skip


def names_for_type_checkers(path: Path) -> dict[str, str]:
    """The names under `if TYPE_CHECKING`, and the module of each."""
    (block,) = (one for one in ast.parse(path.read_text()).body if isinstance(one, ast.If))
    found = {}
    for one in block.body:
        assert isinstance(one, ast.ImportFrom)
        for name in one.names:
            assert name.name == name.asname, "without `as` it is not exported"
            found[name.name] = str(one.module)
    return found


def test_the_public_names_are_these() -> None:
    assert set(gradtui.__all__) == ASKED_FOR | IN_SIGNATURES
    assert set(dir(gradtui)) == {*gradtui.__all__, "__version__"}


@pytest.mark.parametrize("package", ["gradtui", "gradtui.runfile"])
def test_names_are_the_same_for_type_checkers_and_at_run_time(package: str) -> None:
    module = import_module(package)
    names = names_for_type_checkers(Path(str(module.__file__)))
    assert sorted(names) == module.__all__
    for name, home in names.items():
        assert getattr(module, name) is getattr(import_module(home), name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense


def test_a_recorder_has_these_attributes() -> None:
    names = {name for name in dir(gradtui.Recorder) if not name.startswith("_")}
    assert names == {"log", "event", "close", "stop_requested", "path"}
    assert hasattr(gradtui.Recorder, "__enter__") and hasattr(gradtui.Recorder, "__exit__")
