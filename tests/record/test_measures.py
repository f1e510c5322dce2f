"""The recorded values against plain autograd."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import gradtui
from gradtui.runfile import is_measured
from tests.record.columns_of_ours import (
    BIAS_GRAD_NORM,
    GRAD_NORM,
    PARAM_NORM,
    UPDATE_RATIO,
    WEIGHT_GRAD_NORM,
)
from tests.record.watched_nets import perceptron, step_driven_by_a_scaler, train, watch_into


def whole_norm(tensors):
    return float(torch.cat([t.detach().double().reshape(-1) for t in tensors]).norm())


def record_one(model, optimizer, tmp_path, loss_of):
    """One recorded step: (row [layers, measures], reader)."""
    with watch_into(model, optimizer, every=1, path=tmp_path / "one.gradtui") as recorder:
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()
    reader = gradtui.open_run(recorder.path)
    return reader.last(1).measures[0], reader


def record_with_gradients(values, tmp_path, dtype=torch.float32, sizes=(64, 100)):
    """One recorded step of a linear layer whose gradients are all the number given."""
    model = nn.Linear(*sizes, dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch_into(model, optimizer, every=1, path=tmp_path / "given.gradtui") as recorder:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, values)
        optimizer.step()
    return gradtui.open_run(recorder.path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(7, 5, 3), (300, 200, 120, 4)])
def test_gradient_norms_agree_with_autograd_in_float64(dtype, sizes, tmp_path):
    model = perceptron(*sizes).to(dtype)
    x = torch.randn(16, sizes[0], dtype=dtype)
    oracle = copy.deepcopy(model).double()
    oracle(x.double()).square().mean().backward()
    row, reader = record_one(
        model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path, lambda: model(x).square().mean()
    )
    tolerance = 2e-6 if dtype == torch.float32 else 1e-7
    for line, layer in zip(row, oracle[::2], strict=True):
        assert line[BIAS_GRAD_NORM] == pytest.approx(whole_norm([layer.bias.grad]), rel=tolerance)
        assert line[WEIGHT_GRAD_NORM] == pytest.approx(whole_norm([layer.weight.grad]), rel=tolerance)
        assert line[GRAD_NORM] == pytest.approx(whole_norm([layer.bias.grad, layer.weight.grad]), rel=tolerance)
        assert line[PARAM_NORM] == pytest.approx(whole_norm(list(layer.parameters())), rel=tolerance)
    neurons = reader.neurons(1)
    for index, layer in enumerate(oracle[::2]):
        np.testing.assert_allclose(neurons.bias_grad[index], layer.bias.grad.numpy(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=0.01),
    ],
    ids=["Adam", "momentum", "AdamW"],
)
def test_update_ratio_is_of_the_step_the_optimizer_really_took(make, tmp_path):
    model = perceptron(20, 15, 10)
    optimizer = make(model.parameters())
    with watch_into(model, optimizer, every=1, update_every=1, path=tmp_path / "r.gradtui") as recorder:
        train(model, optimizer, steps=4)
        before = copy.deepcopy(model)
        train(model, optimizer, steps=1)
    row = gradtui.open_run(recorder.path).last(1).measures[0]
    for line, old, new in zip(row, before[::2], model[::2], strict=True):
        moved = whole_norm([n.double() - o.double() for n, o in zip(new.parameters(), old.parameters(), strict=True)])
        assert line[UPDATE_RATIO] == pytest.approx(moved / whole_norm(list(old.parameters())), rel=1e-5)


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e-22, 1e-20, 1e-10, 1.0, 1e19, 1e30, 1e35])
def test_tiny_and_huge_gradients_have_their_norm(size, tmp_path):
    reader = record_with_gradients(size, tmp_path)
    row = reader.last(1).measures[0, 0]
    true = float(torch.tensor(size))
    # the smallest numbers of float32 have few digits
    tolerance = 0.05 if size < 1e-38 else 1e-6
    assert row[BIAS_GRAD_NORM] == pytest.approx(true * 10, rel=tolerance)
    assert row[WEIGHT_GRAD_NORM] == pytest.approx(true * 80, rel=tolerance)
    assert row[GRAD_NORM] == pytest.approx(true * 6500**0.5, rel=tolerance)
    assert not reader.findings()


@pytest.mark.parametrize("size", [1e-30, 1e-22, 3e-21, 1e-10, 1e19, 1e30])
def test_tiny_and_huge_gradients_of_large_parameters_have_their_norm(size, tmp_path):
    row = record_with_gradients(size, tmp_path, sizes=(256, 400)).last(1).measures[0, 0]
    assert row[WEIGHT_GRAD_NORM] == pytest.approx(float(torch.tensor(size)) * 320, rel=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nonfinite_gradients_are_values_and_a_finding(value, tmp_path):
    reader = record_with_gradients(value, tmp_path)
    row = reader.last(1).measures[0, 0]
    np.testing.assert_equal(row[:3], [abs(value)] * 3)
    assert is_measured(row[:3]).all()
    assert [finding.kind for finding in reader.findings()] == ["nan"]


def test_exactly_zero_gradients_are_zero_and_a_note(tmp_path):
    reader = record_with_gradients(0.0, tmp_path)
    assert (reader.last(1).measures[0, 0, :3] == 0).all()
    assert [(finding.kind, finding.note) for finding in reader.findings()] == [("zero-gradient", True)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype, tmp_path):
    row = record_with_gradients(300.0, tmp_path, dtype).last(1).measures[0, 0]
    assert row[WEIGHT_GRAD_NORM] == pytest.approx(float(torch.tensor(300.0, dtype=dtype)) * 80, rel=1e-6)


def test_sparse_gradients_count_with_their_coalesced_values(tmp_path):
    model = nn.Embedding(10, 4, sparse=True)
    index = torch.tensor([1, 1, 3])
    row, _ = record_one(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path, lambda: model(index).pow(2).sum())
    assert row[0, WEIGHT_GRAD_NORM] == pytest.approx(whole_norm([model.weight.grad.to_dense()]), rel=1e-6)


def test_channels_last_gradients_have_their_norm(tmp_path):
    model = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    row, _ = record_one(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path, lambda: model(x).square().mean())
    assert row[0, WEIGHT_GRAD_NORM] == pytest.approx(whole_norm([model.weight.grad]), rel=1e-5)
    assert is_measured(row)[:, :5].all()


def test_what_has_no_gradient_counts_as_not_measured(tmp_path):
    model = nn.ModuleDict(
        {"no_bias": nn.Linear(4, 4, bias=False), "unused": nn.Linear(4, 4), "partly": nn.Linear(4, 4)}
    )
    model["partly"].bias.requires_grad_(False)
    row, reader = record_one(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        tmp_path,
        lambda: model["partly"](model["no_bias"](torch.randn(3, 4))).sum(),
    )
    measured = dict(zip([layer.name for layer in reader.layers()], is_measured(row)[:, :5].tolist(), strict=True))
    assert measured["no_bias"] == [False, True, True, True, True]
    assert measured["unused"] == [False, False, False, True, True]
    assert measured["partly"] == [False, True, True, True, True]


def test_gradients_that_appear_later_are_measured(tmp_path):
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch_into(model, optimizer, every=1, update_every=1, path=tmp_path / "r.gradtui") as recorder:
        for _ in range(2):
            optimizer.zero_grad()
            model[1](model[0](torch.randn(3, 4))).sum().backward()
            optimizer.step()
            model[0].requires_grad_(True)
    rows = gradtui.open_run(recorder.path).last(2).measures
    assert is_measured(rows)[:, 0, :5].tolist() == [[False] * 5, [True] * 5]
    assert is_measured(rows)[:, 1, :5].all()


def test_lstm_biases_count_together(tmp_path):
    model = nn.LSTM(3, 4, batch_first=True)
    x = torch.randn(2, 5, 3)
    row, reader = record_one(
        model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path, lambda: model(x)[0].square().mean()
    )
    assert row[0, BIAS_GRAD_NORM] == pytest.approx(whole_norm([model.bias_ih_l0.grad, model.bias_hh_l0.grad]), rel=1e-6)
    assert len(reader.neurons(1).bias_grad[0]) == 32


def test_biases_of_attention_count_as_such(tmp_path):
    model = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.randn(2, 5, 4)
    row, _ = record_one(
        model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path, lambda: model(x, x, x)[0].square().mean()
    )
    assert row[0, BIAS_GRAD_NORM] == pytest.approx(whole_norm([model.in_proj_bias.grad]), rel=1e-6)


def test_a_loss_scale_is_divided_out(tmp_path):
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui") as recorder:
        for found_inf in (0.0, 1.0):
            model.weight.grad, model.bias.grad = torch.full((3, 4), 1024.0), torch.full((3,), 2048.0)
            step_driven_by_a_scaler(recorder, optimizer, 1024.0, found_inf)
    reader = gradtui.open_run(recorder.path)
    rows = reader.last(2).measures[:, 0]
    assert rows[0, :2] == pytest.approx([12**0.5 * 0 + (3 * 4) ** 0.5, 12**0.5])
    assert not is_measured(rows[1, :3]).any()
    np.testing.assert_array_equal(reader.neurons(1).bias_grad[0], [2.0] * 3)


def test_lbfgs_is_recorded_and_not_disturbed(tmp_path):
    def run(watched):
        model = perceptron(5, 4, 3)
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
        x = torch.ones(2, 5)

        def closure():
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            return loss

        if watched:
            recorder = watch_into(model, optimizer, every=1, path=tmp_path / "r.gradtui")
        for _ in range(3):
            optimizer.step(closure)
        if watched:
            recorder.close()
            assert gradtui.open_run(recorder.path).span() == (1, 3)
        return list(model.parameters())

    assert all(torch.equal(a, b) for a, b in zip(run(True), run(False), strict=True))
