"""What a package index and a reader of the repository see: links lead somewhere, to files of this version."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gradtui

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    path.relative_to(ROOT).as_posix() for folder in (".", "docs", "pretrain") for path in (ROOT / folder).glob("*.md")
]
HERE = re.compile(r"https://github\.com/gradtui/gradtui/(?:blob|raw)/([^/]+)/(.+)")


def links_of(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def test_links_of_the_readme_are_absolute_and_lead_to_files_of_this_version() -> None:
    links = links_of(README)
    assert len(links) >= 5
    for link in links:
        found = HERE.fullmatch(link)
        assert found, link
        assert found[1] == f"v{gradtui.__version__}" and (ROOT / found[2]).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_of_the_other_pages_lead_to_files(page: str) -> None:
    path = ROOT / page
    for link in links_of(path.read_text()):
        if not link.startswith(("https://", "#")):
            assert (path.parent / link.partition("#")[0]).exists(), link
