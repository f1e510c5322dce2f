"""What `gradtui.watch` finds while the training runs, and tells by a callback."""

from __future__ import annotations

import pytest
import torch

import gradtui
from gradtui.diagnosis import Thresholds
from tests.record.watched_nets import perceptron, watch_into


def train(model, optimizer, steps, spoil_from):
    generator = torch.Generator().manual_seed(1)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = model(torch.randn(8, 6, generator=generator)).square().mean()
        (loss / (0.0 if step >= spoil_from else 1.0)).backward()
        optimizer.step()


def test_a_finding_is_told_once_with_its_step_and_remedies(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    with watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui", on_finding=found.append):
        train(model, optimizer, 40, spoil_from=30)
    assert [(finding.kind, finding.begin) for finding in found] == [("nan", 30)]
    assert found[0].remedies and "forward pass of step 30" in found[0].evidence


def test_a_healthy_training_has_none(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    with watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui", on_finding=found.append):
        train(model, optimizer, 40, spoil_from=99)
    assert found == []


def test_a_callback_may_end_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr("gradtui.runfile.writer.FLUSH_EVERY", 0.001)

    class IllError(Exception):
        pass

    def stop(finding):
        raise IllError(finding.kind)

    model = perceptron(6, 5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(IllError, match="nan"),
        watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui", on_finding=stop),
    ):
        train(model, optimizer, 1_000_000, spoil_from=30)
    assert gradtui.open_run(tmp_path / "r.gradtui").status().state == "failed"


def test_thresholds_can_be_set(tmp_path):
    model = perceptron(6, 5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    with watch_into(
        model,
        optimizer,
        every=1,
        update_every=1,
        path=tmp_path / "r.gradtui",
        on_finding=found.append,
        thresholds=Thresholds(too_large=0.0, progress=1.1),
    ):
        train(model, optimizer, 40, spoil_from=99)
    assert "update-too-large" in [finding.kind for finding in found]
