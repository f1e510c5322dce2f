"""Which layers there are, in which order, and what is counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradtui
from gradtui.options import RecordOptions
from gradtui.record.header import RunFacts
from gradtui.record.recorder import Recorder
from gradtui.record.watching import start_recording
from tests.record.watched_nets import perceptron, train, watch_into


class Backwards(nn.Module):
    """Defines its layers in another order than it runs them."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 2)
        self.first = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.first(x))


def layers_of(model, tmp_path, loss_of):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with watch_into(model, optimizer, every=1, path=tmp_path / "layers.gradtui") as recorder:
        loss_of(model).backward()
        optimizer.step()
    return gradtui.open_run(recorder.path).layers()


def test_layers_come_in_order_of_execution_with_their_shapes(tmp_path):
    found = layers_of(Backwards(), tmp_path, lambda model: model(torch.randn(5, 4)).sum())
    assert [layer.name for layer in found] == ["first", "last"]
    assert found[0].shapes == {"weight": (3, 4), "bias": (3,)}
    assert (found[0].input_shape, found[0].output_shape) == ((4,), (3,))
    assert (found[0].kind, found[0].parameters) == ("Linear", 15)


def test_forward_hooks_are_gone_after_the_first_step(tmp_path):
    model = Backwards()
    layers_of(model, tmp_path, lambda model: model(torch.randn(5, 4)).sum())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_compiled_models_get_no_forward_hooks_and_keep_their_names(tmp_path):
    model = torch.compile(Backwards(), backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch_into(model, optimizer, every=1, path=tmp_path / "c.gradtui") as recorder:
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert [layer.name for layer in gradtui.open_run(recorder.path).layers()] == ["last", "first"]


def test_layers_that_were_not_seen_to_run_follow_the_one_before(tmp_path):
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    found = layers_of(block, tmp_path, lambda model: model(torch.randn(2, 3, 8)).sum())
    names = [layer.name for layer in found]
    assert names[:2] == ["self_attn", "self_attn.out_proj"]


def test_shared_modules_and_parameters_are_counted_once(tmp_path):
    shared = nn.Linear(4, 4)
    tied = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(shared, nn.Tanh(), shared, tied)
    tied.weight = shared.weight
    found = layers_of(model, tmp_path, lambda model: model(torch.randn(2, 4)).sum())
    assert [(layer.name, layer.parameters) for layer in found] == [("0", 20)]


def test_frozen_parameters_count_in_the_layer(tmp_path):
    model = perceptron(4, 3, 2)
    model[0].requires_grad_(False)
    found = layers_of(model, tmp_path, lambda model: model(torch.randn(2, 4)).sum())
    assert [layer.parameters for layer in found] == [15, 8]


def test_lazy_layers_are_known_after_the_first_forward(tmp_path):
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch_into(model, optimizer, every=1, path=tmp_path / "l.gradtui") as recorder:
        model(torch.randn(2, 5)).sum().backward()
        optimizer.step()
    assert [layer.parameters for layer in gradtui.open_run(recorder.path).layers()] == [18, 8]


@pytest.mark.parametrize("name", ["", "[red]", "\x1b[2J", "层" * 100])
def test_any_layer_name_is_kept_as_it_is(name, tmp_path):
    model = nn.Module()
    model.add_module(name or "x", nn.Linear(2, 2))
    found = layers_of(model, tmp_path, lambda model: next(iter(model.children()))(torch.randn(1, 2)).sum())
    assert found[0].name == (name or "x")


def test_the_header_tells_what_was_run(tmp_path):
    model = perceptron(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    facts = RunFacts(recipe={"a": 1}, total_steps=9, takes_commands=["stop"])
    options = RecordOptions(every=2, name="mine", folder=tmp_path)
    with Recorder(start_recording(model, optimizer, options, facts=facts)) as recorder:
        train(model, optimizer, recorder)
    header = gradtui.open_run(recorder.path).header
    assert recorder.path.parent == tmp_path and recorder.path.name.startswith("mine-")
    assert (header.name, header.recipe, header.total_steps, header.takes_commands) == ("mine", {"a": 1}, 9, ["stop"])
    assert header.sampling == "every 2 steps; update ratio within 1 % of the step time"
    assert header.versions["torch"] == torch.__version__ and header.pid and header.process_start and header.command
