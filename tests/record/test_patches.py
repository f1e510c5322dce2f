"""After the last recording is closed nothing of it is left, on PyTorch, the training or the process."""

from __future__ import annotations

import atexit
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.output_graph import OutputGraph
from torch.amp import GradScaler
from torch.optim import optimizer as optim

import gradtui
from gradtui.options import RecordOptions
from gradtui.record import step_sample
from gradtui.record.autoattach import AutoRecorder
from gradtui.record.backward import backwards
from gradtui.record.patches import PATCHES, on_every_optimizer
from gradtui.record.recorder import Recorder
from gradtui.run_request import RunRequest
from tests.record.watched_nets import perceptron, train, watch_into

at_exit: list[Callable[[], None]] = []  # what is to be called at the end of the process
Watch = Callable[[nn.Module, torch.optim.Optimizer], Recorder]


def of_the_process() -> dict[str, Any]:
    """Everything that a recording may change outside models and optimizers."""
    live = [finalizer for finalizer in list(weakref.finalize._registry) if finalizer.alive]  # type: ignore[attr-defined]
    calls = [finalizer.peek()[1] for finalizer in live]
    return {
        "backward": torch.autograd.backward,
        "grad": torch.autograd.grad,
        "engine": torch.autograd._engine_run_backward,
        "functional": torch._functorch.eager_transforms.grad_and_value_impl,
        "scaler": (GradScaler.scale, GradScaler.step),
        "compiler": (torch.compile, OutputGraph.call_user_compiler),
        "every optimizer": (dict(optim._global_optimizer_pre_hooks), dict(optim._global_optimizer_post_hooks)),
        "finders": list(sys.meta_path),
        "exit": [call for call in at_exit if call.__module__.startswith("gradtui")],
        "modes": torch._C._len_torch_function_stack(),
        "finalizers": [call for call in calls if (getattr(call, "__module__", "") or "").startswith("gradtui")],
    }


def hooks_of(model: nn.Module, *optimizers: torch.optim.Optimizer) -> list[Any]:
    """All hooks of modules, parameters and optimizers."""
    endings = ("_hooks", "_hooks_always_called", "_hooks_with_kwargs")
    owners: list[Any] = [*model.modules(), *optimizers]
    dicts = [value for owner in owners for key, value in vars(owner).items() if key.endswith(endings)]
    dicts += [parameter._backward_hooks for parameter in model.parameters()]
    return [hook for one in dicts if one for hook in one.values()]


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process is as it was, after the test."""
    from torch._dynamo.utils import counters

    # `atexit` itself does not tell what is registered, nor does its count go down
    monkeypatch.setattr(atexit, "register", lambda call: at_exit.append(call))
    monkeypatch.setattr(atexit, "unregister", at_exit.remove)
    counters.clear()  # hooks of what was compiled would stay
    gc.collect()
    before = of_the_process()
    yield
    torch._dynamo.reset()
    counters.clear()
    gc.collect()
    after = of_the_process()
    for key, value in before.items():
        assert after[key] == value, key


def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = perceptron(6, 5, 4)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def plain(watch: Watch) -> tuple[Recorder, list[Any]]:
    model, optimizer = parts()
    recorder = watch(model, optimizer)
    train(model, optimizer, recorder, steps=4)
    return recorder, [model, optimizer]


def untrained(watch: Watch) -> tuple[Recorder, list[Any]]:
    """Closed before the first step, with the hooks on all layers."""
    model, optimizer = parts()
    return watch(model, optimizer), [model, optimizer]


def scaled(watch: Watch) -> tuple[Recorder, list[Any]]:
    model, optimizer = parts()
    recorder, scaler = watch(model, optimizer), GradScaler("cpu", init_scale=8.0)
    for _ in range(4):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(2, 6)).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    return recorder, [model, optimizer]


def compiled(watch: Watch) -> tuple[Recorder, list[Any]]:
    model, optimizer = parts()
    forward = torch.compile(model, backend="eager")
    recorder = watch(forward, optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        forward(torch.ones(2, 6)).square().mean().backward()
        optimizer.step()
    return recorder, [model, optimizer]


def inside_backward(watch: Watch) -> tuple[Recorder, list[Any]]:
    model, optimizer = parts()
    recorder = watch(model, optimizer)
    handle = next(model.parameters()).register_post_accumulate_grad_hook(lambda _: optimizer.step())
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.ones(2, 6)).square().mean().backward()
    handle.remove()
    return recorder, [model, optimizer]


ALL = [plain, untrained, scaled, compiled, inside_backward]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{"every": 1}, {}, {"every": 1, "budget": 1.0}], ids=["every", "budget", "sampled"])
@pytest.mark.parametrize("training", ALL)
def test_nothing_is_left_after_close(training, options, nothing_left: None, tmp_path: Path) -> None:
    seen = []

    def watch(model: nn.Module, optimizer: torch.optim.Optimizer) -> Recorder:
        seen.append(of_the_process())
        return watch_into(model, optimizer, path=tmp_path / "r.gradtui", **options)

    recorder, (model, optimizer) = training(watch)
    (before,), during = seen, of_the_process()
    assert during["backward"] is not before["backward"] and during["scaler"] != before["scaler"], "the test sees them"
    assert len(during["exit"]) > len(before["exit"]) and len(during["finalizers"]) > len(before["finalizers"])
    assert hooks_of(model, optimizer)
    recorder.close()
    assert not hooks_of(model, optimizer)


def test_a_step_that_is_sampled_when_the_recording_ends_keeps_no_hook_and_no_mode(
    nothing_left: None, tmp_path: Path
) -> None:
    model, optimizer = parts()
    recorder = watch_into(model, optimizer, path=tmp_path / "r.gradtui", every=1, budget=1.0)
    modes = torch._C._len_torch_function_stack()

    def close_it(module: nn.Module, inputs: Any) -> None:
        seen.append((recorder._recording._measurement.sampler.armed, torch._C._len_torch_function_stack() - modes))
        if seen[-1] == (True, 1):
            recorder.close()

    seen: list[tuple[bool, int]] = []
    handle = model[1].register_forward_pre_hook(close_it)
    train(model, optimizer, recorder, steps=4)
    assert (True, 1) in seen
    handle.remove()
    assert not hooks_of(model, optimizer)


@pytest.mark.parametrize("training", [plain, scaled, inside_backward])
@pytest.mark.parametrize("closes", [True, False], ids=["then closed", "then freed"])
def test_nothing_is_left_after_a_failure(training, closes, nothing_left: None, monkeypatch, tmp_path, capfd) -> None:
    def boom(*_: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(step_sample.HostSample, "after", boom)
    recorder, owners = training(lambda *both: watch_into(*both, path=tmp_path / "r.gradtui", every=1))
    assert "out of order" in capfd.readouterr().err
    if closes:
        recorder.close()
        assert not hooks_of(*owners)
    owners.clear()


@pytest.mark.parametrize("first", [0, 1])
def test_nothing_is_left_after_two_recordings(first: int, nothing_left: None, tmp_path: Path) -> None:
    before = torch.autograd.backward
    found = [plain(lambda *both, i=i: watch_into(*both, path=tmp_path / f"{i}.gradtui", every=1)) for i in range(2)]
    found[first][0].close()
    assert torch.autograd.backward is not before, "the other one still needs it"
    found[1 - first][0].close()
    assert not [hook for _, owners in found for hook in hooks_of(*owners)]


def by_backward() -> nn.Module:
    model = perceptron(6, 5, 4)
    for _ in range(5):
        model(torch.ones(2, 6)).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
    return model


def by_grad() -> nn.Module:
    model = perceptron(6, 5, 4)
    for _ in range(5):
        grads = torch.autograd.grad(model(torch.ones(2, 6)).square().mean(), list(model.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(model.parameters(), grads, strict=True):
                parameter -= 0.1 * grad
    return model


def by_optimizer() -> nn.Module:
    model, optimizer = parts()
    train(model, optimizer)
    return model


@pytest.mark.parametrize("training", [by_backward, by_grad, by_optimizer])
def test_nothing_but_the_global_hook_is_left_of_what_gradtui_run_found(
    training: Callable[[], nn.Module], nothing_left: None, tmp_path: Path
) -> None:
    auto = AutoRecorder(RunRequest(tmp_path / "auto.gradtui", RecordOptions(every=1, folder=tmp_path)))
    auto._look_for_updates()
    handle = on_every_optimizer(auto.before_any_step)  # as `begin` does for the life of a process
    model = training()
    assert auto._recording is not None
    auto._recording.close()
    handle.remove()
    backwards.unfollow(auto)
    assert not hooks_of(model)
    del model


def test_hooks_of_a_compiled_step_stay_and_do_nothing(tmp_path: Path) -> None:
    model, optimizer = parts()
    recorder = watch_into(model, optimizer, path=tmp_path / "r.gradtui", every=1)

    @torch.compile(backend="eager")
    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    for _ in range(5):
        step(torch.ones(2, 6))
    assert recorder._recording.step == 4, "the last one has not been seen to end"
    recorder.close()
    torch._dynamo.reset()
    assert recorder._recording.step == 5 and hooks_of(model, optimizer)
    train(model, optimizer)  # not compiled
    assert recorder._recording.step == 5
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


def test_somebody_who_wraps_ours_keeps_it(nothing_left: None, tmp_path: Path) -> None:
    recorder, _ = plain(lambda *both: watch_into(*both, path=tmp_path / "r.gradtui"))
    ours = torch.autograd.backward
    torch.autograd.backward = lambda *args, **kwargs: ours(*args, **kwargs)
    theirs = torch.autograd.backward
    recorder.close()
    assert torch.autograd.backward is theirs
    by_backward()
    torch.autograd.backward = ours  # they take theirs off again
    recorder, _ = plain(lambda *both: watch_into(*both, path=tmp_path / "s.gradtui"))
    recorder.close()


def test_the_table_says_of_each_patch_how_it_is_undone() -> None:
    folder = Path(gradtui.__file__).parent
    for patch in PATCHES:
        assert patch.what and patch.why and patch.undo
        for name in patch.where.split(", "):
            assert (folder / name).is_file(), name


def test_nothing_is_put_on_but_by_the_file_of_patches() -> None:
    """But for the finders of `startup`, which run before gradtui can be imported."""
    words = (
        *("register_step_p", "register_forward_", "register_optimizer_step", "atexit.", "register_at_fork("),
        *("weakref.finalize(", "meta_path", "compiler.disable", "decorators import skip", "setattr(torch"),
    )
    folder = Path(gradtui.__file__).parent
    files = [path for name in ("record", "callbacks") for path in (folder / name).rglob("*.py")]
    found = {
        path.name for path in files for line in path.read_text("utf-8").splitlines()
        if any(word in line for word in words) and not line.strip().startswith(("#", '"'))
    }  # fmt: skip
    assert found == {"patches.py", "sitecustomize.py"}
