"""The page about the run file is true: it names every table and column, and its example runs."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from gradtui.runfile import NOT_MEASURED, SCHEMA_VERSION, Finding, Header, RunWriter
from gradtui.runfile.schema import APPLICATION_ID, SCHEMA
from tests.synthetic import header, layers

PAGE = Path(__file__).parents[2] / "docs" / "run-file.md"


def test_every_table_and_column_has_its_place() -> None:
    text = PAGE.read_text()
    sections = dict(re.findall(r"^\*\*(\w+)\*\*:(.*?)(?=^\*\*|\Z)", text, re.S | re.M))
    tables = sqlite3.connect(":memory:")
    tables.executescript(SCHEMA)
    names = [name for (name,) in tables.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert set(sections) == set(names)
    for table in names:
        columns = [row[1] for row in tables.execute(f"PRAGMA table_info({table})")]
        assert [column for column in columns if f"`{column}`" not in sections[table]] == [], table
    assert [one.name for one in fields(Header) if f"`{one.name}`" not in sections["header"]] == []
    assert f"schema {SCHEMA_VERSION};" in text and f"0x{APPLICATION_ID:x}" in text
    assert f"0x{int(np.array(NOT_MEASURED).view(np.uint32)):X}" in text


def test_its_example_reads_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gradtui.measures import MEASURES

    writer = RunWriter(tmp_path / "a.gradtui", header(), list(MEASURES.values()))
    writer.set_layers(layers(2))
    grid = np.full((2, len(MEASURES)), NOT_MEASURED, np.float32)
    grid[:, list(MEASURES).index("grad_norm")] = (0.25, np.nan)
    writer.step(1, None, 0.1, 0.5, 0.1, grid.tobytes())
    writer.finding(1, Finding("dead", ("fc1",), 1, "zero", end=7))
    writer.finding(2, Finding("plateau", (), 5, "flat"))
    writer.close()
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    names: dict[str, object] = {"path": writer.path}
    exec(code, names)
    assert names["norms"] == {"fc1": 0.25, "fc2": pytest.approx(np.nan, nan_ok=True)}
    measured = names["is_measured"]
    assert isinstance(measured, np.ndarray) and measured.sum(axis=1).tolist() == [1, 1]
    assert capsys.readouterr().out == 'dead ["fc1"] since step 1 until 7\nplateau [] since step 5 \n'
