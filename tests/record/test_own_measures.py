"""Measures that a user adds: of parameters, of outputs, and norms."""

from __future__ import annotations

import random
import textwrap
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from torch import nn

import gradtui
from gradtui.errors import UsageError
from gradtui.measures import LEARNING_SPEED, MEASURES, Measure, Norm, column_of, described, run_measures
from gradtui.options import RecordOptions
from gradtui.runfile import is_measured, schema
from tests.record.columns_of_ours import GRAD_NORM, PARAM_NORM, UPDATE_RATIO
from tests.record.watched_nets import perceptron, step_driven_by_a_scaler, train


def spectral_norm(parameters, gradients):
    return torch.linalg.matrix_norm(parameters["weight"], 2)


def loudest(output, activation, layer):
    return output.abs().max()


SPECTRAL = Measure(
    "spectral_norm",
    "σ₁(W)",
    "1",
    "largest singular value of the weight",
    title="Spectral norm",
    of_parameters=spectral_norm,
)
LOUDEST = Measure("loudest", "max |a|", "1", "largest output", of_outputs=loudest)


def of_parameters(function, name="own"):
    return Measure(name, "m", "1", "made up", of_parameters=function)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def recorded(tmp_path, measures, steps=4, model=None, optimizer=None):
    """(a trained net, the reader of its run), every step measured in full."""
    model = perceptron(6, 5, 4) if model is None else model
    optimizer = optimizer or sgd(model)
    options = RecordOptions(every=1, update_every=1, budget=1.0, folder=tmp_path, measures=measures)
    with gradtui.watch(model, optimizer, options) as recorder:
        train(model, optimizer, steps=steps)
    return model, gradtui.open_run(recorder.path)


def values(reader, name):
    """Of one measure: [rows, layers], NaN where it was not measured."""
    block = reader.last(999).measures
    column = column_of(reader.measures, name)
    return np.where(is_measured(block), block, np.nan)[:, :, column]


def trained(steps):
    """The same net after some steps without a recorder."""
    model = perceptron(6, 5, 4)
    train(model, sgd(model), steps=steps)
    return model


def test_a_measure_of_parameters_is_of_each_layer_before_the_step(tmp_path):
    _, reader = recorded(tmp_path, [SPECTRAL])
    expected = [[torch.linalg.svdvals(trained(i)[k].weight.double())[0].item() for k in (0, 2)] for i in range(4)]
    np.testing.assert_allclose(values(reader, "spectral_norm"), expected, rtol=1e-6)


def test_the_file_says_what_a_measure_of_a_user_is_and_ours_come_first(tmp_path):
    _, reader = recorded(tmp_path, [SPECTRAL, LOUDEST])
    assert [measure.name for measure in reader.measures] == [*MEASURES, "spectral_norm", "loudest"]
    *_, spectral, loud = reader.measures
    assert (spectral.symbol, spectral.unit, spectral.title, spectral.source) == (
        "σ₁(W)",
        "1",
        "Spectral norm",
        "parameters",
    )
    assert spectral.definition == "largest singular value of the weight"
    assert (loud.title, loud.source) == ("", "outputs")
    assert [measure.source for measure in reader.measures[:9]] == [
        *["gradients"] * 3,
        "parameters",
        "updates",
        *["outputs"] * 4,
    ]


def test_gradients_come_with_the_parameters_and_a_loss_scale_is_divided_out(tmp_path):
    def cosine(parameters, gradients):
        assert list(parameters) == list(gradients)
        assert not any(one.requires_grad for one in (*parameters.values(), *gradients.values()))
        return gradients["weight"].sum()

    model = nn.Linear(4, 3)
    optimizer = sgd(model)
    measures = [of_parameters(cosine)]
    with gradtui.watch(
        model, optimizer, every=1, update_every=1, budget=1.0, folder=tmp_path, measures=measures
    ) as recorder:
        for found_inf in (0.0, 1.0):
            model.weight.grad, model.bias.grad = torch.full((3, 4), 1024.0), torch.full((3,), 2048.0)
            step_driven_by_a_scaler(recorder, optimizer, 512.0, found_inf)
    found = values(gradtui.open_run(recorder.path), "own")[:, 0]
    np.testing.assert_array_equal(found, [24.0, np.nan])


def test_a_measure_of_outputs_knows_the_activation_function_and_the_layer(tmp_path):
    seen = []

    def note(output, activation, layer):
        seen.append((layer.name, layer.kind, activation, tuple(output.shape), output.requires_grad))
        return 3 if activation == "sigmoid" else output.double().sum()

    _, reader = recorded(tmp_path, [LOUDEST, Measure("n", "n", "1", "made up", of_outputs=note)])
    assert ("0", "Linear", "sigmoid", (8, 5), False) in seen and ("2", "Linear", None, (8, 4), False) in seen
    found = values(reader, "n")
    sampled = ~np.isnan(found[:, 0])
    assert not sampled[0], "the first step comes before anything is sampled"
    assert sampled.any() and set(found[sampled, 0]) == {3.0}

    expected = []
    for steps in (1, 2, 3):
        model = trained(steps)
        generator = torch.Generator().manual_seed(1)
        x = [torch.randn(8, 6, generator=generator) for _ in range(steps + 1)][-1]
        expected.append([model[:2](x).abs().max().item(), model(x).abs().max().item()])
    np.testing.assert_allclose(values(reader, "loudest")[sampled], np.array(expected)[sampled[1:]], rtol=1e-6)


@pytest.mark.parametrize("name", ["gelu", "silu", "elu", "leaky_relu", "hardtanh", "softplus", "mish"])
def test_outputs_are_those_after_any_activation_function(name, tmp_path):
    names = set()

    def note(output, activation, layer):
        names.add((layer.name, activation))

    class Net(nn.Sequential):
        def forward(self, x):
            return self[1](getattr(nn.functional, name)(self[0](x)))

    recorded(
        tmp_path, [Measure("n", "n", "1", "made up", of_outputs=note)], model=Net(nn.Linear(6, 5), nn.Linear(5, 4))
    )
    assert names == {("0", None), ("0", name), ("1", None)}


def test_lower_precision_arrives_as_float32(tmp_path):
    kinds = set()

    def note(output, activation, layer):
        kinds.add(output.dtype)

    recorded(tmp_path, [Measure("n", "n", "1", "made up", of_outputs=note)], model=perceptron(6, 5, 4).bfloat16())
    recorded(tmp_path, [Measure("n", "n", "1", "made up", of_outputs=note)], model=perceptron(6, 5, 4).double())
    assert kinds == {torch.float32, torch.float64}


def test_norms_of_a_user_cost_no_function(tmp_path):
    norms = {
        "update_norm": Norm("updates"),
        "bias_size": Norm("parameters", over="biases"),
        "weight_update_ratio": Norm("updates", over="others", relative_to="parameters"),
        "again": Norm("gradients"),
    }
    measures = [Measure(name, name, "1", "made up", norm=norm) for name, norm in norms.items()]
    _, reader = recorded(tmp_path, measures)
    block = reader.last(99).measures
    sizes = block[:, :, PARAM_NORM] * block[:, :, UPDATE_RATIO]
    np.testing.assert_allclose(values(reader, "update_norm"), sizes, rtol=1e-6)
    np.testing.assert_array_equal(values(reader, "again"), block[:, :, GRAD_NORM])
    before, after = trained(0), trained(1)
    for layer, place in enumerate((0, 2)):
        old, new = before[place], after[place]
        assert values(reader, "bias_size")[0, layer] == pytest.approx(old.bias.norm().item(), rel=1e-6)
        ratio = ((new.weight - old.weight).norm() / old.weight.norm()).item()
        assert values(reader, "weight_update_ratio")[0, layer] == pytest.approx(ratio, rel=1e-4)


def test_norms_of_zeros_have_no_ratio(tmp_path):
    model = perceptron(6, 5, 4)
    nn.init.zeros_(model[0].bias)
    ratio = Measure("r", "r", "1", "made up", norm=Norm("updates", over="biases", relative_to="parameters"))
    _, reader = recorded(tmp_path, [ratio], model=model, steps=2)
    assert np.isnan(values(reader, "r")).tolist() == [[True, False], [False, False]]


def test_a_layer_whose_optimizers_step_inside_backward_is_measured_once_with_all_its_parameters(tmp_path):
    model = perceptron(6, 5, 4)
    seen = []

    def note(parameters, gradients):
        seen.append(sorted(parameters))
        return torch.linalg.matrix_norm(parameters["weight"], 2)

    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: optimizers[p].step())
    options = RecordOptions(every=1, update_every=1, folder=tmp_path, measures=[of_parameters(note)])
    with gradtui.watch(model, list(optimizers.values()), options) as recorder:
        model(torch.ones(8, 6)).square().mean().backward()
    assert seen == [["bias", "weight"]] * 2
    expected = [torch.linalg.matrix_norm(perceptron(6, 5, 4)[k].weight, 2).item() for k in (0, 2)]
    found = values(gradtui.open_run(recorder.path), "own")
    assert found.shape == (1, 2)
    # a layer is measured as its bias is stepped, which may be before or after its weight
    np.testing.assert_allclose(found[0], expected, rtol=0.1)


# -- what goes wrong ------------------------------------------------------------------------------------------


def boom(*_):
    raise RuntimeError("out of order\nsecond line")


BAD = {
    "raises": boom,
    "vector": lambda *_: torch.ones(2),
    "array": lambda *_: np.ones(3),
    "text": lambda *_: "1.0",
    "complex": lambda *_: torch.ones((), dtype=torch.complex64),
    "list": lambda *_: [1.0],
}


@pytest.mark.parametrize("way", ["of_parameters", "of_outputs"])
@pytest.mark.parametrize("kind", BAD)
def test_one_that_gives_no_number_is_said_once_and_left_out(kind, way, tmp_path, capsys):
    calls = []

    def function(*arguments):
        calls.append(arguments)
        return BAD[kind](*arguments)

    name = f"{kind}_{way}"
    bad = Measure(name, "b", "1", "made up", **{way: function})
    model, reader = recorded(tmp_path, [bad, SPECTRAL, LOUDEST])
    said = capsys.readouterr().err
    assert said.count(name) == 1 and said.count("\n") == 1 and "left out" in said
    assert len(calls) == 1
    assert np.isnan(values(reader, name)).all()
    assert not np.isnan(values(reader, "spectral_norm")).any() and not np.isnan(values(reader, "loudest")).all()
    assert not [event for event in reader.events() if event.kind == "recorder"]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), trained(4).parameters(), strict=True))


@pytest.mark.parametrize(
    ("value", "stored"),
    [(2, 2.0), (True, 1.0), (np.float32(0.5), 0.5), (torch.tensor([7]), 7.0), (None, np.nan), (1e300, np.inf)],
)
def test_numbers_of_many_kinds_are_taken(value, stored, tmp_path):
    _, reader = recorded(tmp_path, [of_parameters(lambda *_: value)], steps=1)
    np.testing.assert_array_equal(values(reader, "own"), [[stored, stored]])


def test_nan_is_a_value(tmp_path):
    _, reader = recorded(tmp_path, [of_parameters(lambda *_: float("nan"))], steps=1)
    column = reader.last(1).measures[0, :, -1]
    assert np.isnan(column).all() and is_measured(column).all()


def test_the_training_draws_the_same_random_numbers(tmp_path):
    def train_with(measures):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(), nn.ReLU(), nn.Linear(5, 4))
        if measures is None:
            train(model, sgd(model), steps=6)
        else:
            recorded(tmp_path, measures, steps=6, model=model)
        return list(model.parameters()), random.random(), np.random.random()

    def draw(*_):
        return torch.rand(()) + random.random() + np.random.random()

    bare, *drawn = train_with(None)
    watched, *after = train_with([of_parameters(draw), Measure("n", "n", "1", "made up", of_outputs=draw)])
    assert drawn == after
    assert all(torch.equal(a, b) for a, b in zip(bare, watched, strict=True))


def test_measures_of_one_name_are_refused_before_the_training():
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="two of the name 'own'"):
        RecordOptions(measures=[of_parameters(boom), of_parameters(boom)])
    with pytest.raises(ValueError, match="two of the name 'grad_norm'"):
        gradtui.watch(model, sgd(model), measures=[of_parameters(boom, "grad_norm")])
    with pytest.raises(TypeError, match=r"no gradtui\.Measure"):
        RecordOptions(measures=[schema.Measure("a", "a", "1", "stored only")])


def test_a_measure_is_taken_in_exactly_one_way():
    with pytest.raises(ValueError, match="exactly one of norm, of_parameters, of_outputs"):
        Measure("a", "a", "1", "none")
    with pytest.raises(ValueError, match="exactly one"):
        Measure("a", "a", "1", "two", norm=Norm("updates"), of_outputs=boom)
    with pytest.raises(ValueError, match="needs a name"):
        Measure("", "a", "1", "nameless", of_outputs=boom)
    for wrong in (
        ("losses",),
        ("updates", "some"),
        ("gradients", "all", "parameters"),
        ("updates", "all", "gradients"),
    ):
        with pytest.raises(ValueError, match="norm"):
            Norm(*wrong)


def test_registered_measures_are_in_each_run(tmp_path):
    MEASURES.register("spectral_norm", SPECTRAL)
    try:
        assert run_measures()[-1] is SPECTRAL
        _, reader = recorded(tmp_path, [LOUDEST], steps=1)
        assert [measure.name for measure in reader.measures[-2:]] == ["spectral_norm", "loudest"]
        with pytest.raises(UsageError, match="already"):
            MEASURES.register("spectral_norm", of_parameters(boom, "spectral_norm"))
    finally:
        MEASURES.unregister("spectral_norm")
    with pytest.raises(ValueError, match="spectral_norm"):
        column_of(run_measures(), "spectral_norm")


def test_a_package_registers_its_own_by_an_entry_point(tmp_path, monkeypatch):
    (tmp_path / "their_measures.py").write_text(
        textwrap.dedent("""
        from gradtui.measures import MEASURES, Measure
        MEASURES.register("theirs", Measure("theirs", "t", "1", "made up", of_parameters=lambda parameters, _: 1.0))
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("theirs", "their_measures", "gradtui.measures")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] if group == "gradtui.measures" else [])
    monkeypatch.setattr(MEASURES, "_is_loaded", False)
    try:
        assert run_measures([LOUDEST])[-2:] == (MEASURES["theirs"], LOUDEST)
    finally:
        MEASURES.unregister("theirs")


def test_older_files_get_the_titles_of_what_is_known():
    old = schema.Measure("saturated", "saturated", "share of the outputs", "stored long ago")
    assert (described(old).title, described(old).source) == ("Saturated fraction", "outputs")
    assert described(old).definition == "stored long ago"
    strange = schema.Measure("strange", "s", "1", "from elsewhere")
    assert described(strange) is strange
    assert MEASURES[LEARNING_SPEED].title == "Learning speed"
