"""What the tests of the recorder share."""

from __future__ import annotations

import pytest

from gradtui.record import own_steps


@pytest.fixture
def budget_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is measured but as the budget allows."""
    monkeypatch.setattr(own_steps, "FLOORS", -1)
