"""Trainings in two threads at once: each is recorded as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradtui
from gradtui.options import RecordOptions
from gradtui.record.autoattach import AutoRecorder
from gradtui.record.backward import Backwards, backwards
from gradtui.record.patches import on_every_optimizer
from gradtui.run_request import RunRequest
from gradtui.runfile import open_run

STEPS = 40
Losses = list[float]


def train(width: int, losses: Losses, together: threading.Barrier, watched: Callable[..., object] | None) -> None:
    generator = torch.Generator().manual_seed(width)
    net = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 4))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    recorder = watched(net, optimizer) if watched else None
    for x in torch.randn(STEPS, 16, 6, generator=generator):
        together.wait(20)  # step by step, so that they do get in each other's way
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if recorder is not None:
        recorder.close()  # type: ignore[attr-defined]


def both(watched: Callable[..., object] | None) -> dict[int, Losses]:
    """The losses of two trainings in two threads, by the width of their nets."""
    told: dict[int, Losses] = {8: [], 9: []}
    together = threading.Barrier(2)
    threads = [threading.Thread(target=train, args=(width, told[width], together, watched)) for width in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return told


def agree(folder: Path, told: dict[int, Losses]) -> None:
    found = sorted(folder.glob("*.gradtui"))
    assert len(found) == 2
    for path in found:
        with open_run(path) as reader:
            assert not [event.text for event in reader.events() if event.kind == "recorder"]
            layers, rows = reader.layers(), reader.last(99)
        width = layers[0].shapes["bias"][0]
        assert [layer.name for layer in layers] == ["0", "2"]
        assert rows.step.tolist() == list(range(1, STEPS + 1))
        np.testing.assert_allclose(rows.loss, told.pop(width), rtol=1e-6)
    assert not told


def test_two_watched_trainings_are_two_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = both(lambda net, optimizer: gradtui.watch(net, optimizer, every=1, folder=tmp_path))
    agree(tmp_path, told)
    assert not capfd.readouterr().err


def test_two_trainings_that_gradtui_run_finds_are_two_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    auto = AutoRecorder(RunRequest(tmp_path / "auto.gradtui", RecordOptions(folder=tmp_path, every=1)))
    auto._look_for_updates()
    handle = on_every_optimizer(auto.before_any_step)
    made = []
    new_recording, auto._new_recording = auto._new_recording, lambda: made.append(new_recording()) or made[-1]  # type: ignore[method-assign]
    try:
        told = both(None)
    finally:
        handle.remove()
        auto._stop_looking()
        backwards.unfollow(auto)
        for recording in made:
            recording.close()
    agree(tmp_path, told)
    assert not capfd.readouterr().err


def test_a_thread_in_which_gradients_are_computed_has_part_in_the_call(tmp_path: Path) -> None:
    """As those of CUDA, in which hooks on gradients run; no other thread that calls `backward` by itself."""
    calls, seen = Backwards(), []
    listener = type("Nobody", (), {"loss_broke": lambda *_: None})()
    calls.listen(listener)
    weight = torch.ones(2, requires_grad=True)

    def look(what: object) -> None:
        seen.append(calls.active)

    def other(first: bool) -> None:
        if first:
            look(None)
        else:
            torch.ones(1, requires_grad=True).sum().backward()
            look(None)

    def within(grad: object) -> None:
        for first in (True, False):
            thread = threading.Thread(target=other, args=(first,))
            thread.start()
            thread.join()

    weight.register_hook(within)
    try:
        weight.sum().backward()
    finally:
        calls.ignore(listener)
    assert seen == [True, False]
