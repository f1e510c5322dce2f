"""Greedy training: who learns from whom, in any memory, and what happens when it is killed."""

from __future__ import annotations

import random
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from pretrain.autoencoder import Autoencoder
from pretrain.data import digits
from pretrain.errors import DataError
from pretrain.greedy import GreedyResult, LayerProgress, train_greedily
from pretrain.settings import GreedySettings
from tests.pretrain.layers import Chained, KillAt, Killed, denoising, stack, weights

torch.set_num_threads(1)


def images(count: int = 50, columns: int = 6) -> Tensor:
    return torch.rand(count, columns, generator=torch.Generator().manual_seed(1))


def labels(count: int = 50) -> Tensor:
    return torch.arange(count) % 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(make: Any = denoising, data: Any = None, **settings: Any) -> tuple[list[nn.Module], GreedyResult]:
    layers = stack(make, 6, 5, 4, 3)
    settings = {"epochs": 2, "batch_size": 8, "generator": seeded(), **settings}
    result = train_greedily(layers, images() if data is None else data, **settings)
    return layers, result


def test_each_layer_learns_from_what_the_one_below_has_learnt() -> None:
    layers, _ = trained()
    first, second, _ = by_hand = stack(denoising, 6, 5, 4, 3)
    generator, x = seeded(), images()
    for layer in by_hand:
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.001)
        for _ in range(2):
            order = torch.randperm(50, generator=generator)
            for start in range(0, 50, 8):
                layer.fill_gradient(x[order[start : start + 8]], generator)
                optimizer.step()
        x = layer.encode(x).detach()
    assert first is not second
    torch.testing.assert_close(weights(layers), weights(by_hand), rtol=1e-6, atol=1e-7)


def test_the_same_generator_gives_the_same_weights_and_another_others() -> None:
    assert torch.equal(weights(trained()[0]), weights(trained()[0]))
    assert not torch.equal(weights(trained()[0]), weights(trained(generator=seeded(1))[0]))


@pytest.mark.parametrize("memory", [0, 50 * 5 * 4, 50 * 6 * 4])
def test_streaming_changes_nothing_but_the_rounding(memory: int) -> None:
    torch.testing.assert_close(weights(trained(memory=memory)[0]), weights(trained()[0]), rtol=1e-5, atol=1e-6)


def test_samples_are_the_same_in_any_memory() -> None:
    few, many = (trained(propagate="samples", memory=memory)[0] for memory in (0, 1 << 30))
    torch.testing.assert_close(weights(few), weights(many), rtol=1e-5, atol=1e-6)
    assert not torch.equal(weights(many), weights(trained()[0]))


def test_with_samples_the_layers_above_see_bits() -> None:
    seen: list[Tensor] = []

    class Watching(Autoencoder):
        def fill_gradient(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            seen.append(x)
            return super().fill_gradient(x, generator)

    trained(lambda below, above, g: Watching(below, above, generator=g), propagate="samples")
    bits = [bool(((x == 0) | (x == 1)).all()) for x in seen]
    assert bits == [False] * 14 + [True] * 28


def test_a_mapped_file_an_array_and_a_data_set_give_what_the_tensor_gives(tmp_path: Path) -> None:
    x = images()
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "big_endian.npy", x.numpy().astype(">f8"))
    expected = weights(trained()[0])
    for data in (
        x.numpy(),
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        np.load(tmp_path / "x.npy", mmap_mode="c"),
        np.load(tmp_path / "big_endian.npy", mmap_mode="r"),
        np.asfortranarray(x.numpy()),
        x.double(),
        TensorDataset(x),
        TensorDataset(x.reshape(50, 2, 3), labels()),
    ):
        for memory in (0, 1 << 30):
            got = weights(trained(data=data, memory=memory)[0])
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_a_large_mapped_file_stays_on_the_disk(tmp_path: Path) -> None:
    # a sparse file of 1.6 GB: its pages would all be resident if they were not given back
    data = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (400_000, 4000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    layers = [Autoencoder(4000, 2, generator=seeded()), Autoencoder(2, 2, generator=seeded())]
    steps: list[int] = []
    result = train_greedily(
        layers,
        data,
        memory=1 << 20,
        batch_size=1000,
        on_step=lambda progress: steps.append(progress.index),
        should_stop=lambda: len(steps) >= 3,
    )
    assert not result.finished
    assert steps == [0, 0, 0]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 800e6


def test_a_callback_sees_the_gradient_before_the_step() -> None:
    seen: list[tuple[int, int, int]] = []
    before = torch.empty(0)

    def on_step(progress: LayerProgress) -> None:
        nonlocal before
        seen.append((progress.index, progress.epoch, progress.step))
        assert progress.layer.weight.grad.abs().sum() > 0
        assert progress.error is not None
        before = progress.layer.weight.detach().clone()

    def on_epoch(progress: LayerProgress) -> None:
        assert not torch.equal(progress.layer.weight.detach(), before)

    trained(on_step=on_step, on_epoch=on_epoch)
    assert seen == [(index, step // 7, step) for index in range(3) for step in range(14)]


def test_settings_are_an_object_or_keywords_or_both() -> None:
    expected = weights(trained(epochs=1, batch_size=10, learning_rate=0.01)[0])
    settings = GreedySettings(epochs=1, batch_size=7, learning_rate=0.01)
    layers = stack(denoising, 6, 5, 4, 3)
    train_greedily(layers, images(), settings, batch_size=10, generator=seeded())
    assert torch.equal(weights(layers), expected)
    assert settings.batch_size == 7


def test_an_unknown_keyword_is_a_type_error_with_a_near_guess() -> None:
    with pytest.raises(TypeError, match=r"train_greedily\(\) got an unexpected keyword argument 'epoch'.*'epochs'"):
        train_greedily([Autoencoder(6, 5)], images(), epoch=3)


def test_a_decayed_rate_is_the_layers_own_falling_to_zero() -> None:
    seen: list[float] = []
    trained(
        decay=True, epochs=[2, 0, 4], on_epoch=lambda progress: seen.append(progress.optimizer.param_groups[0]["lr"])
    )
    assert seen == pytest.approx([0.001, 0.0005, 0.001, 0.00075, 0.0005, 0.00025])
    with pytest.raises(ValueError, match="decay needs a number"):
        trained(decay=True, learning_rate=lambda epoch: 0.1)


def test_each_layer_is_announced_once_with_its_optimizer() -> None:
    announced: list[LayerProgress] = []
    layers, _ = trained(on_layer=announced.append)
    assert [progress.layer for progress in announced] == layers
    for progress in announced:
        held = {id(p) for group in progress.optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in progress.layer.parameters()}


def test_the_error_of_an_epoch_is_the_mean_over_its_images() -> None:
    layers = [Autoencoder(6, 4, generator=seeded())]
    still = train_greedily(
        layers, images(), epochs=1, batch_size=8, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0)
    )
    assert still.errors[0][0] == pytest.approx(layers[0].fill_gradient(images()), rel=1e-6)
    assert still.finished


def test_rates_may_change_by_layer_and_epoch() -> None:
    seen: list[tuple[float, float]] = []

    def on_epoch(progress: LayerProgress) -> None:
        (group,) = progress.optimizer.param_groups
        seen.append((group["lr"], group["momentum"]))

    trained(
        learning_rate=[0.1, lambda epoch: 0.5**epoch, 0.2],
        momentum=lambda epoch: 0.1 * epoch,
        epochs=[1, 2, 1],
        on_epoch=on_epoch,
    )
    assert seen == [(0.1, 0.0), (1.0, 0.0), (0.5, 0.1), (0.2, 0.0)]


def test_a_layer_without_a_choice_gets_hintons_momentum() -> None:
    seen: list[float] = []
    trained(Chained, epochs=[7, 0, 0], on_epoch=lambda p: seen.append(p.optimizer.param_groups[0]["momentum"]))
    assert seen == [0.5] * 5 + [0.9] * 2


def kept_going(tmp_path: Path, call: int, hook: str, **settings: Any) -> tuple[list[nn.Module], GreedyResult]:
    """A training killed again and again, every time after `call` more calls of `hook`, until it comes to its end."""
    settings = {"checkpoint": tmp_path / f"{hook}{call}", "checkpoint_every": 0, **settings}
    while True:
        try:
            return trained(**settings, **{hook: KillAt(call)})
        except Killed:
            continue


@pytest.mark.parametrize("make", [denoising, Chained])
@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize("propagate", ["probabilities", "samples"])
def test_killed_at_any_step_it_ends_with_the_same_bits(
    make: Any, supervised: bool, propagate: str, tmp_path: Path
) -> None:
    settings = {"make": make, "propagate": propagate, "targets": labels() if supervised else None}
    layers, result = trained(**settings)
    for call in (1, *random.Random(0).sample(range(2, 42), 3)):
        again, errors = kept_going(tmp_path, call, "on_step", **settings)
        assert torch.equal(weights(again), weights(layers))
        assert errors == result
        assert all(
            torch.equal(a.state()[k], b.state()[k]) for a, b in zip(again, layers, strict=True) for k in a.state()
        )


def test_killed_between_checkpoints_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    layers, result = trained(Chained)
    chance = random.Random(0)
    for attempt in range(5):
        ticks = iter(range(1_000_000))
        path, until = tmp_path / str(attempt), chance.randrange(3, 40)
        with pytest.raises(Killed):
            trained(Chained, checkpoint=path, checkpoint_every=5, clock=ticks.__next__, on_step=KillAt(until))
        again, errors = trained(Chained, checkpoint=path, checkpoint_every=5)
        assert torch.equal(weights(again), weights(layers))
        assert errors == result


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_stopped_politely_it_keeps_its_state_and_goes_on(memory: int, tmp_path: Path) -> None:
    layers, _ = trained(memory=memory)
    for stop_after in (0, 6, 13, 14, 20, 41):
        steps: list[object] = []
        settings = {"checkpoint": tmp_path / str(stop_after), "memory": memory}
        first = trained(on_step=steps.append, should_stop=lambda s=steps, n=stop_after: len(s) > n, **settings)[1]
        assert not first.finished
        assert len(steps) == stop_after + 1
        again, result = trained(**settings)
        assert result.finished
        assert torch.equal(weights(again), weights(layers))


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    layers, result = trained(checkpoint=tmp_path / "c")
    steps: list[object] = []
    again, same = trained(checkpoint=tmp_path / "c", on_step=steps.append, on_layer=steps.append)
    assert not steps
    assert same == result
    assert torch.equal(weights(again), weights(layers))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 9}, "its batch_size is 8, this one's 9"),
        ({"data": images(49)}, "its examples is 50, this one's 49"),
        ({"learning_rate": 0.3}, "learning_rate"),
        ({"targets": labels()}, "training"),
        ({"optimizer": lambda p: torch.optim.SGD(p, lr=0.1)}, "trained with Adam, not SGD"),
        ({"make": lambda i, o, g: Autoencoder(i, o, tied=False, generator=g)}, "decoder_weight"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_in_one_line(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        trained(checkpoint=tmp_path / "c", checkpoint_every=0, on_step=KillAt(10))
    with pytest.raises(DataError) as caught:
        trained(**{"checkpoint": tmp_path / "c", **change})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_supervised_layers_learn_with_an_output_layer_that_is_thrown_away() -> None:
    outputs: list[nn.Linear | None] = []
    layers, result = trained(targets=labels(), epochs=30, on_layer=lambda progress: outputs.append(progress.output))
    assert all(isinstance(output, nn.Linear) and output.out_features == 3 for output in outputs)
    for layer in layers:
        assert layer.visible_bias.grad is None  # nothing was rebuilt
        assert {id(m) for m in layer.modules()}.isdisjoint(id(output) for output in outputs)
    assert result.errors[0][-1] < result.errors[0][0]


def test_supervised_gradients_are_those_of_a_net_with_one_hidden_layer() -> None:
    def on_step(progress: LayerProgress) -> None:
        x = images()
        hidden = torch.sigmoid(x @ progress.layer.weight.t() + progress.layer.bias)
        cost = nn.functional.cross_entropy(progress.output(hidden), labels())
        assert progress.error == pytest.approx(cost.item(), rel=1e-5)
        expected = torch.autograd.grad(cost, [progress.layer.weight, progress.output.weight])
        torch.testing.assert_close([progress.layer.weight.grad, progress.output.weight.grad], list(expected))

    layers = [Autoencoder(6, 4, generator=seeded())]
    train_greedily(layers, images(), targets=labels(), epochs=3, batch_size=50, on_step=on_step)


def test_labels_may_come_with_the_data_set() -> None:
    both = TensorDataset(images(), labels())
    apart, together = trained(targets=labels())[0], trained(data=both, targets=both)[0]
    torch.testing.assert_close(weights(apart), weights(together))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"data": torch.zeros(0, 6)}, "empty"),
        ({"data": images(50, 7)}, "takes [n, 6], not [50, 7]"),
        ({"data": images()[0]}, "[6]"),
        ({"data": torch.full((5000, 6), 0.5).index_fill(0, torch.tensor([4500]), torch.nan)}, "rows 4,096 to 4,999"),
        ({"data": images() * 2}, "[0, 1]"),
        ({"data": np.array([["a"] * 6])}, "must be real numbers"),
        ({"data": iter([])}, "map-style"),
        ({"targets": labels(49)}, "50 examples, but labels of shape [49]"),
        ({"targets": labels() * 0 + 1}, "all labels are 1"),
        ({"targets": labels() - 1}, "whole numbers from 0"),
        ({"targets": labels() / 2}, "whole numbers from 0"),
    ],
)
def test_bad_data_get_one_clear_line_before_any_training(settings: dict[str, Any], says: str) -> None:
    steps: list[object] = []
    with pytest.raises(DataError) as caught:
        trained(on_step=steps.append, **settings)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not steps


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_features_that_the_next_layer_cannot_take_get_one_clear_line(memory: int) -> None:
    layers = [
        Autoencoder(6, 5, activation="tanh", cost="squared", generator=seeded()),
        Autoencoder(5, 3, generator=seeded()),
    ]
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        train_greedily(layers, images(), epochs=1, memory=memory)


def test_layers_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(DataError, match="layer 1 has 5 outputs, but layer 2 takes 4"):
        train_greedily([Autoencoder(6, 5), Autoencoder(4, 3)], images())


def test_three_denoising_layers_learn_the_digits() -> None:
    train = digits().train.images
    layers = stack(denoising, 64, 50, 40, 30)
    result = train_greedily(layers, train, epochs=15, batch_size=20, generator=seeded())
    mean_error = ((train - train.mean(0)) ** 2).sum(1).mean()
    assert result.errors[0][-1] < 0.6 * mean_error
    assert all(errors[-1] < errors[0] for errors in result.errors)
