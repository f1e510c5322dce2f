"""A small dose of `benchmarks/fault_fuzz.py`: damaged and forged files of each kind through every reader."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import fault_files
import fault_fuzz
import fault_mutations
from fault_limits import BrokenPromiseError
from fault_readers import SHOWN, check_lines, through_gradtui
from fault_result import Result

SEED = 12
CASES = 240


@pytest.mark.parametrize("part", range(4))
def test_no_damaged_file_makes_a_reader_break_a_promise(part: int, tmp_path: Path) -> None:
    outcomes = [fault_fuzz.case(number, SEED, tmp_path / "case") for number in range(part, CASES, 4)]
    assert {outcome for _, _, outcome in outcomes} <= {"shown", "called damaged"}
    assert {kind for kind, _, _ in outcomes} > {"run", "idx"}


def test_whole_files_are_shown(tmp_path: Path) -> None:
    for number, one in enumerate(fault_fuzz.whole_ones()["run"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / one.name).write_bytes(one.content)
        assert through_gradtui(folder / one.name) == SHOWN


def test_a_broken_promise_is_told_with_its_case_and_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(path: Path) -> str:
        raise KeyError("of all things")

    monkeypatch.setattr(fault_fuzz, "through_gradtui", breaks)
    results = fault_fuzz.run(12, SEED, tmp_path / "kept")
    assert not results[0].ok and not all(one.ok for one in results)
    assert any("a traceback, \"KeyError: 'of all things'\"" in one.figure for one in results if isinstance(one, Result))
    assert list((tmp_path / "kept").glob("*/hurt.gradtui"))


def test_each_kind_of_damage_changes_the_file(tmp_path: Path) -> None:
    import random

    draws = random.Random(SEED)
    for kind, damages in fault_mutations.FORGERIES.items():
        whole: fault_files.Whole = fault_fuzz.whole_ones()[kind][0]
        for damage in set(damages):
            damage(draws, whole, tmp_path / whole.name)
            assert (tmp_path / whole.name).read_bytes() != whole.content, damage.__name__


def test_what_a_terminal_may_obey_is_found() -> None:
    check_lines("name\tvalue\nfc1\t0.1")
    with pytest.raises(BrokenPromiseError, match="control character"):
        check_lines("\x1b[2J")
