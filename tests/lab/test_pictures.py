"""Pictures of layers in pretraining: what they show, and that they change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gradtui.lab import pictures as pictures_module
from gradtui.lab.pictures import Gallery, filters
from gradtui.lab.recipe import Recipe
from gradtui.lab.train import train
from gradtui.runfile import open_run
from pretrain.autoencoder import Autoencoder
from pretrain.rbm import RBM


def stack() -> list[RBM | Autoencoder]:
    generator = torch.Generator().manual_seed(0)
    return [RBM(64, 20, generator=generator), RBM(20, 12, generator=generator)]


class Record:
    """Takes what a recorder would."""

    def __init__(self) -> None:
        self.taken: dict[str, tuple[str, np.ndarray]] = {}

    def pictures(self, name: str, layer: str, values: np.ndarray) -> None:
        self.taken[name] = (layer, values)


def test_filters_are_the_products_of_the_weights_down_to_the_pixels() -> None:
    layers = stack()
    torch.testing.assert_close(filters(layers[:1], 5), layers[0].weight[:5])
    torch.testing.assert_close(filters(layers, 12), layers[1].weight @ layers[0].weight)


def test_a_layer_shows_filters_reconstructions_and_samples() -> None:
    layers, record = stack(), Record()
    images = torch.rand(30, 64, generator=torch.Generator().manual_seed(1))
    Gallery(layers, ["fc1", "fc2"], images, record).show(1)  # type: ignore[arg-type]
    assert {name: (layer, values.shape) for name, (layer, values) in record.taken.items()} == {
        "filters, each over its largest": ("fc2", (12, 8, 8)),
        "images beside their reconstructions": ("fc2", (16, 8, 8)),
        "samples of the RBM": ("fc2", (16, 8, 8)),
    }
    both = record.taken["images beside their reconstructions"][1].reshape(8, 2, 64)
    code = layers[1].encode(layers[0].encode(images[:8]))
    rebuilt = layers[0].decode(layers[1].decode(code)).detach().numpy()
    np.testing.assert_allclose(both[:, 0], images[:8].numpy())
    np.testing.assert_allclose(both[:, 1], rebuilt, rtol=1e-5)


def test_pictures_are_taken_from_time_to_time_and_not_of_data_that_are_none() -> None:
    now, record = [0.0], Record()
    gallery = Gallery(stack(), ["fc1", "fc2"], torch.rand(9, 64), record, clock=lambda: now[0])  # type: ignore[arg-type]
    gallery.show(0)
    record.taken.clear()
    gallery.show(0)
    assert not record.taken
    gallery.show(0, always=True)
    assert record.taken
    record.taken.clear()
    now[0] = 1.0
    gallery.show(0)
    assert record.taken
    numbers = Record()
    Gallery([Autoencoder(50, 5)], ["fc1"], torch.rand(9, 50), numbers).show(0)  # type: ignore[arg-type]
    assert not numbers.taken


@pytest.mark.parametrize("way", ["rbm", "denoising"])
def test_a_run_has_them_and_the_weights_are_those_without(
    way: str, runs_in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(hidden=(20, 20), epochs=1, pretrain=way, pretrain_epochs=3, train_size=200, batch_size=20, every=1)
    monkeypatch.setattr(pictures_module, "EVERY", 0.0)
    seen = train(recipe, folder=runs_in_tmp).path
    monkeypatch.setattr(Gallery, "show", lambda *_, **__: None)
    unseen = train(recipe, folder=runs_in_tmp).path
    assert seen is not None and unseen is not None
    with open_run(seen) as one, open_run(unseen) as other:
        # gradients and the norms of the parameters, bit for bit
        np.testing.assert_array_equal(one.newer(0).measures[:, :, :3], other.newer(0).measures[:, :, :3])
        found = {pictures.name: pictures for pictures in one.pictures(10**9)}
        early = {pictures.name: pictures for pictures in one.pictures(31)}
        assert other.pictures(10**9) == ()
        assert one.pictures(10**9, tuple(found.values())) == tuple(found.values())
    filter_of_second = found["filters, each over its largest"]
    assert filter_of_second.layer == "fc2" and filter_of_second.signed
    assert (filter_of_second.rows, filter_of_second.columns, filter_of_second.count) == (8, 8, 20)
    assert early["filters, each over its largest"].layer == "fc1" and early["filters, each over its largest"].step <= 31
    assert ("samples of the RBM" in found) == (way == "rbm")
