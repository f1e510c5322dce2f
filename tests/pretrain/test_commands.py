"""`python -m pretrain` as people run it: from one command to the next, with mistakes."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pretrain.__main__ import main, make_parser
from pretrain.checkpoint import save
from pretrain.data import digits
from pretrain.errors import DataError
from pretrain.flags import settings_of
from pretrain.likelihood import exact_log_z, log_probability
from pretrain.limits import LIMITS
from pretrain.objective import evaluate
from pretrain.progress import Metrics, Progress, duration
from pretrain.rbm import RBM
from pretrain.settings import FinetuneCommand, FitCommand, choices_of, flags_of
from pretrain.stack import load_net, load_stack

FIT = ["--data", "digits", "--layers", "30,20", "--epochs", "3", "--batch-size", "20"]


def fit(folder: Path, *flags: str) -> int:
    return main(["fit", str(folder), *FIT, *flags])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two RBMs and the net made of them; only to be read."""
    folder = tmp_path_factory.mktemp("made") / "stack"
    assert fit(folder, "--epochs", "20") == 0
    assert main(["finetune", str(folder), "--epochs", "10", "--batch-size", "20", "--learning-rate", "0.01"]) == 0
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_fit_leaves_layers_and_a_line_an_epoch(stack: Path) -> None:
    layers = load_stack(stack / "layers.safetensors").layers
    assert [(layer.inputs, layer.outputs) for layer in layers] == [(64, 30), (30, 20)]
    of_fit = [line for line in lines(stack) if line["command"] == "fit"]
    assert [(line["layer"], line["epoch"]) for line in of_fit] == [(n, e) for n in (1, 2) for e in range(1, 21)]
    assert of_fit[19]["error"] < of_fit[0]["error"]
    assert sorted(path.name for path in stack.iterdir()) == [
        "finetune.json", "fit.json", "layers.safetensors", "metrics.jsonl", "net.safetensors",
    ]  # fmt: skip


def test_evaluate_says_what_python_says(stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(stack), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    net, _ = load_net(stack / "net.safetensors")
    test = digits().test
    error = evaluate(net, torch.from_numpy(test.images), torch.from_numpy(test.labels))
    assert found["classification_error"] == pytest.approx(error) and error < 0.2
    assert (found["set"], found["examples"]) == ("test", 300)
    assert main(["evaluate", str(stack)]) == 0
    assert f"classification_error\t{error:.4f}" in capsys.readouterr().out


def test_the_likelihood_of_one_rbm_is_that_of_enumeration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(tmp_path, "--layers", "12") == 0
    assert main(["evaluate", str(tmp_path), "--likelihood", "--ais-steps", "1000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (rbm,) = load_stack(tmp_path / "layers.safetensors").layers
    assert isinstance(rbm, RBM)
    exact = exact_log_z(rbm)
    mean = float(log_probability(rbm, torch.from_numpy(digits().test.images), exact).mean())
    assert found["log_probability"] == pytest.approx(mean, abs=0.1)
    assert found["log_z_low"] <= exact <= found["log_z_high"]


def test_features_are_what_the_layers_make_of_the_data(stack: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.npy"
    assert main(["features", str(stack), "--out", str(out)]) == 0
    x = torch.from_numpy(digits().train.images)
    for layer in load_stack(stack / "layers.safetensors").layers:
        x = layer.encode(x)
    np.testing.assert_allclose(np.load(out), x.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_samples_are_images_and_the_same_for_the_same_seed(stack: Path, tmp_path: Path) -> None:
    for name in ("one.npy", "two.npy", "picture.png"):
        assert main(["sample", str(stack), "--count", "5", "--steps", "20", "--out", str(tmp_path / name)]) == 0
    one, two = np.load(tmp_path / "one.npy"), np.load(tmp_path / "two.npy")
    assert one.shape == (5, 8, 8) and one.min() >= 0 and one.max() <= 1
    assert np.array_equal(one, two)
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_a_belief_net_learns_labels_samples_them_and_is_trained_up_and_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "belief"
    assert fit(folder, "--label-units", "--epochs", "15", "--up-down-epochs", "2", "--learning-rate", "0.05") == 0
    found = load_stack(folder / "layers.safetensors")
    assert found.layers[1].inputs == 40 and len(found.recognition) == 1
    assert main(["evaluate", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label_unit_error"] < 0.5
    assert main(["sample", str(folder), "--label", "3", "--count", "2", "--out", str(tmp_path / "three.npy")]) == 0
    assert main(["features", str(folder), "--out", str(tmp_path / "features.npy")]) == 0
    assert np.load(tmp_path / "features.npy").shape == (1200, 20)
    assert main(["finetune", str(folder), "--epochs", "1"]) == 0
    assert {"fit", "up-down", "finetune"} == {line["command"] for line in lines(folder)}


@pytest.mark.parametrize(
    "flags",
    [
        ["--unit", "autoencoder", "--activation", "tanh", "--untied"],
        ["--unit", "denoising", "--noise", "gaussian", "--level", "0.3"],
        ["--unit", "contractive"],
        ["--unit", "sparse"],
        ["--unit", "supervised"],
        ["--visible", "gaussian", "--hidden", "rectified", "--clip", "10"],
        ["--method", "tempering", "--chains", "5", "--centred"],
        ["--method", "fast-pcd", "--propagate", "samples", "--l1-cost", "0.001", "--sparsity-cost", "0.1"],
        ["--precision", "bfloat16", "--momentum", "0", "--decay"],
    ],
)
def test_every_way_to_train_layers_makes_a_net(flags: list[str], tmp_path: Path) -> None:
    assert fit(tmp_path, "--epochs", "1", *flags) == 0
    made = load_stack(tmp_path / "layers.safetensors").layers
    before = torch.cat([p.flatten() for layer in made for p in layer.parameters()])
    assert torch.isfinite(before).all()
    assert main(["finetune", str(tmp_path), "--epochs", "1"]) == 0
    assert main(["finetune", str(tmp_path), "--epochs", "1", "--task", "autoencode"]) == 1, (
        "another task's net is there"
    )


def test_a_deep_autoencoder_rebuilds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(tmp_path, "--epochs", "10") == 0
    assert main(["evaluate", str(tmp_path), "--json"]) == 0
    before = json.loads(capsys.readouterr().out)["reconstruction_error"]
    tune = ["finetune", str(tmp_path), "--task", "autoencode", "--epochs", "5", "--batch-size", "20", "--decay"]
    assert main(tune) == 0
    assert main(["evaluate", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["net_reconstruction_error"] < before


def test_what_is_done_is_not_done_again_and_other_settings_need_another_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(tmp_path) == 0
    before = (tmp_path / "layers.safetensors").stat().st_mtime_ns
    assert fit(tmp_path, "--threads", "1") == 0
    assert (tmp_path / "layers.safetensors").stat().st_mtime_ns == before
    assert "nothing to do" in capsys.readouterr().err
    assert fit(tmp_path, "--method", "pcd") == 1
    assert "was trained with method 'cd', not 'pcd'" in capsys.readouterr().err


OLD = Path(__file__).parent / "fixtures" / "stopped_0_1_0"  # stopped in the second of four epochs; `whole` was not


@pytest.mark.parametrize("flag", ["--propagate", "--pass-on"])
def test_a_training_of_0_1_0_that_was_stopped_continues(flag: str, tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    shutil.copytree(OLD, folder)
    flags = ["--data", "digits", "--layers", "6,4", "--epochs", "2", "--batch-size", "50", "--method", "pcd"]
    flags += ["--chains", "5", flag, "samples", "--threads", "1", "--device", "cpu"]
    assert main(["fit", str(folder), *flags]) == 0
    assert [(line["layer"], line["epoch"]) for line in lines(folder)] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    ours, whole = (load_stack(folder / name).layers for name in ("layers.safetensors", "whole.safetensors"))
    for one, other in zip(ours, whole, strict=True):
        # on another processor a probability may round to the other side of a draw
        torch.testing.assert_close(dict(one.state_dict()), dict(other.state_dict()), rtol=0, atol=0.02)


def test_npz_and_npy_files_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = digits()
    pictures = (data.train.images.reshape(-1, 8, 8) * 255).round().astype(np.uint8)
    test = (data.test.images.reshape(-1, 8, 8) * 255).round().astype(np.uint8)
    named = {"x_train": pictures, "y_train": data.train.labels, "x_test": test, "y_test": data.test.labels}
    np.savez(tmp_path / "digits.npz", **named)
    np.save(tmp_path / "images.npy", pictures)
    np.save(tmp_path / "labels.npy", data.train.labels)
    for name, more in (("digits.npz", []), ("images.npy", ["--labels", str(tmp_path / "labels.npy")])):
        folder = tmp_path / name.replace(".", "-")
        flags = ["--data", str(tmp_path / name), *more]
        assert main(["fit", str(folder), *FIT, *flags]) == 0
        assert main(["finetune", str(folder), "--epochs", "2", "--batch-size", "20", "--learning-rate", "0.01"]) == 0
        assert main(["evaluate", str(folder), "--json"]) == 0
    first, second = (
        load_stack(tmp_path / name / "layers.safetensors").layers[0] for name in ("digits-npz", "images-npy")
    )
    assert torch.equal(next(first.parameters()), next(second.parameters())), "the same images, bytes by 255"
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "images-npy"), "--data", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["set"] == "test"


def test_toml_and_flags_say_the_same_and_flags_go_before(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('data = "digits"\nlayers = [30, 20]\nepochs = 3\nbatch-size = 20\nunit = "denoising"\n')
    parsed = make_parser().parse_args(["fit", "x", "--config", str(config), "--unit", "rbm", "--centred"])
    found = settings_of(FitCommand, vars(parsed))
    assert (found.layers, found.epochs, found.batch_size, found.unit, found.centred) == (
        (30, 20),
        (3,),
        20,
        "rbm",
        True,
    )
    by_flags = make_parser().parse_args(["fit", "x", *FIT, "--centred"])
    assert settings_of(FitCommand, vars(by_flags)) == found


def told(kind: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Settings that the kind has, with values of the right type, most of them in range, in the units of the flags."""
    plain = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=8)
    values: dict[str, st.SearchStrategy[Any]] = {}
    for setting in flags_of(kind):
        default = setting.metadata["unset"] if setting.default is None else setting.default
        if choices_of(setting):
            values[setting.name] = st.sampled_from(choices_of(setting))
        elif isinstance(default, bool):
            values[setting.name] = st.booleans()
        elif isinstance(default, tuple):
            values[setting.name] = st.lists(st.integers(1, 10**6), min_size=1, max_size=4).map(tuple)
        elif isinstance(default, float) or setting.metadata["factor"] != 1:
            values[setting.name] = st.floats(0, min(1e6, LIMITS[setting.name].most)) | st.floats()
        elif isinstance(default, int):
            limit = LIMITS[setting.name]
            values[setting.name] = st.integers(int(limit.least), int(min(10**9, limit.most))) | st.integers(-9, 9)
        elif setting.name == "device":
            values[setting.name] = st.sampled_from(["auto", "cpu", "cuda:1", "mps", "meta"])
        else:
            values[setting.name] = plain
    return st.fixed_dictionaries({}, optional=values)


def in_python(kind: type[Any], values: dict[str, Any]) -> Any:
    """The settings by the values of flags: what stands for None, and other units, written out."""
    nothing = {"clip": 0, "max_norm": 0, "patience": 0}
    found = {name: None if name in nothing and value == nothing[name] else value for name, value in values.items()}
    if "memory" in found:
        number = found["memory"] * 1e9
        found["memory"] = round(number) if math.isfinite(number) else number
    if "checkpoint_every" in found:
        found["checkpoint_every"] *= 60
    return kind(**found)


def as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


@pytest.mark.parametrize("kind", [FitCommand, FinetuneCommand])
@given(data=st.data())
def test_any_settings_come_back_from_toml_or_are_refused_as_in_python(
    kind: type[Any], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = data.draw(told(kind))
    text = "".join(f"{name.replace('_', '-')} = {as_toml(value)}\n" for name, value in values.items())
    path = tmp_path_factory.getbasetemp() / f"{kind.__name__}.toml"
    path.write_text(text, encoding="utf-8")
    try:
        expected = in_python(kind, values)
    except DataError:
        with pytest.raises(DataError):
            settings_of(kind, {"config": path})
    else:
        assert settings_of(kind, {"config": path}) == expected


@given(text=st.text(max_size=60))
def test_any_text_is_settings_or_one_line(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "text.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        settings_of(FitCommand, {"config": path})
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def npy(path: Path, array: Any) -> str:
    np.save(path, array, allow_pickle=True)
    return str(path)


def truncated(path: Path) -> str:
    np.save(path, np.zeros((100, 8)))
    path.write_bytes(path.read_bytes()[:300])
    return str(path)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (lambda at: ["--data", "cifar"], "digits, mnist, or an .npz or .npy file"),
        (lambda at: ["--data", str(at / "none.npy")], "does not exist"),
        (lambda at: ["--data", npy(at / "o.npy", np.array([[{}]], object))], "cannot read"),
        (lambda at: ["--data", truncated(at / "short.npy")], "cannot read"),
        (lambda at: ["--data", npy(at / "flat.npy", np.zeros(5))], r"\[examples, columns\]"),
        (lambda at: ["--data", npy(at / "empty.npy", np.zeros((0, 5)))], "no examples"),
        (lambda at: ["--data", npy(at / "nan.npy", np.full((9, 5), np.nan))], "NaN"),
        (lambda at: ["--data", npy(at / "big.npy", np.full((9, 5), 7.0))], "scale them"),
        (lambda at: ["--data", npz(at / "a.npz", what=np.zeros((3, 3)))], "holds what: the images must be called"),
        (lambda at: ["--data", npz(at / "b.npz", x=np.zeros((3, 3)), y=np.zeros(2))], "they must match"),
        (
            lambda at: ["--data", npy(at / "c.npy", np.zeros((3, 3))), "--labels", npy(at / "l.npy", np.zeros(2))],
            "there must be one label each",
        ),
        (lambda at: ["--data", npy(at / "d.npy", np.zeros((3, 3))), "--label-units"], "has no labels"),
        (
            lambda at: ["--data", npz(at / "e.npz", x=np.zeros((3, 3)), y=np.ones(3)), "--unit", "supervised"],
            "with one class",
        ),
        (lambda at: ["--unit", "denoising", "--label-units"], "label units belong to RBMs"),
        (lambda at: ["--steps", "0"], "--steps 0: give a whole number from 1 to"),
        (lambda at: ["--epochs", "1,2,3"], "2 layers, but 3 values of epochs"),
        (lambda at: ["--up-down-epochs", "1", "--unit", "autoencoder", "--epochs", "1"], "consists of RBMs"),
        (lambda at: ["--device", "cuda"], "cuda is not available"),
        (lambda at: ["--device", "cuda:9"], "cuda:9 is not available"),
        (lambda at: ["--device", "xpu:0"], "xpu:0 is not available"),
        (lambda at: ["--device", "meta"], "the device meta holds none"),
        (lambda at: ["--device", "gpu"], "torch has no device 'gpu': use "),
        (lambda at: ["--device", "cuda:x"], "--device 'cuda:x': give auto, or a device of torch"),
        (
            lambda at: ["--layers", "1000000,1000000,1000000"],
            "1,000,000, 1,000,000 units would take",
        ),
        (lambda at: ["--config", str(at / "none.toml")], "cannot read"),
    ],
)
def test_bad_input_is_one_line_and_a_status(
    flags: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in says and torch.cuda.is_available():
        pytest.skip("cuda is available")
    assert fit(tmp_path / "stack", *flags(tmp_path)) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "epoch" not in line or "values of" in line]
    assert len(said) == 1 and said[0].startswith("pretrain: ")
    assert re.search(says, said[0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluate", "{tmp}/none"], "holds no layers"),
        (["finetune", "{tmp}/none"], "holds no layers"),
        (["evaluate", "{stack}", "--likelihood", "--ais-steps", "0"], "--ais-steps 0: give a whole number from 1 to"),
        (["sample", "{stack}", "--out", "{tmp}/x.gif"], "must end in .npy or .png"),
        (["sample", "{stack}", "--out", "{tmp}/no/x.npy", "--steps", "1"], "cannot write"),
        (["sample", "{stack}", "--out", "{tmp}/x.npy", "--label", "3"], "no label units"),
        (["sample", "{stack}", "--out", "{tmp}/x.npy", "--count", "0"], "--count 0: give a whole number from 1 to"),
        (["features", "{stack}", "--out", "{tmp}/x.txt"], "must end in .npy"),
        (["features", "{stack}", "--out", "{tmp}/x.npy", "--data", "{tmp}/wide.npy"], "but the stack takes 64"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    arguments: list[str], says: str, stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((4, 3)))
    given = [part.format(tmp=tmp_path, stack=stack) for part in arguments]
    assert main(given) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and says in said[0]


def test_a_damaged_file_is_one_line(stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (stack / "layers.safetensors").read_bytes()
    for damaged in (whole[:-10], b"", whole[:2000] + b"x" + whole[2001:]):
        (tmp_path / "layers.safetensors").write_bytes(damaged)
        assert main(["evaluate", str(tmp_path)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("forged", ["fit.json", "fit.checkpoint", "layers.safetensors"])
def test_what_a_forged_file_says_is_told_in_300_characters_without_escapes(
    forged: str, stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(stack, tmp_path / "s")
    long = "\x1b[31mred\r\n" + "x" * 100_000
    if forged == "fit.json":
        settings = json.loads((stack / "fit.json").read_text())
        (tmp_path / "s" / "fit.json").write_text(json.dumps({**settings, "unit": long}))
    elif forged == "fit.checkpoint":
        (tmp_path / "s" / "layers.safetensors").unlink()
        save(tmp_path / "s" / "fit.checkpoint", {}, {"settings": {"batch_size": long}, "rest": {"dict": []}})
    else:
        save(tmp_path / "s" / "layers.safetensors", {}, {"layers": [{"layer": long}], "recognition": [], "about": {}})
    command = (
        ["evaluate", str(tmp_path / "s")] if forged == "layers.safetensors" else ["fit", str(tmp_path / "s"), *FIT]
    )
    assert main([*command, "--epochs", "20"] if command[0] == "fit" else command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable() and 40 < len(line) <= len("pretrain: ") + 300 and "xxx" in line


def test_a_training_that_diverges_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--visible", "gaussian", "--hidden", "rectified", "--learning-rate", "1000"]
    assert fit(tmp_path, *flags) == 1
    assert "use a smaller --learning-rate" in capsys.readouterr().err.splitlines()[-1]


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_on_a_terminal_a_line_renews_itself_and_tells_the_time_left() -> None:
    now, stream = [0.0], Terminal()
    progress = Progress(100, stream, clock=lambda: now[0])  # type: ignore[arg-type]
    progress.update(20, "layer 1")  # 20 were done before
    now[0] = 10.0
    progress.update(40, "layer 1")
    assert " 40%  30s left" in stream.text and "\n" not in stream.text
    progress.line("epoch 1")
    assert stream.text.endswith("\r\x1b[Kepoch 1\n")


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1s"), (59, "59s"), (200, "3m20s"), (7500, "2h05m")])
def test_durations_read_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_metrics_drop_what_is_done_again_and_what_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n{"epo')
    metrics = Metrics(path, lambda line: line["epoch"] < 3)
    metrics.write(epoch=3, error=math.nan)
    metrics.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3, "error": "nan"}]
