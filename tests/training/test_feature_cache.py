"""Kept maps: the stages behind them make of them what the whole network makes of the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twinned import encoders
from twinned.data.augmentation import Augmentation
from twinned.data.samplers import Batch
from twinned.nn.siamese import SiameseNetwork
from twinned.training.feature_cache import FeatureCache, PixelSource, whole


def made(name: str, size: tuple[int, int], channels: int, *, symmetric: bool) -> SiameseNetwork:
    torch.manual_seed(0)
    encoder = encoders.build(name, image_size=size, channels=channels, embedding_size=12, symmetric=symmetric)
    return SiameseNetwork(encoder, normalize=True, mean=(0.4,) * channels, std=(0.3,) * channels).eval()


CASES = [("conv4", (24, 20), 1, 2), ("conv4", (24, 20), 1, 4)]
CASES += [("efficientnet_lite0_photo", (64, 64), 3, 6), ("efficientnet_lite0_face", (64, 64), 3, 4)]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("name", "size", "channels", "frozen"), CASES)
def test_kept_maps_lead_to_the_embeddings_of_the_images(name, size, channels, frozen, symmetric):
    if name.startswith("efficientnet"):
        pytest.importorskip("efficientnet_lite_pytorch")
    network = made(name, size, channels, symmetric=symmetric)
    assert network.encoder.splits(frozen)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, *size, channels), dtype=np.uint8)
    warp = Augmentation(rotation=20)
    front = FeatureCache(network, frozen, warp=warp, views=2, seed=0)
    assert front.run(pixels, list("abcdef"), progress=False)
    feed, images = front.feed(list("fbcab")), PixelSource(pixels, warp, device=torch.device("cpu"), seed=0)
    order = torch.tensor([5, 1, 2, 0, 1])
    tail = front.tail(network).eval()
    with torch.no_grad():
        embeddings = network.embed(images.plain(0, 6))
        torch.testing.assert_close(tail.embed(feed.plain(0, 5)), embeddings[order], atol=3e-3, rtol=0)
        for number in (1, 2):
            view = network.embed(images.view(number, 0, 6))
            torch.testing.assert_close(tail.embed(feed.view(number, 0, 5)), view[order], atol=3e-3, rtol=0)
        assert feed.view(3, 0, 5) is None
        # A batch is one of the views, and learnt from without its mirror image.
        batch = Batch(np.arange(5), np.zeros(5, np.int64))
        maps = feed.batch(batch, 7)
        assert maps.ndim == 4
        assert torch.equal(maps, feed.batch(batch, 7))
        views = torch.stack([feed.view(number, 0, 5) for number in range(3)], dim=1)
        views = views[:, :, 0] if symmetric else views
        assert all((views[i] == maps[i]).flatten(1).all(dim=1).any() for i in range(5))
        # Another network that looks through the same front may see images as they are.
        network.encoder.symmetric = False
        alone = front.tail(network).eval().embed(feed.plain(0, 5))
        torch.testing.assert_close(alone, network.embed(images.plain(0, 6))[order], atol=3e-3, rtol=0)
        network.encoder.symmetric = symmetric
        assert whole(tail, mean=(0.4,) * channels, std=(0.3,) * channels).encoder is network.encoder
