"""The report of a comparison: one file, true to the table, safe with any label."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gradtui.errors import GradtuiError
from gradtui.lab.html_report import write_report
from gradtui.lab.plan import Plan
from gradtui.lab.recipe import Recipe
from gradtui.lab.results import as_cells, results, table
from gradtui.lab.run_plan import plan_of, run_cells

WICKED = "<script>alert('$x_1$')</script>"
SMALL = Recipe(hidden=(8, 8), epochs=3, batch_size=100, train_size=200)


class Page(HTMLParser):
    """Every tag with its attributes, and the text of the cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")
        self._in_cell = tag == "td"

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    recipes = {
        "plain": SMALL,
        WICKED: SMALL.adapted({"activation": "tanh", "norm": "batch"}),
        "_wild": SMALL.but(activation="relu", init="he", cost="softmax", learning_rate=1e30),
        "lstm": Recipe(data="adding", net="lstm", activation="tanh", cost="squared", init="uniform", length=6,
                       hidden=(6,), epochs=2, train_size=60, batch_size=20),
        "damaged": SMALL.but(seed=5),
        "missing": SMALL.but(seed=6),
    }  # fmt: skip
    made = plan_of(tmp_path_factory.mktemp("runs") / "a.compare", WICKED, "look & see", recipes, 2, 2.0)
    run_cells([cell for cell in made.cells() if cell.label not in ("damaged", "missing")], jobs=1)
    for cell in made.cells():
        if cell.label == "damaged":
            cell.path.write_bytes(b"SQLite format 3\0 and no more")
    return made


def test_the_report_holds_the_table_and_nothing_from_outside(plan: Plan, tmp_path: Path) -> None:
    found = results(plan)
    write_report(plan, found, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    wanted = [cell for row in table(plan, found) for cell in as_cells(row)]
    assert page.cells == wanted
    assert "not done" in text and "diverged at step" in text
    tags = [tag for tag, _ in page.tags]
    assert tags.count("svg") == 4 and not {"script", "link", "img", "iframe", "object"} & set(tags)
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    addresses = set(re.findall(r"https?://[^\"'\s<>]+", text))
    assert all(re.match(r"http://www\.w3\.org/|http://purl\.org/dc/|http://creativecommons", a) for a in addresses)
    assert not re.search(r"url\((?!#)", text) and "@import" not in text
    assert "&lt;script&gt;" in text and "<script" not in text


def test_the_same_comparison_gives_the_same_bytes(plan: Plan, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(plan, results(plan), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_comparison_without_a_run_is_a_report_too(tmp_path: Path) -> None:
    empty = plan_of(tmp_path / "none.compare", "none", "", {"a": SMALL}, 1, None)
    write_report(empty, results(empty), tmp_path / "report.html")
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_a_place_that_cannot_be_written_is_one_line(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(GradtuiError, match="cannot write the report") as caught:
        write_report(plan, results(plan), tmp_path / "nowhere" / "report.html")
    assert "\n" not in str(caught.value)
