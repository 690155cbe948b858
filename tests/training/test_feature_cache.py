"""Cached features: the remaining stages compute the same embeddings as from images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twinned import encoders
from twinned.data.augmentation import Augmentation
from twinned.data.datasets import ImageSet
from twinned.data.decoded import DecodedSet
from twinned.data.samplers import Batch
from twinned.nn.siamese import SiameseNetwork
from twinned.training.frozen_stages import FeatureCache
from twinned.training.inputs import CachedSet, FeatureSource, PixelSource, input_source


def made(name: str, size: tuple[int, int], channels: int, *, symmetric: bool) -> SiameseNetwork:
    torch.manual_seed(0)
    encoder = encoders.build(name, image_size=size, channels=channels, embedding_size=12, symmetric=symmetric)
    return SiameseNetwork(encoder, normalize=True, mean=(0.4,) * channels, std=(0.3,) * channels).eval()


CASES = [("conv4", (24, 20), 1, 2), ("conv4", (24, 20), 1, 4)]
CASES += [("efficientnet_lite0_photo", (64, 64), 3, 6), ("efficientnet_lite0_face", (64, 64), 3, 4)]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("name", "size", "channels", "frozen"), CASES)
def test_cached_features_give_the_embeddings_of_the_images(name, size, channels, frozen, symmetric):
    if name.startswith("efficientnet"):
        pytest.importorskip("efficientnet_lite_pytorch")
    network = made(name, size, channels, symmetric=symmetric)
    assert network.encoder.can_start_at(frozen)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, *size, channels), dtype=np.uint8)
    augment, device = Augmentation(rotation=20), torch.device("cpu")
    cache = FeatureCache(network, frozen, augment=augment, n_augmentations=2, seed=0)
    features = cache.transform(pixels, list("abcdef"), progress=False)
    assert features is not None
    assert (features.n_augmentations, features.start_stage) == (2, frozen)
    source = features.source(list("fbcab"), device=device)
    images = PixelSource(pixels, augment, device=device, seed=0)
    order = torch.tensor([5, 1, 2, 0, 1])

    def embed(values: torch.Tensor) -> torch.Tensor:
        return network.embed(values, start_stage=frozen)

    with torch.no_grad():
        embeddings = network.embed(images.view(0, 0, 6))
        torch.testing.assert_close(embed(source.view(0, 0, 5)), embeddings[order], atol=3e-3, rtol=0)
        for number in (1, 2):
            view = network.embed(images.view(number, 0, 6))
            torch.testing.assert_close(embed(source.view(number, 0, 5)), view[order], atol=3e-3, rtol=0)
        # A batch has one augmented view of each image, without its mirror image.
        batch = Batch(np.arange(5), np.zeros(5, np.int64))
        values = source.batch(batch, 7)
        assert values.ndim == (2 if frozen == len(network.encoder.stages()) - 1 else 4)
        assert torch.equal(values, source.batch(batch, 7))
        views = torch.stack([source.view(number, 0, 5) for number in range(3)], dim=1)
        views = views[:, :, 0] if symmetric else views
        assert all((views[i] == values[i]).flatten(1).all(dim=1).any() for i in range(5))
        # A network that is not symmetric uses the features of the image alone.
        network.encoder.symmetric = False
        alone = embed(source.view(0, 0, 5))
        torch.testing.assert_close(alone, network.embed(images.view(0, 0, 6))[order], atol=3e-3, rtol=0)


def test_subset_of_cached_set_selects_its_features():
    network = made("conv4", (24, 20), 1, symmetric=False)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 24, 20, 1), dtype=np.uint8)
    empty = np.full(4, "")
    images = ImageSet(pixels, np.array(list("xxyy")), empty, np.zeros(4, np.bool_), empty)
    data = DecodedSet(pixels, images, None, list("abcd"))
    cache = FeatureCache(network, 2, augment=Augmentation(), n_augmentations=0, seed=0)
    features = cache.transform(pixels, data.hashes, progress=False)
    assert features is not None
    part = CachedSet.of(data, features).subset(np.array([3, 1]))
    source = input_source(part, device=torch.device("cpu"))
    assert isinstance(source, FeatureSource)
    assert torch.equal(source.view(0, 0, 2), features.values[[3, 1], 0].float())
