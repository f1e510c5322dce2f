"""Callbacks of ours and of others, by name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import gradtui.callbacks
from gradtui.callbacks import CALLBACKS
from gradtui.errors import UsageError
from gradtui.registry import LazyRegistry

FRAMEWORKS = {"accelerate", "lightning", "skorch", "transformers"}


def test_ours_are_known_by_name() -> None:
    assert set(CALLBACKS) >= FRAMEWORKS and set(dir(gradtui.callbacks)) >= FRAMEWORKS
    with pytest.raises(AttributeError, match="no attribute 'keras'; there are accelerate"):
        _ = gradtui.callbacks.keras


def test_a_callback_of_your_own_is_one_call() -> None:
    mine = SimpleNamespace(GradtuiCallback=object)
    CALLBACKS.register("mine", mine)
    try:
        assert gradtui.callbacks.mine is mine and "mine" in dir(gradtui.callbacks)
        with pytest.raises(UsageError, match="'mine' already"):
            CALLBACKS.register("mine", SimpleNamespace())
    finally:
        CALLBACKS.unregister("mine")
    assert "mine" not in CALLBACKS


def test_a_package_adds_its_own_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text("GradtuiCallback = 'theirs'")
    (tmp_path / "broken.py").write_text("raise ValueError('broken')")
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tests.callbacks]\nkeras = theirs\nbad = broken\nours = broken\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry: LazyRegistry[object] = LazyRegistry("callback", "tests.callbacks", {"ours": lambda: "ours"})
    assert set(registry) == {"ours", "keras", "bad"} and len(registry) == 3 and "theirs" not in sys.modules
    assert registry["keras"].GradtuiCallback == "theirs" and registry["ours"] == "ours"
    with pytest.raises(ValueError, match="broken"):
        _ = registry["bad"]
    assert "other" not in registry and registry.get("other") is None
